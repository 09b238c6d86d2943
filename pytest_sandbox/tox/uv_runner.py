"""The same run environment, made by tox-uv's runner: uv makes it and installs into it."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, Final

from tox_uv._run import UvVenvRunner

from pytest_sandbox.python_images.images import ENVIRONMENT
from pytest_sandbox.tox.runner import Sandboxed

_DEFAULTS: Final = {"UV_LINK_MODE": "copy", "UV_COMPILE_BYTECODE": "1"}
"""A layer shares no inode with a cache that is written; what it holds is compiled once."""


class SandboxUvRunner(Sandboxed, UvVenvRunner):  # type: ignore[misc, unused-ignore]
    """By uv, whatever else is installed."""

    @staticmethod
    def id() -> str:
        return "sandbox-uv"

    @property
    def venv_dir(self) -> Path:
        return Path(ENVIRONMENT)

    def python_cache(self) -> dict[str, Any]:
        return {}

    @property
    def environment_variables(self) -> dict[str, str]:  # type: ignore[override]
        return {**_DEFAULTS, **super().environment_variables, "VIRTUAL_ENV": ENVIRONMENT}

    def prepend_env_var_path(self) -> list[Path]:
        return [self.env_bin_dir(), Path(self.uv).parent]

    def base_python_request(self) -> list[str]:
        """The command that tells which interpreter uv would take."""
        command = [self.uv, "python", "find", "--no-python-downloads", "--system"]
        if self.conf["uv_python_preference"] != "none":
            command += ["--python-preference", self.conf["uv_python_preference"]]
        return [*command, self.env_version_spec()]

    def _creation(self) -> list[str]:
        own = self.conf.get("sandbox_image", str)
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
