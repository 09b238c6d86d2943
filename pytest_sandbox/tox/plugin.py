"""What tox loads: the runner `sandbox` and the option `--sandbox-refresh`."""

from __future__ import annotations

from importlib.util import find_spec
from typing import TYPE_CHECKING, Final

from tox.plugin import impl

from pytest_sandbox.tox.runner import SandboxPipRunner, SandboxRunner

if TYPE_CHECKING:
    from tox.config.cli.parser import ToxParser
    from tox.tox_env.register import ToxEnvRegister

_COMMANDS: Final = ("run", "run-parallel", "exec", "legacy")


@impl
def tox_register_tox_env(register: ToxEnvRegister) -> None:
    """`sandbox` is by tox-uv where that is installed; `sandbox-pip` and `sandbox-uv` say which."""
    register.add_run_env(SandboxPipRunner)
    if find_spec("tox_uv") is None:
        register.add_run_env(SandboxRunner)
        return
    from pytest_sandbox.tox.uv_runner import SandboxByUvRunner, SandboxUvRunner

    register.add_run_env(SandboxUvRunner)
    register.add_run_env(SandboxByUvRunner)


@impl
def tox_add_option(parser: ToxParser) -> None:
    for name in _COMMANDS:
        if name in parser.handlers:
            parser.handlers[name][0].add_argument(
                "--sandbox-refresh",
                dest="sandbox_refresh",
                action="store_true",
                help="ask the index anew what the dependencies of sandbox environments resolve to",
            )
