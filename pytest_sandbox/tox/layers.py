"""What is installed already, and who installs the rest: the layers of environments.

A layer is an image: what one install command wrote above another one. Two keys lead to it. The
first is of the command's text and of the files that it names, and leads, for a day, to what that
resolved to; the second is of the resolved packages with their hashes. Each is built once on this
machine, by whoever comes first, while the others wait. Beneath them is the image of an interpreter.
"""

from __future__ import annotations

import json
import os
import secrets
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

from pytest_sandbox.python_images.images import ENVIRONMENT
from pytest_sandbox.python_images.requirements import FRESH, cache_directory
from pytest_sandbox.tox import resolving
from pytest_sandbox.tox.installing import Installation, digest
from pytest_sandbox.tox.job import Job

if TYPE_CHECKING:
    from pytest_sandbox.client.container import Container
    from pytest_sandbox.client.session import Client

_REPOSITORY: Final = "tox"
_LABEL: Final = "io.pytest-sandbox.tox"
_PROGRAMS: Final = "io.pytest-sandbox.tox.programs"
_COMPILE: Final = (
    f"{ENVIRONMENT}/bin/python",
    "-c",
    "import compileall, importlib.util as i; pip = i.find_spec('pip');"
    "pip and compileall.compile_dir(pip.submodule_search_locations[0], quiet=1)",
)
"""A new environment's pip is compiled once, not each time that it installs."""
_WAIT: Final = 0.1
_UNUSED: Final = 30 * 24 * 3600.0
"""Seconds after which a layer that nobody used goes, when another one is made."""

_resolved_here: set[str] = set()
"""What this process has resolved anew: a refresh concerns the past, not this run's neighbours."""


class Layer(NamedTuple):
    """The topmost layer so far: its key, its image, the programs of the environment in it."""

    key: str
    image: str
    programs: frozenset[str] = frozenset()


class Workroom(NamedTuple):
    """How to make a container for an install command: what it must see, and whether an index."""

    open: Callable[[str, Installation], Container]
    staging: Path
    """A directory that the container sees too."""


class Layers:
    """The chain of one environment; it grows by `add`."""

    def __init__(self, client: Client, room: Workroom, base: Layer, *, refresh: bool) -> None:
        self._client, self._room, self._refresh = client, room, refresh
        self.top = base
        self.passing: list[str] = []
        """Images that go with this run: nothing tells when they would be out of date."""

    def create(self, job: Job, installation: Installation, maker: str) -> int:
        """Take or make the empty environment: the layer of a command that asks no index.

        `maker` stands for the version of the program that makes it.
        """
        key = digest([self.top.key, maker, installation.described_alone()])
        return self._built(job, installation, key, (), compiled=True)

    def add(self, job: Job, installation: Installation) -> int:
        """Take or make the layer of an install command; the command's exit code.

        Raises Interrupted, SandboxError, OSError.
        """
        if installation.tree or self.passing:
            return self._passing(job, installation)
        text = digest([self.top.key, installation.described()])
        if installation.local:
            return self._built(job, installation, text, ())
        known = self._resolution(text)
        if known is not None and (layer := self._existing(known)) is not None:
            self.top = layer
            return 0
        with _alone(job, text):
            return self._resolve(job, installation, text)

    def _resolve(self, job: Job, installation: Installation, text: str) -> int:
        known = self._resolution(text)
        if known is not None and (layer := self._existing(known)) is not None:
            self.top = layer
            return 0
        staging = self._room.staging
        with self._container(installation) as container:
            if _text_file(text).exists():  # the same comes out again, mostly
                code, lines = resolving.foretold(job, container, installation, staging)
                if code or installation.tree:
                    return code or self._passing(job, installation)
                key = self._key(installation, lines)
                code = self._built(job, installation, key, lines, container)
            else:
                code, lines = resolving.installed(job, container, installation, staging)
                if code or installation.tree:
                    return code or self._passing(job, installation, container)
                key = self._key(installation, lines)
                self._take(job, container, key)
        if not code:
            _resolved_here.add(text)
            _write(_text_file(text), {"key": key, "packages": lines})
        return code

    def _key(self, installation: Installation, lines: Sequence[str]) -> str:
        """Of a layer with these packages; that of the layer below when all of it is there."""
        if installation.tool == "other":
            return secrets.token_hex(32)
        return digest([self.top.key, installation.tool, lines]) if lines else self.top.key

    def _take(self, job: Job, container: Container, key: str) -> None:
        """What the container has become, unless it is there already."""
        with _alone(job, key):
            layer = self._existing(key)
            if layer is None:
                job.check()
                layer = self._commit(container, key)
                _tidy(self._client)
            self.top = layer

    def _built(
        self,
        job: Job,
        installation: Installation,
        key: str,
        lines: Sequence[str],
        room: Container | None = None,
        *,
        compiled: bool = False,
    ) -> int:
        with _alone(job, key):
            if (layer := self._existing(key)) is not None:
                self.top = layer
                return 0
            if room is None:
                with self._container(installation) as container:
                    return self._install(
                        job, installation, key, lines, container, compiled=compiled
                    )
            return self._install(job, installation, key, lines, room)

    def _passing(self, job: Job, installation: Installation, done: Container | None = None) -> int:
        """From a source directory, or above it: made each time, and kept as long as this run."""
        key = secrets.token_hex(32)
        if done is not None:
            self.top = self._commit(done, key)
        else:
            with self._container(installation) as container:
                if code := self._install(job, installation, key, (), container):
                    return code
        self.passing.append(self.top.image)
        return 0

    def _install(
        self,
        job: Job,
        installation: Installation,
        key: str,
        lines: Sequence[str],
        container: Container,
        *,
        compiled: bool = False,
    ) -> int:
        listed = self._room.staging / f"resolved-{key[:12]}.txt"
        listed.write_text("\n".join(lines))
        command = installation.exactly(lines, str(listed)) if lines else installation.command
        environ, cwd = installation.environ, str(installation.cwd)
        code = job.run(container, command, env=environ, cwd=cwd)
        if code:
            return code
        if compiled:
            job.run(container, _COMPILE, env=environ, cwd=cwd)
        job.check()
        self.top = self._commit(container, key)
        _tidy(self._client)
        return 0

    def _commit(self, container: Container, key: str) -> Layer:
        listing = container.exec(["ls", "-1", f"{ENVIRONMENT}/bin"])
        programs = listing.stdout.decode(errors="replace").split("\n")
        written = json.dumps([name for name in programs if name])
        labels = f"LABEL {_LABEL}={key} {_PROGRAMS}={json.dumps(written)}"
        image = _name(key)
        container.commit(image, changes=[labels])
        return Layer(key, image, frozenset(programs))

    @contextmanager
    def _container(self, installation: Installation) -> Iterator[Container]:
        with self._room.open(self.top.image, installation) as container:
            yield container.start()

    def _resolution(self, text: str) -> str | None:
        """The key that the text leads to, as long as that counts."""
        if self._refresh and text not in _resolved_here:
            return None
        file = _text_file(text)
        try:
            if time.time() - file.stat().st_mtime > FRESH:
                return None
            return str(json.loads(file.read_text())["key"])
        except (OSError, ValueError, KeyError):
            return None

    def _existing(self, key: str) -> Layer | None:
        return existing(self._client, key)


