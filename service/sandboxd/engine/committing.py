"""A container's changes: shown, and made an image.

What a container has written lies in its upper directory, unless it was created with --rm: then in
memory that only its own mounts reach, and what it sees is compared with its image while it runs. A
commit of one that was made from the image `host` gives an image on this machine's own root, as a
build FROM host does: what the container wrote below the top-level directories that it shares with
the machine.
"""

from __future__ import annotations

import os
import select
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from sandboxd.engine.container import Container
from sandboxd.engine.freezing import frozen
from sandboxd.engine.inspection import config_of
from sandboxd.engine.live_mounts import mounted_in
from sandboxd.errors import Conflict, SandboxError
from sandboxd.threads import in_thread

if TYPE_CHECKING:
    from sandboxd.engine.engine import Engine
    from sandboxd.images import Image
    from sandboxd.images.reference import Reference
    from sandboxd.images.upper_changes import Change
    from sandboxd.store import Store

_DIRECTORY: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC


@dataclass(frozen=True, slots=True)
class CommitOptions:
    """`changes` are lines of a Dockerfile; `config` overrides the container's own field by field.

    With `clamp`, in seconds since 1970, nothing in the image is later than that, and the same
    changes give the same image.
    """

    name: Reference | None = None
    comment: str = ""
    author: str = ""
    changes: Sequence[str] = ()
    config: Mapping[str, Any] = field(default_factory=dict)
    pause: bool = True
    clamp: int | None = None


async def commit(engine: Engine, container: Container, options: CommitOptions) -> Image:
    """A new image: the container's own and, on top, a layer of what it has changed.

    Its processes are stopped while its files are copied, unless `pause` is false. Raises Conflict
    where its writes go with its end, BadRequest, NoSpace.
    """
    from sandboxd.images.changes import apply_changes

    parent = engine.images.get(container.image)
    own = {
        **config_of(container),
        "Shell": container.image_config.get("Shell"),
        "StopSignal": container.settings.stop_signal,
    }
    configured = _merged(options.config, own)
    config = apply_changes(configured, list(options.changes))
    with ExitStack() as held:
        staged = held.enter_context(engine.store.staging("commit"))
        held.enter_context(engine.store.pin(parent.id, *parent.layers, *parent.stack))
        async with container.lock:
            lowers = _lowers(engine, parent)
            copied = await _copied(container, parent, lowers, staged, options.pause)
        return await in_thread(
            lambda: _published(engine, container, parent, copied, config, options)
        )


async def changes(engine: Engine, container: Container) -> Sequence[Change]:
    """What GET /containers/{id}/changes tells. Raises Conflict where its files are out of reach."""
    from sandboxd.images.upper_changes import changes as changes_of

    image = engine.images.get(container.image)
    lowers = _lowers(engine, image)
    with ExitStack() as held:
        upper = container.upper / "u"
        if container.throwaway:
            staged = held.enter_context(engine.store.staging("diff"))
            async with container.lock:
                upper = await _compared(container, image, lowers, staged)
        found = await in_thread(lambda: changes_of(upper, lowers))
    if not (image.is_host or image.on_host):
        return found
    # The launcher makes the top-level directories there, whether anything is written to them.
    inside = {each.path.split("/", 2)[1] for each in found if each.path.count("/") > 1}
    return [each for each in found if each.path.count("/") > 1 or each.path[1:] in inside]


def _lowers(engine: Engine, image: Image) -> tuple[Path, ...]:
    """The directories below the container's upper one, topmost first."""
    if not (image.is_host or image.on_host):
        return engine.images.lowers(image)
    layers = tuple(engine.store.layers.path(layer) for layer in image.stack)
    host = engine.images.lowers(engine.images.get("host"))
    return (*layers, *(host or (Path("/"),)))


async def _copied(
    container: Container, image: Image, lowers: tuple[Path, ...], staged: Path, pause: bool
) -> Path | None:
    async with frozen(container) if pause else nullcontext():
        if container.throwaway:
            return await _compared(container, image, lowers, staged)
        upper = container.upper / "u"
        return await in_thread(lambda: _copy(upper, staged)) if upper.is_dir() else None


