"""An end for tests that pytest-timeout's own does not reach: a timer of the kernel's, by SIGKILL.

pytest-timeout needs a Python that still runs. When its timer is set, in the test's process, one of
timer_create(2) is too, for a little later; no signal mask and no hanging C code stops that.
PYTEST_DONT_REWRITE
"""

from __future__ import annotations

import ctypes
import signal
import time
from typing import Any, Final, NamedTuple

import pytest

from pytest_sandbox.hermetic.companion import Companion
from sandboxd.linux.syscalls import libc

GRACE: Final = 3.0
"""Seconds that pytest-timeout has to end the test by itself."""
_CLOCK_MONOTONIC: Final = 1


class Limit(NamedTuple):
    """A timer of pytest-timeout's that was set in a test's process."""

    began: float
    """time.monotonic() of pytest's process when it heard of it."""
    seconds: float

    def told(self, over: str) -> str:
        """What to add to how the process has ended: the reason, if it was ours."""
        if "SIGKILL" in over and time.monotonic() >= self.began + self.seconds + GRACE - 0.5:
            return f" (its timeout of {self.seconds:g} s had passed, and it did not end by itself)"
        return ""


class _Event(ctypes.Structure):
    """struct sigevent of sigevent(7), which has 64 bytes; sigev_notify 0 is SIGEV_SIGNAL."""

    _fields_ = (
        ("value", ctypes.c_void_p),
        ("signal", ctypes.c_int),
        ("notify", ctypes.c_int),
        ("rest", ctypes.c_byte * 48),
    )


class _Times(ctypes.Structure):
    """struct itimerspec: the interval, and the first time, in seconds and nanoseconds."""

    _fields_ = (("numbers", ctypes.c_long * 4),)


class Watchdog(Companion):
    """A plugin of each test's process: pytest-timeout's hooks say when its timer runs."""

    def __init__(self, config: pytest.Config) -> None:
        self._config = config
        self._timer: ctypes.c_void_p | None = None

    def in_zygote(self) -> None:
        self._config.pluginmanager.register(self, "hermetic-watchdog")

    def child_begins(self) -> None:
        event = _Event(signal=signal.SIGKILL)
        timer = ctypes.c_void_p()
        create = getattr(libc, "timer_create", None)
        if create and create(_CLOCK_MONOTONIC, ctypes.byref(event), ctypes.byref(timer)) == 0:
            self._timer = timer

    @pytest.hookimpl(tryfirst=True, optionalhook=True)
    def pytest_timeout_set_timer(self, settings: Any) -> None:
        """Returns nothing, so that pytest-timeout sets its own timer as well."""
        self._set(settings.timeout + GRACE)
        sender: Any = self._config.pluginmanager.get_plugin("hermetic-sender")
        sender.send("limit", settings.timeout)

    @pytest.hookimpl(tryfirst=True, optionalhook=True)
    def pytest_timeout_cancel_timer(self) -> None:
        self._set(0)

    @pytest.hookimpl(tryfirst=True)
    def pytest_enter_pdb(self) -> None:
        self._set(0)

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Once it has failed, its teardown may take as long as it does in a plain run."""
        if not report.passed:
            self._set(0)

    def _set(self, seconds: float) -> None:
        if self._timer is not None:
            whole, part = divmod(seconds, 1)
            times = _Times((ctypes.c_long * 4)(0, 0, int(whole), int(part * 1e9)))
            libc.timer_settime(self._timer, 0, ctypes.byref(times), None)
