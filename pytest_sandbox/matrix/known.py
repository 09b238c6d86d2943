"""The options, ini keys and markers of this plugin, for an image in which it is not installed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from pytest_sandbox.options import LOCK_FLAG, SETTINGS

if TYPE_CHECKING:
    import pytest

_OURS: Final = ("--sandbox-", "--hermetic")


def flags(config: pytest.Config) -> list[tuple[str, bool]]:
    """Each option, and whether it takes a value."""
    known = {each.flag: each.ini_type != "bool" for each in SETTINGS}
    known[LOCK_FLAG] = False
    for argument in map(str, config.invocation_params.args):
        flag, equals, _ = argument.partition("=")
        if flag.startswith(_OURS):
            known.setdefault(flag, bool(equals))
    return list(known.items())


def keys() -> list[str]:
    return [each.ini for each in SETTINGS]


def markers() -> list[str]:
    return ["sandbox: of pytest-sandbox", "hermetic: of pytest-sandbox"]
