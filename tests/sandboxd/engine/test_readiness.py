"""Ready is a listening socket in the container; dead is told at once."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Callable
from typing import Any

import pytest

from sandboxd.engine.readiness import TcpProbe, UnixProbe, parse_probe
from sandboxd.errors import BadRequest, Conflict, TimedOut

kernel = [pytest.mark.needs_userns, pytest.mark.needs_busybox]

Run = Callable[[Callable[..., Any]], Any]


@pytest.mark.parametrize(
    "probe",
    [
        {},
        {"tcp": 0},
        {"tcp": 65536},
        {"tcp": "80"},
        {"unix": "rel"},
        {"udp": 5},
        {"tcp": 1, "x": 2},
    ],
)
def test_probes_that_are_none(probe: dict[str, Any]) -> None:
    with pytest.raises(BadRequest, match="invalid probe"):
        parse_probe(probe)


def test_probes() -> None:
    assert parse_probe({"tcp": 5432}) == TcpProbe(5432)
    assert parse_probe({"unix": "/s/x"}) == UnixProbe("/s/x")


class TestInContainers:
    pytestmark = kernel

    @pytest.mark.parametrize("address", ["127.0.0.1", "0.0.0.0", "::1"])
    def test_a_port(self, any_bench: Run, address: str) -> None:
        async def scenario(b: Any) -> Any:
            family = "AF_INET6" if ":" in address else "AF_INET"
            container = await listener(b, family, (address, 5432), "time.sleep(0.1)")
            return await b.engine.ready(container, {"tcp": 5432}, 30)

        assert any_bench(scenario)["Elapsed"] >= 0.1

    def test_another_port_or_a_connection_is_not_it(self, bench: Run) -> None:
        async def scenario(b: Any) -> Any:
            container = await b.up("sh", "-c", "nc -l -p 77 & sleep 0.1; nc 127.0.0.1 77; sleep 99")
            with pytest.raises(TimedOut, match="nobody listens on TCP port 78"):
                await b.engine.ready(container, {"tcp": 78}, 0.3)

        bench(scenario)

    @pytest.mark.parametrize("bound", ["/tmp/s.sock", "s.sock", "./s.sock"])
    def test_a_unix_socket(self, bench: Run, bound: str) -> None:
        async def scenario(b: Any) -> Any:
            container = await listener(b, "AF_UNIX", bound)
            return await b.engine.ready(container, {"unix": "/tmp/s.sock"}, 30)

        assert bench(scenario)["Elapsed"] > 0

    def test_a_bound_socket_that_nobody_listens_on_is_not_it(self, bench: Run) -> None:
        async def scenario(b: Any) -> Any:
            container = await listener(b, "AF_UNIX", "/tmp/s.sock", "time.sleep(99)")
            with pytest.raises(TimedOut):
                await b.engine.ready(container, {"unix": "/tmp/s.sock"}, 0.3)

        bench(scenario)

    def test_death_is_told_at_once_with_code_and_last_lines(self, bench: Run) -> None:
        async def scenario(b: Any) -> Any:
            script = "seq 100; echo cannot bind >&2; sleep 0.1; exit 3"
            container = await b.up("sh", "-c", script)
            begun = time.monotonic()
            with pytest.raises(Conflict) as caught:
                await b.engine.ready(container, {"tcp": 5432}, 1000)
            return caught.value.message, time.monotonic() - begun < 500

        message, soon = bench(scenario)
        assert soon
        assert "ended with exit code 3" in message
        assert "cannot bind" in message
        assert "99\n" in message
        assert "\n50\n" not in message

    def test_what_does_not_run(self, bench: Run) -> None:
        async def scenario(b: Any) -> Any:
            container = await b.make("true")
            with pytest.raises(Conflict, match="it is created, not running"):
                await b.engine.ready(container, {"tcp": 1}, 5)

        bench(scenario)

    def test_time_that_runs_out_tells_what_was_seen(self, bench: Run) -> None:
        async def scenario(b: Any) -> Any:
            container = await b.up("sh", "-c", "echo still starting; sleep 99")
            async for _ in b.engine.logs(container, follow=True):
                break
            with pytest.raises(TimedOut) as caught:
                await b.engine.ready(container, {"unix": "/run/x"}, 0.05)
            return caught.value.message, caught.value.status

        message, status = bench(scenario)
        assert status == 408
        for part in ("0.05 s", "running", "nobody listens on /run/x", "still starting"):
            assert part in message

    def test_many_wait_at_once(self, bench: Run) -> None:
        async def scenario(b: Any) -> Any:
            containers = [
                await b.up("sh", "-c", f"sleep 0.{n}; nc -l -p {5000 + n}") for n in range(1, 6)
            ]
            answers = await asyncio.gather(
                *(b.engine.ready(c, {"tcp": 5001 + n}, 30) for n, c in enumerate(containers))
            )
            return len(answers)

        assert bench(scenario) == 5


async def listener(b: Any, family: str, address: Any, meanwhile: str = "pass") -> Any:
    """A container of the image `host` in which Python binds, waits, and listens in /tmp."""
    code = (
        f"import os, socket, time; os.chdir('/tmp'); s = socket.socket(socket.{family});"
        f"s.bind({address!r}); {meanwhile}; s.listen(); time.sleep(99)"
    )
    body = {
        "Image": "host",
        "Cmd": [sys.executable, "-c", code],
        "HostConfig": {"SandboxShow": [sys.prefix, sys.base_prefix]},
    }
    container = await b.engine.create(body)
    await b.engine.start_container(container)
    return container
