"""A run environment in containers, made by virtualenv and pip; uv's counterpart mixes in the same.

tox does its part as ever: configuration, packaging, install commands, commands. What differs is
where they run (`executor`) and where the environment is: at one place in every container, whatever
its name, and not on this machine. `env_dir` stays for what tox and the commands keep there.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import virtualenv
from tox.execute.request import StdinSource
from tox.tox_env.errors import Fail
from tox.tox_env.info import Info
from tox.tox_env.python.virtual_env.runner import VirtualEnvRunner

from pytest_sandbox.python_images.images import ENVIRONMENT
from pytest_sandbox.tox import settings
from pytest_sandbox.tox.executor import CREATE, SandboxExecutor

if TYPE_CHECKING:
    from tox.execute.api import Execute
    from tox.tox_env.api import ToxEnvCreateArgs
    from tox.tox_env.python.api import PythonInfo

    from pytest_sandbox.tox.enclosure import Enclosure

_PLACE: Final = Path(ENVIRONMENT)


class _Forgetful(Info):
    """What tox remembers of an environment: nothing, since each run begins from the interpreter.

    Whether something is installed already is for the layers to know.
    """

    def __init__(self) -> None:
        pass

    @contextmanager
    def compare(
        self, value: Any, section: str, sub_section: str | None = None
    ) -> Generator[tuple[bool, Any | None], None, None]:
        yield False, None

    def reset(self) -> None:
        pass


@contextmanager
def _failing() -> Generator[None, None, None]:
    """What goes wrong with the service ends the environment, and is no error of tox."""
    from pytest_sandbox.errors import SandboxError

    try:
        yield
    except SandboxError as error:
        raise Fail(str(error)) from error


class Sandboxed:
    """Mixed into a run environment of tox, before its class."""

    if TYPE_CHECKING:
        conf: Any
        core: Any
        options: Any
        name: str
        base_python: PythonInfo
        environment_variables: dict[str, str]
        _executor: Execute | None
        _interruption: Any

        def execute(self, *args: Any, **keywords: Any) -> Any: ...

    def __init__(self, create_args: ToxEnvCreateArgs) -> None:
        self._enclosure: Enclosure | None = None
        super().__init__(create_args)  # type: ignore[call-arg]

    def register_config(self) -> None:
        super().register_config()  # type: ignore[misc]
        settings.register(self.conf)

    @property
    def executor(self) -> Execute:
        if self._executor is None:
            self._executor = SandboxExecutor(self.options.is_colored, self)
        return self._executor

    @property
    def enclosure(self) -> Enclosure:
        """The environment's containers and layers."""
        if self._enclosure is None:
            from pytest_sandbox.tox.enclosure import Enclosure

            self._enclosure = Enclosure(self)
        return self._enclosure

    @property
    def wanted(self) -> settings.Settings:
        return settings.settings(self.conf, self.name, self.core["tox_root"])

    @property
    def refreshes(self) -> bool:
        """Whether what packages resolve to is asked anew."""
        return bool(getattr(self.options, "sandbox_refresh", False) or self.conf["recreate"])

    @property
    def cache(self) -> Info:
        return _Forgetful()

    def _exported_set_env(self) -> dict[str, Any]:
        exported: dict[str, Any] = super()._exported_set_env()  # type: ignore[misc]
        return {**exported, "VIRTUAL_ENV": lambda: ENVIRONMENT}

    def _default_set_env(self) -> dict[str, str]:
        env: dict[str, str] = super()._default_set_env()  # type: ignore[misc]
        return {**env, **settings.environment(self.name, self.wanted.services)}

    def env_bin_dir(self) -> Path:
        return _PLACE / "bin"

    def env_python(self) -> Path:
        return _PLACE / "bin" / "python"

    def env_site_package_dir(self) -> Path:
        with _failing():
            version = self.enclosure.interpreter.version
        return _PLACE / "lib" / f"python{'.'.join(version.split('.')[:2])}" / "site-packages"

    def env_site_package_dir_plat(self) -> Path:
        return self.env_site_package_dir()

    @property
    def programs(self) -> list[str]:
        """What of this machine the commands may call besides, and would not see."""
        return []

    @property
    def maker(self) -> str:
        """What makes an empty environment, with its version."""
        from importlib.metadata import version

        return f"virtualenv {version('virtualenv')}"

    def create_python_env(self) -> None:
        with _failing():
            command = self._creation()
        self._create(command)

    def _creation(self) -> list[str]:
        raise NotImplementedError

    def _create(self, command: list[str]) -> None:
        """Run the command that makes the environment, as a layer over the interpreter."""
        self.execute(command, stdin=StdinSource.OFF, run_id=CREATE, show=False).assert_success()

    def _get_python(self, base_python: list[str]) -> PythonInfo | None:
        image = self.conf["sandbox_image"]
        if not image:
            found: PythonInfo | None = super()._get_python(base_python)  # type: ignore[misc]
            return found
        from pytest_sandbox.tox.inside import python_of_image

        with _failing():
            return python_of_image(self.enclosure.client, image, base_python)

    def _teardown(self) -> None:
        try:
            super()._teardown()  # type: ignore[misc]
        finally:
            if self._enclosure is not None:
                self._enclosure.close()


class SandboxRunner(Sandboxed, VirtualEnvRunner):
    """By virtualenv and pip: `runner = sandbox` where tox-uv is not installed."""

    @staticmethod
    def id() -> str:
        return "sandbox"

    @property
    def environment_variables(self) -> dict[str, str]:  # type: ignore[override]
        environ = super().environment_variables
        environ["VIRTUAL_ENV"] = ENVIRONMENT  # which tox 4.24 sets itself
        return environ

    def prepend_env_var_path(self) -> list[Path]:
        return [self.env_bin_dir()]

    def _creation(self) -> list[str]:
        asked = self.conf["virtualenv_spec"] if "virtualenv_spec" in self.conf else ""  # noqa: SIM401
        if asked:
            raise Fail(
                f"virtualenv_spec {asked}: a sandbox is made by the"
                f" virtualenv of this tox; for this interpreter use runner = virtualenv"
            )
        own = self.conf["sandbox_image"]
        if own:
            # virtualenv is plain Python: the image's interpreter runs the one of this tox.
            site = os.path.dirname(os.path.dirname(os.path.abspath(virtualenv.__file__)))
            program, python = ["env", f"PYTHONPATH={site}", "python3"], "python3"
        else:
            program, python = [sys.executable], self.enclosure.interpreter.executable
        command = [*program, "-m", "virtualenv", "--python", python, "--no-periodic-update"]
        if self.conf["system_site_packages"]:
            command.append("--system-site-packages")
        if self.conf["always_copy"]:
            command.append("--copies")
        command.append("--download" if self.conf["download"] else "--no-download")
        return [*command, ENVIRONMENT]


class SandboxPipRunner(SandboxRunner):
    """By virtualenv and pip, whatever is installed."""

    @staticmethod
    def id() -> str:
        return "sandbox-pip"
