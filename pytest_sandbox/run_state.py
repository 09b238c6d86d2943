"""What one pytest process holds while its tests use the service.

It exists from the first use of the fixture `sandbox` to the end of the session, and is loaded no
earlier: a run that uses no containers does not pay for the client.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any, Unpack

import pytest

from pytest_sandbox.client.container import Container
from pytest_sandbox.client.options import ContainerOptions
from pytest_sandbox.client.results import RunResult
from pytest_sandbox.client.session import Client
from pytest_sandbox.options import Options, options_of
from pytest_sandbox.service_process import ServiceProcess, signal_name


class SandboxRun:
    """The client and the service's process, as one pytest process knows them."""

    def __init__(self, config: pytest.Config) -> None:
        self.client = TestClient(options_of(config), _label(config))
        self._service: ServiceProcess | None = None
        self.service_log = ""
        """Path of the service's log."""
        self.watch_service()

    def watch_service(self) -> None:
        """Note down which process serves; starts the service. Raises what `connect` raises."""
        status = self.client.status()
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
        """Give the lease back; everything that this process has made is removed."""
        self.client.close()


class TestClient(Client):
    """The client of a test run: it shows what the options show, and knows what it made."""

    __test__ = False

    def __init__(self, options: Options, label: str) -> None:
        from pytest_sandbox.autostart import Service

        super().__init__(Service(options.host), label=label)
        self.made: set[str] = set()
        """Ids of the containers made through this client, gone or not."""
        self._show = options.show

    def run(
        self,
        image: str,
        args: Sequence[str] | None = None,
        *,
        stdin: bytes = b"",
        timeout: float | None = None,
        **options: Unpack[ContainerOptions],
    ) -> RunResult:
        options["show"] = [*self._show, *options.get("show", ())]
        return super().run(image, args, stdin=stdin, timeout=timeout, **options)

    def container(
        self,
        image: str,
        args: Sequence[str] | None = None,
        *,
        name: str | None = None,
        **options: Unpack[ContainerOptions],
    ) -> Container:
        options["show"] = [*self._show, *options.get("show", ())]
        return super().container(image, args, name=name, **options)

    def create_container(self, body: Mapping[str, Any], *, name: str | None = None) -> Container:
        container = super().create_container(body, name=name)
        self.made.add(container.id)
        return container


def _how_it_ended(code: int | None) -> str:
    """`code` as ServiceProcess.exit_code has it."""
    if code is None:
        return "it died, with an exit code that this kernel does not tell"
    return f"it died: exit code {code}" if code >= 0 else f"it died: {signal_name(-code)}"


def _label(config: pytest.Config) -> str:
    """What `sandboxctl service status` calls this run's lease."""
    worker = os.environ.get("PYTEST_XDIST_WORKER")
    return f"pytest {config.rootpath.name}" + (f" {worker}" if worker else "")
