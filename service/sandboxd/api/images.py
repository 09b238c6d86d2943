"""Images: what is there, import and load, tags, removal."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any

from aiohttp import web

from sandboxd.api import registries
from sandboxd.api.call import Call
from sandboxd.api.replies import empty_reply, json_reply, message_line
from sandboxd.api.uploads import consume
from sandboxd.errors import BadRequest

if TYPE_CHECKING:
    from sandboxd.images import Image

LIST_FILTERS = frozenset(("before", "dangling", "label", "reference", "since", "until"))
PRUNE_FILTERS = frozenset(("dangling", "label", "label!", "until"))


async def list_(call: Call) -> web.StreamResponse:
    """GET /images/json?all&filters"""
    images = call.engine.images.list(call.query.filters(LIST_FILTERS))
    return json_reply([row(image) for image in images])


async def inspect(call: Call) -> web.StreamResponse:
    """GET /images/{name+}/json"""
    return json_reply(_about(call.engine.images.get(call.params["name"])))


async def history(call: Call) -> web.StreamResponse:
    """GET /images/{name+}/history: newest first; only the top row has an id of its own."""
    image = call.engine.images.get(call.params["name"])
    steps = list(reversed(image.config.get("history") or [{}]))
    sizes = _sizes(call, image, steps)
    rows = [
        {
            "Id": "<missing>" if at else image.id,
            "Created": _unix(step.get("created") or image.created),
            "CreatedBy": step.get("created_by", ""),
            "Tags": None if at else list(image.tags),
            "Size": sizes[at],
            "Comment": step.get("comment", ""),
        }
        for at, step in enumerate(steps)
    ]
    return json_reply(rows)


def _sizes(call: Call, image: Image, steps: Sequence[Mapping[str, Any]]) -> list[int]:
    """The bytes of each step's layer, newest first; all with the first where steps and layers do
    not match."""
    filled = [at for at, step in enumerate(steps) if not step.get("empty_layer")]
    sizes = [0] * len(steps)
    if len(filled) != len(image.layers):
        sizes[0] = image.size
        return sizes
    for at, layer in zip(filled, reversed(image.layers), strict=True):
        sizes[at] = int(call.engine.store.layers.metadata(layer)["size"])
    return sizes


async def create(call: Call) -> web.StreamResponse:
    """POST /images/create: `fromSrc=-` imports the body, `fromImage` pulls."""
    if name := call.query.text("fromImage"):
        return await registries.pull(call, _joined(name, call.query.text("tag")))
    return await _import(call)


async def load(call: Call) -> web.StreamResponse:
    """POST /images/load: an archive of `docker save` or an OCI layout."""
    images = call.engine.images
    names = await consume(call.request, images.load)
    response = await call.begin("application/json")
    for name in names:
        image = images.get(name)
        call.engine.events.publish("image", "load", image.id, {"name": name})
        kind = "Loaded image ID" if name.startswith("sha256:") else "Loaded image"
        await response.write(message_line({"stream": f"{kind}: {name}\n"}))
    return response


async def tag(call: Call) -> web.StreamResponse:
    """POST /images/{name+}/tag?repo&tag"""
    images, query = call.engine.images, call.query
    name = call.params["name"]
    image = images.get(name)
    images.tag(name, query.text("repo"), query.text("tag"))
    new = _joined(query.text("repo"), query.text("tag"))
    call.engine.events.publish("image", "tag", image.id, {"name": new})
    return empty_reply(201)


async def remove(call: Call) -> web.StreamResponse:
    """DELETE /images/{name+}?force&noprune"""
    engine, query = call.engine, call.query
    name = call.params["name"]
    image = engine.images.get(name)
    done = engine.images.remove(name, query.flag("force"), query.flag("noprune"), in_use(call))
    _publish_removal(call, image, done)
    return json_reply(list(done))


async def prune(call: Call) -> web.StreamResponse:
    """POST /images/prune?filters: images without a tag; with `dangling=false` all that are unused.

    Images that a container uses stay, and so does `host`.
    """
    engine = call.engine
    filters = call.query.filters(PRUNE_FILTERS)
    everything = filters.pop("dangling", ["true"])[0].lower() in ("0", "false")
    used = in_use(call)
    removed: list[Mapping[str, str]] = []
    reclaimed = 0
    for image in engine.images.list(filters):
        if image.is_host or image.id in used or (image.tags and not everything):
            continue
        done = engine.images.remove(image.id, True, False, used)
        _publish_removal(call, image, done)
        removed += done
        reclaimed += image.size
    return json_reply({"ImagesDeleted": removed or None, "SpaceReclaimed": reclaimed})


def in_use(call: Call) -> dict[str, list[str]]:
    """The containers of each image, by image id."""
    users: dict[str, list[str]] = defaultdict(list)
    for row in call.engine.list(all=True, limit=-1, filters={}, size=False):
        users[row["ImageID"]].append(row["Id"])
    return dict(users)


def row(image: Image) -> dict[str, Any]:
    """An image as an element of the list."""
    return {
        "Id": image.id,
        "ParentId": "",
        "RepoTags": list(image.tags),
        "RepoDigests": list(image.digests),
        "Created": _unix(image.created),
        "Size": image.size,
        "SharedSize": -1,
        "VirtualSize": image.size,
        "Labels": _config(image).get("Labels"),
        "Containers": -1,
    }


async def _import(call: Call) -> web.StreamResponse:
    query = call.query
    if query.text("fromSrc") != "-":
        why = "only a root file system in the request's body can be imported (fromSrc=-)"
        raise BadRequest("invalid source of an image", why, "sandboxctl image import FILE REF")
    repo, tag_ = query.text("repo"), query.text("tag")
    reference = _joined(repo, tag_) if repo else None
    image = await consume(
        call.request,
        lambda body: call.engine.images.import_rootfs(
            body, reference, message=query.text("message"), changes=query.texts("changes")
        ),
    )
    call.engine.events.publish("image", "import", image.id, {"name": reference or image.id})
    response = await call.begin("application/json")
    await response.write(message_line({"status": image.id}))
    return response


def _joined(repo: str, tag_: str) -> str:
    """A reference from the two halves in which clients send it; a "tag" may be a digest."""
    if not tag_:
        return repo
    return f"{repo}@{tag_}" if ":" in tag_ else f"{repo}:{tag_}"


def _publish_removal(call: Call, image: Image, done: Sequence[Mapping[str, str]]) -> None:
    for entry in done:
        for kind, action in (("Untagged", "untag"), ("Deleted", "delete")):
            if kind in entry and (kind == "Untagged" or entry[kind] == image.id):
                attributes = {"name": entry[kind]}
                call.engine.events.publish("image", action, image.id, attributes)


def _about(image: Image) -> dict[str, Any]:
    return {
        "Id": image.id,
        "RepoTags": list(image.tags),
        "RepoDigests": list(image.digests),
        "Parent": "",
        "Comment": next(_comments(image), ""),
        "Created": image.created,
        "Author": image.config.get("author", ""),
        "DockerVersion": "",
        "Architecture": image.config.get("architecture", ""),
        "Os": image.config.get("os", "linux"),
        "Size": image.size,
        "VirtualSize": image.size,
        "Config": _complete_config(_config(image)),
        "RootFS": {"Type": "layers", "Layers": list(image.layers)},
        "GraphDriver": {"Name": "overlay2", "Data": None},
        "Metadata": {"LastTagTime": image.created},
    }


def _complete_config(config: dict[str, Any]) -> dict[str, Any]:
    """The image's config with the fields that clients read without asking whether they exist."""
    absent = {"Cmd": None, "Entrypoint": None, "Env": None, "Labels": None, "Volumes": None}
    return {**absent, "User": "", "WorkingDir": "", **config}


def _config(image: Image) -> dict[str, Any]:
    return image.config.get("config") or {}


def _comments(image: Image) -> Iterator[str]:
    for step in reversed(image.config.get("history") or []):
        if step.get("comment"):
            yield step["comment"]


def _unix(created: str) -> int:
    """Seconds since 1970 of an RFC 3339 time; 0 when the image has none."""
    try:
        return int(datetime.fromisoformat(created[:19] + "+00:00").timestamp())
    except ValueError:
        return 0
