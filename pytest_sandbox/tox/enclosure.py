"""The containers of one environment: what they see, and where commands are looked up."""

from __future__ import annotations

import atexit
import json
import os
import sys
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from pytest_sandbox.client.options import ENCLOSING
from pytest_sandbox.python_images.images import ENVIRONMENT, interpreter_image
from pytest_sandbox.python_images.interpreters import Interpreter
from pytest_sandbox.tox import layers
from pytest_sandbox.tox.inside import found_by, image_id, known_interpreter
from pytest_sandbox.tox.installing import Installation, digest
from pytest_sandbox.tox.job import Job

if TYPE_CHECKING:
    from pytest_sandbox.client.container import Container
    from pytest_sandbox.client.options import VolumeMap
    from pytest_sandbox.client.session import Client

_BIN: Final = f"{ENVIRONMENT}/bin"
_IDLE: Final = ("sleep", "infinity")
_HIDDEN: Final = ("/home/", "/root/", "/run/", "/tmp/", "/var/tmp/")
"""What the image `host` does not show."""
_CACHES: Final = {"PIP_CACHE_DIR": ".cache/pip", "UV_CACHE_DIR": ".cache/uv"}
_REMEMBERED: Final = ".sandbox-package.json"


@cache
def the_client() -> Client:
    """One for all environments of this run; what they made ends with it, or with this process."""
    from pytest_sandbox import connect

    client = connect(label="tox")
    atexit.register(client.close)
    return client


