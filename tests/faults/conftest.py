"""Ways to break a service for real, and to see what is left of it."""

from __future__ import annotations

import os
import select
import signal
from pathlib import Path
from typing import Any

import pytest

from pytest_sandbox import Client, connect

SECONDS = 30


class Victim:
    """A service with the image busybox whose processes can be killed."""

    def __init__(self, service: Any, busybox_tar: Path) -> None:
        self.service = service
        with self.client() as client:
            client.image_import(busybox_tar, "busybox:latest")

    def client(self, *, lease: bool = False) -> Client:
        return connect(self.service.host, autostart=False, lease=lease)

    @property
    def pid(self) -> int:
        pid: int = self.service.process.pid
        return pid

    def kill(self) -> None:
        """kill -9, until it is gone."""
        self.service.process.send_signal(signal.SIGKILL)
        self.service.process.wait(SECONDS)

    def launcher(self) -> int:
        """The pid of the fork server: the only child that the service has."""
        (pid,) = Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text().split()
        return int(pid)

    def restart(self) -> None:
        self.service.start()

    def state(self, name: str) -> set[str]:
        """The names in a directory of the state root."""
        return set(os.listdir(self.service.root / name))


class Watched:
    """A process seen by its pidfd, so that no other one can be taken for it later."""

    def __init__(self, pid: int) -> None:
        self._fd = os.pidfd_open(pid)

    def ends(self) -> bool:
        """Whether it is dead, soon."""
        ready, _, _ = select.select([self._fd], [], [], SECONDS)
        os.close(self._fd)
        return bool(ready)


def watched(container: Any) -> Watched:
    """The first process of a running container."""
    return Watched(container.inspect()["State"]["Pid"])


@pytest.fixture
def victim(own_service: Any, busybox_tar: Path) -> Victim:
    return Victim(own_service, busybox_tar)


@pytest.fixture
def watch() -> Any:
    return watched
