"""The service's own routes under /sandbox/: run, readiness, status and shutdown.

Their reference is service/deploy/openapi.json.
"""

from __future__ import annotations

import base64
import binascii
import os
import time
from typing import TYPE_CHECKING, Any

from aiohttp import web

from sandboxd import __version__
from sandboxd.api.bodies import SANDBOX_EXEC, SANDBOX_RUN
from sandboxd.api.call import EXTENSION_BODY_LIMIT, Call
from sandboxd.api.replies import FRAME_HEADERS, empty_reply, json_reply
from sandboxd.errors import BadRequest

if TYPE_CHECKING:
    from sandboxd.engine import RunResult

BINARY_RUN = "application/vnd.sandbox.run"
READY_SECONDS = 30.0


async def run(call: Call) -> web.StreamResponse:
    """POST /sandbox/run: create, start, wait, logs and remove in one round trip.

    Closing the connection kills the container. A client that accepts `BINARY_RUN` gets stdout and
    then stderr as they are, and the rest in headers; others get JSON with base64.
    """
    body = await call.body(SANDBOX_RUN, limit=EXTENSION_BODY_LIMIT)
    timeout = body.pop("Timeout", None)
    stdin = base64_bytes(body.pop("Stdin", ""), "Stdin")
    result = await call.engine.run(body, timeout=timeout, stdin=stdin, lease=call.lease())
    return _result(call, result)


async def exec_(call: Call) -> web.StreamResponse:
    """POST /sandbox/containers/{id}/exec: run a command there, wait, collect, in one round trip.

    Closing the connection kills the command. It answers as `run` does; the id is the exec's.
    """
    container = call.engine.find(call.params["id"])
    body = await call.body(SANDBOX_EXEC, limit=EXTENSION_BODY_LIMIT)
    timeout = body.pop("Timeout", None)
    stdin = base64_bytes(body.pop("Stdin", ""), "Stdin")
    result = await call.engine.exec_run(container, body, timeout=timeout, stdin=stdin)
    return _result(call, result)


async def ready(call: Call) -> web.StreamResponse:
    """GET /sandbox/containers/{id}/ready?tcp|unix&timeout: waits for a listening socket."""
    engine, query = call.engine, call.query
    container = engine.find(call.params["id"])
    probe: dict[str, Any] = {}
    if "tcp" in query:
        probe["tcp"] = query.integer("tcp", 0)
    if "unix" in query:
        probe["unix"] = query.text("unix")
    if len(probe) != 1:
        raise BadRequest("invalid probe", "give one of tcp=PORT and unix=/PATH")
    timeout = query.seconds("timeout")
    return json_reply(
        await engine.ready(container, probe, READY_SECONDS if timeout is None else timeout)
    )


async def mounts(call: Call) -> web.StreamResponse:
    """GET /sandbox/containers/{id}/mounts: the mount operations, in order, as text."""
    return json_reply(call.engine.mounts(call.engine.find(call.params["id"])))


async def status(call: Call) -> web.StreamResponse:
    """GET /sandbox/status"""
    engine, surface = call.engine, call.surface
    body = {
        "Pid": os.getpid(),
        "Version": __version__,
        "Uptime": round(time.time() - surface.started, 3),
        "Socket": surface.socket_path,
        **engine.status(),
    }
    return json_reply(body)


async def namespace(call: Call) -> web.StreamResponse:
    """GET /sandbox/namespace: the user namespace that those of all containers lie in.

    A process of the same user may enter it by setns(2): what it unshares then, containers can join.
    """
    inode = os.stat("/proc/self/ns/user").st_ino
    return json_reply({"Pid": os.getpid(), "UserNamespace": inode})


async def shutdown(call: Call) -> web.StreamResponse:
    """POST /sandbox/shutdown: the service stops once this is answered."""
    call.surface.stop()
    return empty_reply()


def base64_bytes(text: str, where: str) -> bytes:
    """Decoded standard base64. Raises BadRequest naming the field."""
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise BadRequest(f"invalid value of {where}", "it is not base64") from error


def _result(call: Call, result: RunResult) -> web.Response:
    if BINARY_RUN in call.request.headers.get("Accept", ""):
        return _binary(result)
    return json_reply(
        {
            "Id": result.id,
            "ExitCode": result.exit_code,
            "Stdout": base64.b64encode(result.stdout).decode(),
            "Stderr": base64.b64encode(result.stderr).decode(),
            "TimedOut": result.timed_out,
            "OOMKilled": result.oom,
            "Truncated": result.truncated,
        }
    )


def _binary(result: RunResult) -> web.Response:
    headers = {
        **FRAME_HEADERS,
        "Content-Type": BINARY_RUN,
        "X-Container-Id": result.id,
        "X-Exit-Code": str(result.exit_code),
        "X-Stdout-Length": str(len(result.stdout)),
    }
    flags = {"X-Timed-Out": result.timed_out, "X-OOM-Killed": result.oom}
    flags["X-Truncated"] = result.truncated
    headers.update((name, "true") for name, is_set in flags.items() if is_set)
    return web.Response(body=result.stdout + result.stderr, headers=headers)
