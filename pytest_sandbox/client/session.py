"""`connect` and the client: the calls that concern the service as a whole."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, BinaryIO, Self, Unpack

from pytest_sandbox.autostart import Service
from pytest_sandbox.client import builds, images, pulls
from pytest_sandbox.client.container import Container
from pytest_sandbox.client.images import Progress
from pytest_sandbox.client.lease import HEADER as LEASE_HEADER
from pytest_sandbox.client.lease import Lease
from pytest_sandbox.client.options import ContainerOptions, create_body
from pytest_sandbox.client.results import RUN_CONTENT_TYPE, Image, RunResult
from pytest_sandbox.client.snapshot import Snapshot
from pytest_sandbox.client.snapshots import SnapshotCalls
from pytest_sandbox.client.streams import Attachment, Feed
from pytest_sandbox.client.targets import Query, image_part, path_part, with_query
from pytest_sandbox.client.transfers import TransferCalls
from pytest_sandbox.client.transport import Request, Stream, Transport
from pytest_sandbox.client.volume import Volume


def connect(
    host: str | None = None, *, autostart: bool = True, lease: bool = True, label: str = ""
) -> Client:
    """A client for the sandbox service of this user, which starts with the first call if need be.

    `host`: `unix:///path/to/docker.sock`; else $SANDBOX_HOST, else the user's own socket. With
    `lease` everything made through this client is removed when the client is closed or its process
    ends, in whatever way; `label` is what the service calls the lease. Use it as a context manager
    or call `close`. Raises BadRequest for a host that is not an absolute unix socket path.
    """
    return Client(Service(host, autostart=autostart), leased=lease, label=label)


class Client(SnapshotCalls, TransferCalls):
    """Calls to one service; threads may share it, a forked child may go on using it."""

    def __init__(self, service: Service, *, leased: bool = True, label: str = "") -> None:
        self.service = service
        self._transport = Transport(service.connect, str(service.socket_path))
        self._lease = Lease(self._transport, label)
        self._leased = leased
        self.pulls_missing = True
        """Whether a missing image is pulled, as `docker run` does, or is an error."""
        self.fetch_image: Callable[[str], object] | None = None
        """What pulls a missing image, other than `pull`: the command line shows bars meanwhile."""

    # containers

    def run(
        self,
        image: str,
        args: Sequence[str] | None = None,
        *,
        stdin: bytes = b"",
        timeout: float | None = None,
        **options: Unpack[ContainerOptions],
    ) -> RunResult:
        """Run a command in a container that is gone afterwards; its exit code and output.

        A missing image is pulled first. After `timeout` seconds the command is killed and the
        result says `timed_out`. The command dies with this call, too, however the call ends.
        Keywords: see ContainerOptions. Raises NoSuchImage, StartFailed (`exit_code` 127 for a
        missing command, 126 for one that cannot be executed), BadRequest and CannotEnforce.
        """
        body = create_body(image, args, options)
        return pulls.with_image(
            self, image, lambda: self.run_collected("/sandbox/run", body, stdin, timeout)
        )

    def run_collected(
        self, target: str, body: dict[str, Any], stdin: bytes, timeout: float | None
    ) -> RunResult:
        """A call of the extension that runs a command and answers with all that it wrote."""
        if timeout is not None:
            body["Timeout"] = timeout
        if stdin:
            from base64 import b64encode

            body["Stdin"] = b64encode(stdin).decode()
        headers = {"Content-Type": "application/json", "Accept": RUN_CONTENT_TYPE}
        request = Request("POST", target, json.dumps(body).encode(), headers)
        return RunResult.from_answer(self._transport.request(request))

    def container(
        self,
        image: str,
        args: Sequence[str] | None = None,
        *,
        name: str | None = None,
        **options: Unpack[ContainerOptions],
    ) -> Container:
        """Make a container, without starting it. `args`: None for the image's own command.

        A missing image is pulled first. Raises NoSuchImage, Conflict for a name that is taken,
        BadRequest, CannotEnforce.
        """
        body = create_body(image, args, options)
        return self.create_container(body, name=name)

    def create_container(self, body: Mapping[str, Any], *, name: str | None = None) -> Container:
        """Make a container from the Engine API's own JSON; a missing image is pulled."""
        made = pulls.with_image(
            self,
            str(body.get("Image", "")),
            lambda: self.call("POST", "/containers/create", {"name": name}, body, leased=True),
        )
        return Container(self, made["Id"], name or "")

    def containers(self, all: bool = False) -> list[Container]:
        """The running containers of this service; with `all` also those that do not run."""
        return [
            Container(self, row["Id"], row["Names"][0].lstrip("/"))
            for row in self.call("GET", "/containers/json", {"all": all})
        ]

    def get_container(self, reference: str) -> Container:
        """The container with this name, id or unique beginning of an id. Or NoSuchContainer."""
        found = self.call("GET", f"/containers/{path_part(reference)}/json")
        return Container(self, found["Id"], found["Name"].lstrip("/"))

    # images

    def images(self) -> list[Image]:
        """The images of this service; `host`, the machine's own root, is always among them."""
        return [Image.from_row(row) for row in self.call("GET", "/images/json")]

    def image_inspect(self, name: str) -> dict[str, Any]:
        """Docker's JSON for an image. Raises NoSuchImage."""
        found: dict[str, Any] = self.call("GET", f"/images/{image_part(name)}/json")
        return found

    def image_import(
        self,
        source: str | os.PathLike[str] | BinaryIO,
        reference: str | None = None,
        *,
        message: str = "",
        changes: Sequence[str] = (),
        progress: Progress | None = None,
    ) -> str:
        """Make an image of one layer from a root file system's tar, plain or compressed; its id.

        `changes` are Dockerfile lines such as `CMD ["sh"]`. `progress` is called with the bytes
        sent so far and the size of the file, None when unknown.
        """
        query = {"fromSrc": "-", "repo": reference, "message": message, "changes": list(changes)}
        with images.upload(source, progress) as blocks:
            lines = self._upload("/images/create", query, blocks)
        return images.imported_id(lines)

    def image_load(
        self,
        source: str | os.PathLike[str] | BinaryIO,
        *,
        progress: Progress | None = None,
    ) -> list[str]:
        """Load images from what `docker save` or an OCI layout has in a tar; their names or ids."""
        with images.upload(source, progress) as blocks:
            lines = self._upload("/images/load", {}, blocks)
        return images.loaded_names(lines)

    def pull(
        self,
        reference: str,
        *,
        platform: str | None = None,
        credentials: pulls.Credentials | None = None,
        progress: pulls.PullProgress | None = None,
    ) -> str:
        """Fetch an image from its registry, as far as it is not here yet; its full name.

        `platform` is `OS/ARCH[/VARIANT]`, else this machine's. `credentials` are (user, password),
        else those of the docker command's configuration, with its helpers. Raises NoSuchImage,
        Forbidden, RegistryError, NoSpace.
        """
        request = pulls.pull_request(reference, platform, credentials)
        with self._transport.stream(request) as answer:
            return pulls.followed(answer, progress)

    def build(self, context: builds.Context = ".", **options: Unpack[builds.BuildOptions]) -> str:
        """Build an image from a directory with a Dockerfile, or from a tar archive; its id.

        Keywords: see BuildOptions. Raises BuildFailed (with the `exit_code`) for a command that
        fails, BadRequest for a Dockerfile that is wrong, NoSuchImage.
        """
        request = builds.build_request(context, options)
        with self._transport.stream(request) as answer:
            return builds.followed(answer, options.get("progress"))

    def image_digest(self, reference: str) -> str:
        """The digest that an image's name stands for in its registry at this moment.

        Raises NoSuchImage, Forbidden, RegistryError.
        """
        answer = self._transport.request(pulls.look_up_request(reference)).json()
        return str(answer["Descriptor"]["digest"])

    def image_tag(self, name: str, repository: str, tag: str = "latest") -> None:
        """Give an image another name."""
        target = f"/images/{image_part(name)}/tag"
        self.call("POST", target, {"repo": repository, "tag": tag})

    def image_remove(self, name: str, force: bool = False) -> list[dict[str, str]]:
        """Remove a name, and the image with its last one; what was `Untagged` and `Deleted`.

        Conflict while containers use it.
        """
        target = f"/images/{image_part(name)}"
        removed: list[dict[str, str]] = self.call("DELETE", target, {"force": force})
        return removed

    # volumes; the calls about snapshots are SnapshotCalls'

    def volume(
        self,
        name: str | None = None,
        *,
        snapshot: Snapshot | str | None = None,
        driver: str = "local",
        labels: Mapping[str, str] | None = None,
        options: Mapping[str, str] | None = None,
    ) -> Volume:
        """Make a volume, empty or as a writable copy of a snapshot (which copies nothing up front).

        `options` of the driver `local`: `copy=true` asks for a full copy of the snapshot,
        `upper=disk|memory` says where its changes go. Driver `socket` makes a directory with a
        path short enough for unix sockets. A name that exists gives that same volume; Conflict when
        it is of another driver or snapshot.
        """
        key = snapshot.key if isinstance(snapshot, Snapshot) else snapshot
        # Kept in no database, since it ends with the lease, and on disk, since it may be sealed.
        # A copy of a snapshot ends with the service anyway and is faster in memory.
        scratch = self._leased and key is None and driver == "local"
        body = {
            "Name": name,
            "Driver": driver,
            "Labels": dict(labels or {}),
            "DriverOpts": dict(options or {}),
            "Sandbox": {"Snapshot": key, "Scratch": scratch},
        }
        return Volume(self, self.call("POST", "/volumes/create", body=body, leased=True))

    def volumes(self) -> list[Volume]:
        """All volumes of this service."""
        return [Volume(self, row) for row in self.call("GET", "/volumes")["Volumes"] or ()]

    def get_volume(self, name: str) -> Volume:
        """The volume with this name. Raises NoSuchVolume."""
        return Volume(self, self.call("GET", f"/volumes/{path_part(name)}"))

    def volume_remove(self, name: str, force: bool = False) -> None:
        """Remove a volume. Conflict while a container uses it; `force` pardons absence."""
        self.call("DELETE", f"/volumes/{path_part(name)}", {"force": force})

    def volume_prune(self, all: bool = False) -> dict[str, Any]:
        """Remove unused anonymous volumes, with `all` named ones too: Docker's JSON about it."""
        filters = json.dumps({"all": ["true"]}) if all else None
        gone: dict[str, Any] = self.call("POST", "/volumes/prune", {"filters": filters})
        return gone

    # the service

    def version(self) -> dict[str, Any]:
        """Docker's version JSON: `ApiVersion`, `Version`…"""
        found: dict[str, Any] = self.call("GET", "/version")
        return found

    def info(self) -> dict[str, Any]:
        """Docker's info JSON about the service and the machine."""
        found: dict[str, Any] = self.call("GET", "/info")
        return found

    def status(self) -> dict[str, Any]:
        """The service itself: `Pid`, `Uptime` in seconds, `Root`, `Socket`, `IdMap`, counts."""
        found: dict[str, Any] = self.call("GET", "/sandbox/status")
        return found

    def user_namespace(self) -> int:
        """A descriptor, which the caller closes, of the user namespace that containers lie in.

        A single-threaded process of this user may enter it by setns(2); a network namespace that it
        unshares there can be joined by containers (`network="pid:…"`). Raises HostLacks where the
        service's process cannot be seen from here.
        """
        from pytest_sandbox.client.namespace import open_user_namespace

        found = self.call("GET", "/sandbox/namespace")
        return open_user_namespace(found["Pid"], found["UserNamespace"])

    def shutdown(self) -> None:
        """Ask the service to end, with all its containers."""
        self.call("POST", "/sandbox/shutdown")

    def events(
        self,
        *,
        since: float | None = None,
        until: float | None = None,
        filters: Mapping[str, Sequence[str]] | None = None,
    ) -> Feed[dict[str, Any]]:
        """Docker's events as they happen; none is missed once this call has returned.

        `since` and `until` in seconds since 1970; with `until` the iterator ends then. Filters as
        in `docker events`: `{"type": ["container"], "event": ["die"]}`.
        """
        chosen = json.dumps(filters) if filters else None
        stream = self.stream("GET", "/events", {"since": since, "until": until, "filters": chosen})
        return Feed(stream, map(json.loads, images.split_lines(stream)))

    def close(self) -> None:
        """End the lease, and with it everything made under it, and close the connections."""
        self._lease.close()
        self._transport.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    # any other call of the Engine API

    def call(
        self,
        method: str,
        path: str,
        query: Query | None = None,
        body: object = None,
        *,
        leased: bool = False,
        needs_lease: bool = False,
        timeout: float | None = None,
    ) -> Any:
        """One call of the Engine API with JSON both ways; the decoded answer, None if it is empty.

        Parameters of `query` that are None are left out. `leased`: what the call makes goes with
        this client's lease, if it has one; `needs_lease`: the call is about something that belongs
        to a lease in any case.
        """
        request = self.request(
            method, path, query, body, leased=leased, needs_lease=needs_lease, timeout=timeout
        )
        return self._transport.request(request).json()

    def request(
        self,
        method: str,
        path: str,
        query: Query | None = None,
        body: object = None,
        *,
        leased: bool = False,
        needs_lease: bool = False,
        timeout: float | None = None,
    ) -> Request:
        """What `call` with these arguments sends, for those who send it in their own way."""
        headers = {} if body is None else {"Content-Type": "application/json"}
        if needs_lease or (leased and self._leased):
            headers[LEASE_HEADER] = self._lease.id
        data = b"" if body is None else json.dumps(body).encode()
        return Request(method, with_query(path, query), data, headers, timeout)

    def stream(self, method: str, path: str, query: Query | None = None) -> Stream:
        """A call whose answer comes bit by bit; the caller closes it."""
        return self._transport.stream(Request(method, with_query(path, query)))

    def attach(self, path: str, query: Query | None = None, body: object = None) -> Attachment:
        """A call that turns into a stream to a program; the caller closes it."""
        headers = {} if body is None else {"Content-Type": "application/json"}
        data = b"" if body is None else json.dumps(body).encode()
        request = Request("POST", with_query(path, query), data, headers)
        return Attachment(*self._transport.hijack(request))

    def send(self, request: Request) -> Any:
        """A call that was made with `request` or by hand; the decoded answer, None if empty."""
        return self._transport.request(request).json()

    def _upload(self, path: str, query: Query, blocks: Iterator[bytes]) -> list[dict[str, Any]]:
        headers = {"Content-Type": "application/x-tar"}
        request = Request("POST", with_query(path, query), blocks, headers)
        with self._transport.stream(request) as answer:
            return list(images.progress_entries(answer))
