"""A container's changes: shown, and made an image.

What a container has written lies in its upper directory, unless it was created with --rm: then in
memory that only its own mounts reach, and it can be neither compared nor committed. A commit of one
that was made from the image `host` gives an image on this machine's own root, as a build FROM host
does: what the container wrote below the top-level directories that it shares with the machine.
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sandboxd.engine.container import Container
from sandboxd.engine.freezing import frozen
from sandboxd.engine.inspection import config_of
from sandboxd.errors import Conflict, SandboxError
from sandboxd.threads import in_thread

if TYPE_CHECKING:
    from sandboxd.engine.engine import Engine
    from sandboxd.images import Image
    from sandboxd.images.reference import Reference
    from sandboxd.images.upper_changes import Change
    from sandboxd.store import Store


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
    _refuse("commit", container)
    own = {
        **config_of(container),
        "Shell": container.image_config.get("Shell"),
        "StopSignal": container.settings.stop_signal,
    }
    configured = _merged(options.config, own)
    config = apply_changes(configured, list(options.changes))
    with ExitStack() as held:
        staged = held.enter_context(engine.store.staging("commit"))
        async with container.lock:
            copied = await _copied(container, staged, options.pause)
        return await in_thread(
            lambda: _published(engine, container, parent, copied, config, options)
        )


def changes(engine: Engine, container: Container) -> Sequence[Change]:
    """What GET /containers/{id}/changes tells. Blocks; raises Conflict like `commit`."""
    from sandboxd.images.upper_changes import changes as changes_of

    image = engine.images.get(container.image)
    _refuse("diff", container)
    found = changes_of(container.upper / "u", _lowers(engine, image))
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


def _refuse(action: str, container: Container) -> None:
    if container.throwaway:
        what = f"{action} container {container.name}"
        why = "what it writes is in memory and goes with its end (--rm)"
        raise Conflict(what, why, "run it without --rm")


async def _copied(container: Container, staged: Path, pause: bool) -> Path | None:
    upper = container.upper / "u"
    if not upper.is_dir():
        return None
    if not pause:
        return await in_thread(lambda: _copy(upper, staged))
    async with frozen(container):
        return await in_thread(lambda: _copy(upper, staged))


def _copy(upper: Path, staged: Path) -> Path:
    from sandboxd.volumes.copying import copy_tree

    target = staged / "upper"
    try:
        target.mkdir(mode=0o755)
        flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
        source_fd, target_fd = os.open(upper, flags), os.open(target, flags)
        try:
            copy_tree((source_fd,), target_fd, as_upper=True, write_back=True)
        finally:
            os.close(source_fd)
            os.close(target_fd)
    except OSError as error:
        raise SandboxError.from_os("copy what the container has written", error) from error
    return target


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