class Enclosure:
    """Layers, and the container that the commands run in; `close` removes what goes with a run."""

    def __init__(self, env: Any) -> None:
        self._env = env
        self._settings = env.wanted
        self._interpreter: Interpreter | None = None
        self._layers: layers.Layers | None = None
        self._container: Container | None = None

    @property
    def client(self) -> Client:
        return the_client()

    @property
    def own_image(self) -> str:
        """The image that the environment names; empty for this machine's own root."""
        return str(self._settings.image)

    @property
    def interpreter(self) -> Interpreter:
        """What the environment is made of. Raises NotFound."""
        if self._interpreter is None:
            python = self._env.base_python
            if self.own_image:
                numbers = python.version_info
                version = f"{numbers.major}.{numbers.minor}.{numbers.micro}"
                self._interpreter = Interpreter(version, "", str(python.extra["executable"]))
            else:
                place = python.extra.get("executable")
                found = Path(place) if place else found_by(self._env.base_python_request())
                self._interpreter = known_interpreter(Path(os.path.realpath(found)))
        return self._interpreter

    def create(self, job: Job, installation: Installation) -> int:
        """The environment itself: an interpreter, and above it what the command makes."""
        if self.own_image:
            image = image_id(self.client, self.own_image)
            identity = image
        else:
            image = interpreter_image(self.client, self.interpreter)
            identity = self.interpreter.identity
        base = layers.Layer(digest([identity, _home(installation.environ)]), image)
        room = layers.Workroom(self._open, self._staging())
        self._layers = layers.Layers(self.client, room, base, refresh=self._env.refreshes)
        return self._layers.create(job, installation, self._env.maker)

    def install(self, job: Job, installation: Installation, run_id: str) -> int:
        """One more layer; for the project's own package the one before goes."""
        code = self.chain.add(job, installation)
        if not code and run_id == "install_package" and not self.chain.passing:
            self._replace_package(self.chain.top.key)
        return code

    @property
    def chain(self) -> layers.Layers:
        assert self._layers is not None, "tox makes an environment before it uses it"
        return self._layers

    def container(self, job: Job) -> Container:
        """The one that the commands run in, started with the first of them."""
        if self._container is None:
            job.check()
            volumes = {**self._places(), **self._for_services()}
            for program in self._env.programs:
                volumes.update(self._shown(program))
            self._container = self._made(
                self.chain.top.image,
                {**volumes, **self._asked_for()},
                self._env.environment_variables,
                network="host" if self._settings.network else "",
            )
            self._container.start()
        return self._container

    def close(self) -> None:
        """Remove the container, and layers that were this run's alone."""
        if self._container is not None:
            self._container.remove()
            self._container = None
        if self._layers is not None:
            for image in reversed(self._layers.passing):
                layers.remove(self.client, image)
            self._layers.passing.clear()

    # what commands see

    def environ(self, environ: Mapping[str, str]) -> dict[str, str]:
        """The variables of a command: as tox has them, but for what lies elsewhere."""
        found = dict(environ)
        if self.own_image:
            found["PATH"] = f"{_BIN}:{self._path_of_image()}"
        if self._settings.services:
            found["SANDBOX_HOST"] = f"unix://{self.client.service.socket_path}"
            found[ENCLOSING] = self.chain.top.image
        return found

    def located(self, name: str, path: str, cwd: Path) -> str | None:
        """Where a program is in the containers; None where it is not found.

        The environment's own are known by the layer, those of this machine are where they are here.
        """
        if os.sep in name:
            place = os.path.normpath(cwd / name)
            if os.path.dirname(place) == _BIN:
                return place if os.path.basename(place) in self.chain.top.programs else None
            return place if os.access(place, os.X_OK) else None
        for directory in path.split(os.pathsep):
            if directory == _BIN:
                if name in self.chain.top.programs:
                    return f"{_BIN}/{name}"
            elif not self.own_image:
                place = os.path.join(cwd, directory, name)
                if os.path.isfile(place) and os.access(place, os.X_OK):
                    return place
        return None

    def _path_of_image(self) -> str:
        entries = self.client.image_inspect(self.own_image)["Config"]["Env"] or ()
        found: dict[str, str] = dict(entry.partition("=")[::2] for entry in entries)
        return found.get("PATH", os.defpath)

    # what containers see

    def _open(self, image: str, installation: Installation) -> Container:
        """A container to install in: with the user's caches, and the settings of the index."""
        volumes: dict[Any, str] = dict(self._places(rw=bool(installation.tree)))
        for path in (*installation.paths, *_own_places(installation.command)):
            volumes.update(self._shown(path))
        for variable, place in _CACHES.items():
            cache_ = installation.environ.get(variable)
            source = cache_ or os.path.join(os.path.expanduser("~"), place)
            os.makedirs(source, exist_ok=True)
            volumes[source] = cache_ or os.path.join(_home(installation.environ), place)
        network = "" if installation.offline else "host"
        return self._made(image, volumes, installation.environ, network=network, upper="disk")

    def _made(
        self,
        image: str,
        volumes: VolumeMap,
        environ: Mapping[str, str],
        *,
        network: str,
        upper: str = "",
    ) -> Container:
        tmpfs = {}
        temporary = environ.get("TMPDIR", "")
        if temporary.startswith("/") and os.path.normpath(temporary) != "/tmp":
            tmpfs[os.path.normpath(temporary)] = "mode=1777,exec"
        kept = set(volumes.values()) if isinstance(volumes, Mapping) else set()
        options: dict[str, Any] = {"upper": upper} if upper else {}
        options |= {"network": network} if network else {}
        return self.client.container(
            image,
            _IDLE,
            entrypoint=[],
            init=True,
            workdir=_home(environ),
            volumes=volumes,
            tmpfs={place: how for place, how in tmpfs.items() if place not in kept},
            labels={"tox": self._env.name},
            **options,
        )

    def _places(self, *, rw: bool = False) -> dict[Any, str]:
        """The project, copy-on-write, and tox's own directories, which outlive the run."""
        from pytest_sandbox.client.bind import Bind

        core, conf = self._env.core, self._env.conf
        roots = [core["tox_root"], conf["change_dir"]]
        if "package_root" in core:
            roots.append(core["package_root"])
        kept = [core["work_dir"], conf["env_dir"], conf["env_tmp_dir"], conf["env_log_dir"]]
        places: dict[Any, str] = {}
        for path in _outermost(kept):
            os.makedirs(path, exist_ok=True)
            places[path] = path
        for path in _outermost(roots):
            if os.path.isdir(path) and not _is_within(path, places.values()):
                places[path if rw else Bind(path, copy_on_write=True)] = path
        return places

    def _asked_for(self) -> dict[Any, str]:
        pairs = (text.partition(":") for text in self._settings.volumes)
        return {source: place for source, _, place in pairs}

    def _for_services(self) -> dict[Any, str]:
        """The service, for tests that start containers: they are this user's, as those are."""
        if not self._settings.services:
            return {}
        directory = os.path.dirname(self.client.service.socket_path)
        return {directory: f"{directory}:ro"}

    def _shown(self, path: str) -> dict[Any, str]:
        """A path of this machine at its own place, where it would not be seen."""
        hidden = self.own_image or path.startswith(_HIDDEN)
        places = self._places().values()
        beside = not _is_within(path, places) and not any(_is_within(p, [path]) for p in places)
        return {path: f"{path}:ro"} if hidden and beside and os.path.exists(path) else {}

    def _staging(self) -> Path:
        directory = Path(self._env.conf["env_tmp_dir"])
        directory.mkdir(parents=True, exist_ok=True)
        return directory

    def _replace_package(self, key: str) -> None:
        """Of each environment one layer of the project's package is kept, the last."""
        file = Path(self._env.conf["env_dir"]) / _REMEMBERED
        try:
            before = json.loads(file.read_text())["layer"]
        except (OSError, ValueError, KeyError):
            before = None
        if before == key:
            return
        if before:
            layers.forget(self.client, before)
        file.write_text(json.dumps({"layer": key}))


def _home(environ: Mapping[str, str]) -> str:
    home = environ.get("HOME", "")
    return home if home.startswith("/") else "/root"


def _outermost(paths: Iterable[Any]) -> list[str]:
    """Each path once, none inside another."""
    found = sorted({os.path.abspath(path) for path in paths})
    return [
        path for path in found if not _is_within(path, [each for each in found if each != path])
    ]


def _is_within(path: str, directories: Iterable[str]) -> bool:
    return any(f"{path}/".startswith(f"{directory}/") for directory in directories)


def _own_places(command: Sequence[str]) -> set[str]:
    """Where the programs lie that this tox installs by: its own interpreter, virtualenv, uv."""
    programs = {word for word in command if word.startswith("/") and os.path.isfile(word)}
    places = programs | {os.path.realpath(each) for each in programs}
    if sys.executable in programs:
        places |= {sys.prefix, sys.base_prefix}
    return places | {word.partition("=")[2] for word in command if word.startswith("PYTHONPATH=/")}