def _copy(upper: Path, staged: Path) -> Path:
    from sandboxd.volumes.copying import copy_tree

    with _new_upper(staged) as (target, target_fd):
        source_fd = os.open(upper, _DIRECTORY)
        try:
            copy_tree((source_fd,), target_fd, as_upper=True, write_back=True)
        finally:
            os.close(source_fd)
    return target


async def _compared(
    container: Container, image: Image, lowers: tuple[Path, ...], staged: Path
) -> Path:
    """An upper directory made by comparing what the container sees with its image."""
    from sandboxd.images.upper import MOUNT_POINTS

    program, what = container.program, f"changes of container {container.name}"
    if program is None:
        why = "one that is removed with its end (--rm) keeps none while it does not run"
        raise Conflict(what, why, "start the container first")
    if image.is_host or image.on_host:
        why = "its root is this machine's, and what it writes is in memory (--rm)"
        raise Conflict(what, why, "run it without --rm")
    root = os.open(f"/proc/{program.running.pid}/root", _DIRECTORY)
    try:
        # Had it died before the open, the number might be another process's by now.
        if select.select([program.running.pidfd], [], [], 0)[0]:
            raise Conflict(what, "it ends at this moment")
        left_out = frozenset((*MOUNT_POINTS, *mounted_in(program.running.pid)))
        return await in_thread(lambda: _difference(root, lowers, left_out, staged))
    finally:
        os.close(root)


def _difference(
    root: int, lowers: tuple[Path, ...], left_out: frozenset[str], staged: Path
) -> Path:
    from sandboxd.volumes.difference import copy_difference

    with _new_upper(staged) as (target, target_fd), ExitStack() as held:
        below = tuple(os.open(lower, _DIRECTORY) for lower in lowers)
        for fd in below:
            held.callback(os.close, fd)
        copy_difference(root, below, target_fd, left_out)
    return target


@contextmanager
def _new_upper(staged: Path) -> Iterator[tuple[Path, int]]:
    """A new directory and its descriptor; an OSError says what was being done."""
    target = staged / "upper"
    try:
        target.mkdir(mode=0o755)
        target.chmod(0o755)
        fd = os.open(target, _DIRECTORY)
        try:
            yield target, fd
        finally:
            os.close(fd)
    except OSError as error:
        raise SandboxError.from_os("copy what the container has written", error) from error


def _published(
    engine: Engine,
    container: Container,
    parent: Image,
    upper: Path | None,
    config: Mapping[str, Any],
    options: CommitOptions,
) -> Image:
    from sandboxd.images.committed import Committed
    from sandboxd.images.upper import adopt_upper

    store: Store = engine.store
    lowers = _lowers(engine, parent)
    layer = None
    if upper is not None:
        layer = adopt_upper(store, store.idmap, upper, lowers, clamp=options.clamp)
    try:
        source = Committed(
            parent,
            layer.diff_id if layer else None,
            config,
            " ".join(container.settings.args),
            time.time() if options.clamp is None else float(options.clamp),
            options.author,
            options.comment,
            (options.name,) if options.name else (),
        )
        return engine.images.take(source)[0]
    finally:
        if layer:
            store.release_pin(layer.diff_id)


def _merged(own: Mapping[str, Any], container: Mapping[str, Any]) -> dict[str, Any]:
    """What the request says, and the container's fields where it says nothing, as dockerd does."""
    merged = dict(container)
    for key, value in own.items():
        if not value:
            continue
        known = merged.get(key)
        if key == "Env":
            names = {entry.partition("=")[0] for entry in value}
            kept = [entry for entry in known or () if entry.partition("=")[0] not in names]
            merged[key] = [*kept, *value]
        elif isinstance(value, dict) and isinstance(known, dict) and key != "Healthcheck":
            merged[key] = {**known, **value}
        else:
            merged[key] = value
    return merged
