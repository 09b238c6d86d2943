"""The same run environment, made by tox-uv's runner: uv makes it and installs into it."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, Final

from tox.tox_env.python.pip.req_file import PythonDeps
from tox_uv._installer import UvInstaller
from tox_uv._run import UvVenvRunner

from pytest_sandbox.python_images.images import ENVIRONMENT
from pytest_sandbox.tox.runner import Sandboxed

_DEFAULTS: Final = {"UV_LINK_MODE": "copy", "UV_COMPILE_BYTECODE": "1"}
"""A layer shares no inode with a cache that is written; what it holds is compiled once."""


class _Installer(UvInstaller):  # type: ignore[misc, unused-ignore]
    """uv's installer, which does not look for the environment on this machine."""

    def install(self, arguments: Any, section: str, of_type: str) -> None:
        if isinstance(arguments, PythonDeps):
            self._install_requirement_file(arguments, section, of_type)
        else:
            self._install_list_of_deps(arguments, section, of_type)


class SandboxUvRunner(Sandboxed, UvVenvRunner):  # type: ignore[misc, unused-ignore]
    """By uv, whatever else is installed."""

    @staticmethod
    def id() -> str:
        return "sandbox-uv"

    @property
    def venv_dir(self) -> Path:
        return Path(ENVIRONMENT)

    @property
    def installer(self) -> Any:
        found = getattr(self, "_uv_installer", None)
        if found is None:
            found = self._uv_installer = _Installer(self)
        return found

    def python_cache(self) -> dict[str, Any]:
        return {}

    @property
    def environment_variables(self) -> dict[str, str]:  # type: ignore[override]
        return {**_DEFAULTS, **super().environment_variables, "VIRTUAL_ENV": ENVIRONMENT}

    def prepend_env_var_path(self) -> list[Path]:
        return [self.env_bin_dir(), Path(self.uv).parent]

    @property
    def programs(self) -> list[str]:
        return [self.uv]

    @property
    def maker(self) -> str:
        status = os.stat(self.uv)
        return f"uv {status.st_size} {status.st_mtime_ns}"

    def base_python_request(self) -> list[str]:
        """The command that tells which interpreter uv would take."""
        command = [self.uv, "python", "find", "--no-python-downloads", "--system"]
        if self.conf["uv_python_preference"] != "none":
            command += ["--python-preference", self.conf["uv_python_preference"]]
        return [*command, self.env_version_spec()]

    def _creation(self) -> list[str]:
        own = self.conf["sandbox_image"]
        python = "python3" if own else self.enclosure.interpreter.executable
        command = [self.uv, "venv", "--python", python, "--no-python-downloads"]
        command.append(f"--prompt={os.path.basename(ENVIRONMENT)}")
        if self.conf["uv_seed"]:
            command.append("--seed")
        if self.conf["system_site_packages"]:
            command.append("--system-site-packages")
        return [*command, ENVIRONMENT]


class SandboxByUvRunner(SandboxUvRunner):
    """`runner = sandbox` where tox-uv is installed."""

    @staticmethod
    def id() -> str:
        return "sandbox"
