"""kill -9 of the fork server: all containers die with it, and the service ends with an error."""

from __future__ import annotations

import os
import signal
import threading
from typing import Any

import pytest

from pytest_sandbox import SandboxError

pytestmark = [pytest.mark.needs_userns, pytest.mark.needs_busybox]


def test_the_service_ends_with_an_error_and_the_next_one_recovers(victim: Any, watch: Any) -> None:
    client = victim.client()
    container = client.container("busybox", ["sleep", "1000"], name="up").start()
    process = watch(container)
    waiting: list[object] = []

    def wait() -> None:
        try:
            waiting.append(container.wait())
        except SandboxError as error:
            waiting.append(error)

    waiter = threading.Thread(target=wait)
    waiter.start()
    os.kill(victim.launcher(), signal.SIGKILL)
    assert process.ends()
    assert victim.service.process.wait(30) != 0
    waiter.join(30)
    assert len(waiting) == 1
    assert "fork server" in victim.service.log.read_text()
    victim.restart()
    with victim.client() as again:
        found = again.get_container("up")
        assert found.inspect()["State"]["ExitCode"] == 137
        assert again.run("busybox", ["echo", "on"]).stdout == b"on\n"
