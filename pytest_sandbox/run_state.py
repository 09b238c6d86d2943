"""What one pytest process holds while its tests use the service.

It exists from the first use of the fixture `sandbox` to the end of the session, and is loaded no
earlier: a run that uses no containers does not pay for the client.
"""

from __future__ import annotations

import os
from contextlib import suppress
from typing import TYPE_CHECKING

import pytest

from pytest_sandbox.cost.events import recorder_of
from pytest_sandbox.options import options_of
from pytest_sandbox.run_client import RunClient
from pytest_sandbox.service_process import ServiceProcess, signal_name
from pytest_sandbox.snapshot_cache import use_snapshot_cache
from pytest_sandbox.suite import Suite

if TYPE_CHECKING:
    from pytest_sandbox.cost.watch import Watch


class SandboxRun:
    """The client and the service's process, as one pytest process knows them."""

    def __init__(self, config: pytest.Config) -> None:
        self._recorder = recorder_of(config)
        self.client = RunClient(
            options_of(config), _label(config), Suite.of(config).named, self._recorder
        )
        use_snapshot_cache(self.client, config)
        self._plugins = config.pluginmanager
        self._watch = self._watched()
        self._service: ServiceProcess | None = None
        self.service_log = ""
        """Path of the service's log."""
        self.watch_service()

    def _watched(self) -> Watch | None:
        """What notes the lives of containers, where an option wants it."""
        if not self._recorder.wanted:
            return None
        from pytest_sandbox.cost.watch import Watch

        watch = Watch(self.client, self._recorder)
        self._plugins.register(watch, "sandbox-watch")
        return watch

    def watch_service(self) -> None:
        """Note down which process serves; starts the service. Raises what `connect` raises."""
        status = self.client.status()
        with suppress(ProcessLookupError):  # in a sandbox, whose pids are others
            self._service = ServiceProcess(status["Pid"])
        self.service_log = os.path.join(status["Root"], "service.log")

    def service_death(self) -> str:
        """How the service ended, in a few words; empty while it lives. Says it once."""
        if self._service is None and self.client.service.running():
            self.watch_service()
        if self._service is None or not self._service.ended():
            return ""
        code = self._service.exit_code()
        self._service.close()
        self._service = None
        return _how_it_ended(code)

    def close(self) -> None:
        """Remove everything that this process has made."""
        self.client.departures.settle()
        if self._watch is not None:
            self._plugins.unregister(self._watch)
            self._watch.settle()
        self.client.close()


def _how_it_ended(code: int | None) -> str:
    """`code` as ServiceProcess.exit_code has it."""
    if code is None:
        return "it died, with an exit code that this kernel does not tell"
    return f"it died: exit code {code}" if code >= 0 else f"it died: {signal_name(-code)}"


def _label(config: pytest.Config) -> str:
    """What `sandboxctl service status` calls this run's lease."""
    worker = os.environ.get("PYTEST_XDIST_WORKER")
    return f"pytest {config.rootpath.name}" + (f" {worker}" if worker else "")