def existing(client: Client, key: str) -> Layer | None:
    """The layer of this key, if it is there; it counts as used now."""
    from pytest_sandbox.errors import NoSuchImage

    try:
        labels: Mapping[str, str] = client.image_inspect(_name(key))["Config"]["Labels"] or {}
    except NoSuchImage:
        return None
    if labels.get(_LABEL) != key:
        return None
    _stamp(key).touch()
    return Layer(key, _name(key), frozenset(json.loads(labels[_PROGRAMS])))


def forget(client: Client, key: str) -> None:
    """Remove the layer of this key, unless somebody is using it."""
    remove(client, _name(key))
    _stamp(key).unlink(missing_ok=True)


def remove(client: Client, image: str) -> None:
    from pytest_sandbox.errors import SandboxError

    try:
        client.image_remove(image)
    except SandboxError:
        pass  # a container of another run is on it, or it is gone


@contextmanager
def _alone(job: Job, key: str) -> Iterator[None]:
    """Against the other environments of this run, and other runs of this user."""
    from filelock import FileLock, Timeout

    lock = FileLock(cache_directory("locks") / f"{key}.lock")
    while True:
        job.check()
        try:
            lock.acquire(timeout=_WAIT, poll_interval=_WAIT / 5)
            break
        except Timeout:
            continue
    try:
        yield
    finally:
        lock.release()


def _tidy(client: Client) -> None:
    """Layers that nobody has used for a month go."""
    for stamp in _stamp("").iterdir():
        try:
            if time.time() - stamp.stat().st_mtime > _UNUSED:
                forget(client, stamp.name)
        except FileNotFoundError:
            continue  # another run tidies too


def _write(file: Path, content: object) -> None:
    partial = file.with_name(f"{file.name}.{os.getpid()}-{secrets.token_hex(4)}")
    partial.write_text(json.dumps(content))
    os.replace(partial, file)


def _text_file(text: str) -> Path:
    return cache_directory("tox-resolved") / f"{text}.json"


def _stamp(key: str) -> Path:
    return cache_directory("tox-layers") / key


def _name(key: str) -> str:
    return f"{_REPOSITORY}:{key[:24]}"
