"""However a run ends, nothing of it stays."""

from __future__ import annotations

import signal
import subprocess
import sys
from contextlib import closing
from typing import TYPE_CHECKING

import pytest

from pytest_sandbox import connect

if TYPE_CHECKING:
    from tests.conftest import Service

pytestmark = pytest.mark.needs_userns


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_nothing_is_left(live: pytest.Pytester, service: Service, number: int) -> None:
    live.makepyfile(
        """
        import time
        from pytest_sandbox import container, volume

        data = volume(files={"a": "b"})
        box = container(command=["sleep", "1000"], volumes={"/data": "data"})

        def test_it(box):
            print("up", flush=True)
            time.sleep(1000)
        """
    )
    with (
        connect(service.host, autostart=False) as client,
        closing(client.events(filters={"type": ["container"], "event": ["destroy"]})) as gone,
    ):
        run = live.popen([sys.executable, "-m", "pytest", "-s"], stdin=subprocess.DEVNULL)
        assert run.stdout is not None
        while b"up" not in (line := run.stdout.readline()):
            assert line, "the run ended before its test began"
        assert len(client.containers()) == 1
        run.send_signal(number)
        run.communicate()
        next(iter(gone))
        assert client.containers(all=True) == []
