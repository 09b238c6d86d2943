"""Every route that is answered. What is not here is `404 page not found`, as in dockerd."""

from __future__ import annotations

from sandboxd.api import (
    archive,
    attach,
    containers,
    events,
    extension,
    images,
    leases,
    networks,
    snapshots,
    system,
    volumes,
)
from sandboxd.api.router import Route

_SWARM = ("/configs", "/nodes", "/secrets", "/services", "/swarm", "/tasks")

ROUTES = (
    # the service
    Route("GET", "/_ping", system.ping),
    Route("HEAD", "/_ping", system.ping),
    Route("GET", "/version", system.version),
    Route("GET", "/info", system.info),
    Route("GET", "/events", events.events),
    Route("GET", "/system/df", system.disk_use),
    # containers
    Route("GET", "/containers/json", containers.list_),
    Route("POST", "/containers/create", containers.create),
    Route("POST", "/containers/prune", containers.prune),
    Route("GET", "/containers/{id}/json", containers.inspect),
    Route("GET", "/containers/{id}/logs", containers.logs),
    Route("POST", "/containers/{id}/start", containers.start),
    Route("POST", "/containers/{id}/stop", containers.stop),
    Route("POST", "/containers/{id}/restart", containers.restart),
    Route("POST", "/containers/{id}/kill", containers.kill),
    Route("POST", "/containers/{id}/pause", containers.pause),
    Route("POST", "/containers/{id}/unpause", containers.unpause),
    Route("POST", "/containers/{id}/rename", containers.rename),
    Route("POST", "/containers/{id}/resize", containers.resize),
    Route("POST", "/containers/{id}/wait", containers.wait),
    Route("POST", "/containers/{id}/attach", attach.attach),
    Route("HEAD", "/containers/{id}/archive", archive.head),
    Route("GET", "/containers/{id}/archive", archive.get),
    Route("PUT", "/containers/{id}/archive", archive.put),
    Route("DELETE", "/containers/{id}", containers.remove),
    # execs
    Route("POST", "/containers/{id}/exec", attach.exec_create),
    Route("POST", "/exec/{id}/start", attach.exec_start),
    Route("POST", "/exec/{id}/resize", attach.exec_resize),
    Route("GET", "/exec/{id}/json", attach.exec_inspect),
    # images
    Route("GET", "/images/json", images.list_),
    Route("POST", "/images/create", images.create),
    Route("POST", "/images/load", images.load),
    Route("POST", "/images/prune", images.prune),
    Route("GET", "/images/{name+}/json", images.inspect),
    Route("GET", "/images/{name+}/history", images.history),
    Route("POST", "/images/{name+}/tag", images.tag),
    Route("DELETE", "/images/{name+}", images.remove),
    # volumes
    Route("GET", "/volumes", volumes.list_),
    Route("POST", "/volumes/create", volumes.create),
    Route("POST", "/volumes/prune", volumes.prune),
    Route("GET", "/volumes/{id}", volumes.inspect),
    Route("DELETE", "/volumes/{id}", volumes.remove),
    # networks
    Route("GET", "/networks", networks.list_),
    Route("POST", "/networks/create", networks.create),
    Route("POST", "/networks/prune", networks.prune),
    Route("GET", "/networks/{id}", networks.inspect),
    Route("DELETE", "/networks/{id}", networks.remove),
    Route("POST", "/networks/{id}/connect", networks.connect),
    Route("POST", "/networks/{id}/disconnect", networks.connect),
    # what Docker has and this service has not
    *(Route("GET", path, system.no_swarm) for path in _SWARM),
    *(Route("GET", f"{path}/{{id}}", system.no_swarm) for path in _SWARM),
    Route("GET", "/plugins", system.no_plugins),
    Route("GET", "/plugins/{name+}/json", system.no_plugin),
    Route("POST", "/build", system.no_build),
    Route("POST", "/build/prune", system.prune_build_cache),
    # the extension
    Route("POST", "/sandbox/run", extension.run),
    Route("POST", "/sandbox/containers/{id}/exec", extension.exec_),
    Route("GET", "/sandbox/containers/{id}/ready", extension.ready),
    Route("GET", "/sandbox/containers/{id}/mounts", extension.mounts),
    Route("POST", "/sandbox/leases", leases.hold),
    Route("GET", "/sandbox/leases", leases.list_),
    Route("GET", "/sandbox/snapshots", snapshots.list_),
    Route("GET", "/sandbox/snapshots/{key}", snapshots.inspect),
    Route("DELETE", "/sandbox/snapshots/{key}", snapshots.remove),
    Route("POST", "/sandbox/snapshots/{key}/claim", snapshots.claim),
    Route("DELETE", "/sandbox/snapshots/{key}/claim", snapshots.abandon),
    Route("POST", "/sandbox/snapshots/{key}/seal", snapshots.seal),
    Route("POST", "/sandbox/recipes", snapshots.build),
    Route("GET", "/sandbox/status", extension.status),
    Route("POST", "/sandbox/shutdown", extension.shutdown),
)
