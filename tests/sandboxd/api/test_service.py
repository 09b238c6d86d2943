"""The routes before a real engine: what only a real container can show of them."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from .conftest import Wire

if TYPE_CHECKING:
    from tests.conftest import Service

pytestmark = [pytest.mark.needs_userns, pytest.mark.needs_busybox]

UPGRADE = b" HTTP/1.1\r\nHost: d\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n"


@pytest.fixture
async def real(service: Service, busybox: str) -> AsyncIterator[Wire]:
    client = Wire(Path(service.socket))
    yield client
    await client.close()


async def post(wire: Wire, path: str, body: dict[str, Any], **headers: str) -> tuple[int, Any]:
    status, _, answer = await wire.post(path, json.dumps(body).encode(), **headers)
    return status, json.loads(answer) if answer else None


async def created(wire: Wire, script: str, **more: Any) -> str:
    body = {"Image": "busybox", "Cmd": ["sh", "-c", script], **more}
    status, answer = await post(wire, "/containers/create", body)
    assert status == 201, answer
    id_: str = answer["Id"]
    return id_


def wait_request(container: str, condition: str) -> bytes:
    path = f"/containers/{container}/wait?condition={condition}"
    return f"POST {path} HTTP/1.1\r\nHost: d\r\n\r\n".encode()


async def removed(wire: Wire, container: str) -> None:
    status, _, body = await wire.get(f"/containers/{container}?force=1&v=1", "DELETE")
    assert status == 204, body


async def test_run_in_json(real: Wire) -> None:
    script = "cat; echo err >&2; exit 3"
    stdin = base64.b64encode(b"typed\0").decode()
    body = {"Image": "busybox", "Cmd": ["sh", "-c", script], "Stdin": stdin}
    status, answer = await post(real, "/sandbox/run", body)
    assert status == 200
    assert base64.b64decode(answer["Stdout"]) == b"typed\0"
    assert base64.b64decode(answer["Stderr"]) == b"err\n"
    assert (answer["ExitCode"], answer["TimedOut"], answer["Truncated"]) == (3, False, False)


async def test_run_in_bytes(real: Wire) -> None:
    body = {"image": "busybox", "cmd": ["sh", "-c", "printf 'a\\0b'; printf e >&2"]}
    status, headers, answer = await real.post(
        "/sandbox/run", json.dumps(body).encode(), Accept="application/vnd.sandbox.run"
    )
    assert (status, answer) == (200, b"a\0be")
    assert (headers["X-Exit-Code"], headers["X-Stdout-Length"]) == ("0", "3")
    assert "X-Timed-Out" not in headers


async def test_a_run_that_takes_too_long_is_killed_and_says_so(real: Wire) -> None:
    body = {"Image": "busybox", "Cmd": ["sleep", "100"], "Timeout": 0.05}
    status, headers, _ = await real.post(
        "/sandbox/run", json.dumps(body).encode(), Accept="application/vnd.sandbox.run"
    )
    assert (status, headers["X-Timed-Out"], headers["X-Exit-Code"]) == (200, "true", "137")


@pytest.mark.parametrize(
    ("change", "status", "message"),
    [
        ({"Image": "nosuchimage"}, 404, "No such image: nosuchimage:latest"),
        ({"Image": "In valid"}, 400, "invalid reference format"),
        ({"Cmd": ["/no/such"]}, 400, "no such file or directory"),
        ({"Cmd": ["/etc/passwd"]}, 400, "permission denied"),
        ({"Stdin": "no base64!"}, 400, "Stdin"),
        ({"Timeout": "soon"}, 400, "Timeout"),
        ({"HostConfig": {"Binds": ["/no/such:/x:ro"], "NetworkMode": 5}}, 400, "NetworkMode"),
    ],
)
async def test_a_run_that_cannot_be(
    real: Wire, change: dict[str, Any], status: int, message: str
) -> None:
    body = {"Image": "busybox", "Cmd": ["true"], **change}
    got, answer = await post(real, "/sandbox/run", body)
    assert got == status, answer
    assert message in answer["message"]


async def test_a_runs_start_failure_carries_the_shells_exit_code(real: Wire) -> None:
    body = {"Image": "busybox", "Cmd": ["/no/such"]}
    _, answer = await post(real, "/sandbox/run", body)
    assert answer["exit_code"] == 127


async def test_a_container_of_a_lease_goes_with_it(real: Wire) -> None:
    reader, writer = await real.open()
    writer.write(b"POST /sandbox/leases?label=test" + UPGRADE + b"\r\n")
    await reader.readuntil(b"\r\n\r\n")
    lease = json.loads(await reader.readline())["Id"]
    body = {"Image": "busybox", "Cmd": ["sleep", "300"]}
    status, answer = await post(real, "/containers/create", body, X_Sandbox_Lease=lease)
    assert status == 201
    container = answer["Id"]
    assert (await real.get(f"/containers/{container}/start", "POST"))[0] == 204
    leases = json.loads((await real.get("/sandbox/leases"))[2])
    assert {"Id": lease, "Label": "test"}.items() <= next(
        each for each in leases if each["Id"] == lease
    ).items()
    gone_reader, gone_writer = await real.open()
    gone_writer.write(wait_request(container, "removed"))
    await gone_reader.readuntil(b"\r\n\r\n")
    writer.close()
    assert b'"StatusCode":137' in await asyncio.wait_for(gone_reader.readuntil(b"}"), 10)
    assert (await real.get(f"/containers/{container}/json"))[0] == 404
    status, answer = await post(real, "/containers/create", body, X_Sandbox_Lease=lease)
    assert status == 404


async def test_ready_sees_the_listening_socket(real: Wire) -> None:
    container = await created(real, "sleep 0.1; nc -l -p 7000; sleep 300")
    assert (await real.get(f"/containers/{container}/start", "POST"))[0] == 204
    path = f"/sandbox/containers/{container}/ready"
    status, _, body = await real.get(f"{path}?tcp=7000&timeout=20")
    assert status == 200, body
    assert json.loads(body)["Elapsed"] > 0
    status, _, body = await real.get(f"{path}?tcp=7001&timeout=0.05")
    assert status == 408
    for query in ("", "?tcp=1&unix=/x", "?tcp=x", "?unix=relative", "?tcp=0"):
        assert (await real.get(path + query))[0] == 400
    await removed(real, container)


async def test_ready_of_one_that_dies_is_told_at_once(real: Wire) -> None:
    container = await created(real, "sleep 0.1; echo last words; exit 9")
    assert (await real.get(f"/containers/{container}/start", "POST"))[0] == 204
    status, _, body = await real.get(f"/sandbox/containers/{container}/ready?tcp=1&timeout=60")
    assert status == 409
    assert "exit code 9" in json.loads(body)["message"]
    assert "last words" in json.loads(body)["message"]
    await removed(real, container)


async def test_events_miss_nothing_after_their_head(real: Wire) -> None:
    reader, writer = await real.open()
    writer.write(b"GET /events?filters=%7B%22type%22:%5B%22container%22%5D%7D HTTP/1.0\r\n\r\n")
    await reader.readuntil(b"\r\n\r\n")
    container = await created(real, "true", Labels={"colour": "blue"})
    while (event := json.loads(await reader.readline()))["Actor"]["ID"] != container:
        pass
    assert (event["Action"], event["Type"], event["from"]) == ("create", "container", "busybox")
    assert event["Actor"]["Attributes"]["colour"] == "blue"
    assert event["timeNano"] // 1_000_000_000 == event["time"]
    await removed(real, container)


async def test_a_wait_before_the_start_sees_the_end(real: Wire) -> None:
    container = await created(real, "exit 5")
    reader, writer = await real.open()
    writer.write(wait_request(container, "next-exit"))
    await reader.readuntil(b"\r\n\r\n")
    assert (await real.get(f"/containers/{container}/start", "POST"))[0] == 204
    assert b'{"StatusCode":5}' in await reader.readuntil(b"}")
    about = json.loads((await real.get(f"/containers/{container}/json"))[2])
    assert (about["State"]["Status"], about["State"]["ExitCode"]) == ("exited", 5)
    status, _, logs = await real.get(f"/containers/{container}/logs?stdout=1")
    assert (status, logs) == (200, b"")
    await removed(real, container)


async def test_start_and_stop_say_when_there_was_nothing_to_do(real: Wire) -> None:
    container = await created(real, "sleep 300")
    path = f"/containers/{container}"
    assert (await real.get(f"{path}/stop", "POST"))[0] == 304
    assert (await real.get(f"{path}/start", "POST"))[0] == 204
    assert (await real.get(f"{path}/start", "POST"))[0] == 304
    assert (await real.get(f"{path}/stop?t=0", "POST"))[0] == 204
    assert (await real.get(f"{path}/stop?t=0", "POST"))[0] == 304
    assert (await real.get(f"{path}/pause", "POST"))[0] in (400, 409)
    await removed(real, container)


async def test_the_mounts_of_a_container_are_shown_in_order(real: Wire) -> None:
    container = await created(real, "true", HostConfig={"Tmpfs": {"/scratch": "size=1m"}})
    status, _, body = await real.get(f"/sandbox/containers/{container}/mounts")
    assert status == 200
    operations = json.loads(body)
    assert any("/scratch" in operation for operation in operations)
    await removed(real, container)


async def test_status(real: Wire, service: Service) -> None:
    status, _, body = await real.get("/sandbox/status")
    about = json.loads(body)
    assert status == 200
    assert service.process is not None
    assert (about["Pid"], about["Socket"]) == (service.process.pid, str(service.socket))
    assert about["Uptime"] > 0


async def test_snapshots_that_are_not_there(real: Wire) -> None:
    key = "sha256:" + "0" * 64
    assert (await real.get(f"/sandbox/snapshots/{key}"))[0] == 404
    assert (await real.get(f"/sandbox/snapshots/{key}", "DELETE"))[0] == 404
    status, _, body = await real.get(f"/sandbox/snapshots/{key}/claim", "POST")
    assert status == 400
    assert "needs a lease" in json.loads(body)["message"]
    status, answer = await post(real, "/volumes/create", {"Sandbox": {"Snapshot": key}})
    assert status == 404, answer


async def test_shutdown_ends_the_service(own_service: Service) -> None:
    wire = Wire(Path(own_service.socket))
    assert (await wire.get("/sandbox/shutdown", "POST"))[0] == 204
    await wire.close()
    assert own_service.process is not None
    assert await asyncio.to_thread(own_service.process.wait, 20) == 0
