"""Warnings that a process gives once: those of modules that are being imported.

A module is imported once in a plain run, and in each process of a hermetic one that needs it; its
warnings are marked where they arise, and shown once. PYTEST_DONT_REWRITE
"""

from __future__ import annotations

import sys
import warnings
from types import FrameType
from typing import Any, Final

from pytest_sandbox.hermetic.companion import Companion

_MARK: Final = "_hermetic_import"
_IMPORTING: Final = "<frozen importlib._bootstrap>"


class ImportWarnings(Companion):
    """Marks them in the zygote and all its children."""

    def in_zygote(self) -> None:
        show: Any = warnings._showwarnmsg  # type: ignore[attr-defined]

        def marking(message: Any) -> None:
            if _is_importing():
                setattr(message, _MARK, True)
            show(message)

        warnings._showwarnmsg = marking  # type: ignore[attr-defined]


def is_of_import(message: warnings.WarningMessage) -> bool:
    """Whether it arose while a module was being imported."""
    return getattr(message, _MARK, False)


def _is_importing() -> bool:
    """Whether a module's own code is running, up to the test that imports it."""
    frame: FrameType | None = sys._getframe(2)
    while frame is not None and frame.f_code.co_name != "pytest_pyfunc_call":
        if frame.f_code.co_filename == _IMPORTING:
            return True
        frame = frame.f_back
    return False
