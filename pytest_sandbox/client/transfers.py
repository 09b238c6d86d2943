"""The client's calls that take images out of the service: saved, pushed, pruned."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, NamedTuple

from pytest_sandbox.client.images import progress_entries
from pytest_sandbox.client.pulls import registry_headers
from pytest_sandbox.client.targets import Query, image_part, with_query
from pytest_sandbox.client.transport import Request

if TYPE_CHECKING:
    from pytest_sandbox.client.pulls import Credentials, PullProgress
    from pytest_sandbox.client.transport import Stream, Transport

Written = Callable[[int], None]
"""Called with the bytes that have been written so far."""


class Pushed(NamedTuple):
    """A tag in a registry and the manifest that it names: its digest and its size in bytes."""

    tag: str
    digest: str
    size: int


class TransferCalls:
    """A part of `Client`."""

    if TYPE_CHECKING:
        _transport: Transport

        def call(self, method: str, path: str, query: Query | None = None) -> Any: ...

        def stream(self, method: str, path: str, query: Query | None = None) -> Stream: ...

    def image_save(
        self,
        names: str | Sequence[str],
        target: str | os.PathLike[str] | BinaryIO,
        *,
        progress: Written | None = None,
    ) -> None:
        """Write images to a tar that docker, podman, skopeo and umoci take: `docker save`'s format
        and an OCI layout at once. A name without tag stands for all tags of its repository.

        A file that is named is there when it is complete, or not at all. Raises NoSuchImage,
        Forbidden for the image `host`, OSError.
        """
        query = {"names": [names] if isinstance(names, str) else list(names)}
        with self.stream("GET", "/images/get", query) as answer:
            write_out(answer, target, progress)

    def image_push(
        self,
        reference: str,
        *,
        index: Sequence[str] = (),
        compression: str = "gzip",
        format: str = "",
        credentials: Credentials | None = None,
        progress: PullProgress | None = None,
    ) -> list[Pushed]:
        """Send an image to the registry in its name; without a tag, all tags of the repository.

        `index` names images, each for another platform, to be pushed as one. `compression` is gzip
        or zstd, `format` oci or docker, else what the image came as. `credentials` are (user,
        password), else those of the docker command's configuration, with its helpers. Raises
        NotFound for a tag that is not here, Forbidden, RegistryError.
        """
        query = {"index": list(index), "compression": compression, "format": format or None}
        target = with_query(f"/images/{image_part(reference)}/push", query)
        headers = registry_headers(reference, credentials)
        found = []
        with self._transport.stream(Request("POST", target, b"", headers)) as answer:
            for entry in progress_entries(answer):
                if aux := entry.get("aux"):
                    found.append(Pushed(aux["Tag"], aux["Digest"], aux["Size"]))
                elif progress is not None:
                    progress(entry)
        return found

    def image_history(self, name: str) -> list[dict[str, Any]]:
        """Docker's JSON about the steps that made an image, the newest first."""
        found: list[dict[str, Any]] = self.call("GET", f"/images/{image_part(name)}/history")
        return found

    def image_prune(self, all: bool = False) -> dict[str, Any]:
        """Remove images without a tag, with `all` every one that no container uses: Docker's JSON
        about it."""
        filters = json.dumps({"dangling": ["false"]}) if all else None
        gone: dict[str, Any] = self.call("POST", "/images/prune", {"filters": filters})
        return gone


def write_out(
    pieces: Iterable[bytes],
    target: str | os.PathLike[str] | BinaryIO,
    progress: Written | None = None,
) -> None:
    """Write an answer to a file; one that is named is replaced when all of it is there."""
    written = 0
    with _opened(target) as file:
        for piece in pieces:
            file.write(piece)
            written += len(piece)
            if progress is not None:
                progress(written)


def _opened(target: str | os.PathLike[str] | BinaryIO) -> AbstractContextManager[BinaryIO]:
    if isinstance(target, str | os.PathLike):
        return _Replacing(Path(target))
    return nullcontext(target)


class _Replacing:
    """A new file beside the target, which takes its name at the end of a block that went well.

    What is no regular file (a pipe, /dev/stdout) is written to directly.
    """

    def __init__(self, target: Path) -> None:
        self._target = target
        self._direct = target.exists() and not target.is_file()
        self._path = target if self._direct else target.with_name(f".{target.name}.{os.getpid()}")

    def __enter__(self) -> BinaryIO:
        self._file = self._path.open("wb")
        return self._file

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        self._file.close()
        if self._direct:
            return
        if kind is None:
            self._path.replace(self._target)
        else:
            self._path.unlink(missing_ok=True)
