"""Answers, with the headers that Docker's clients read from every one of them."""

from __future__ import annotations

import json
from typing import Any

from aiohttp import web

from sandboxd import __version__
from sandboxd.errors import SandboxError

API_VERSION = (1, 45)
MIN_API_VERSION = (1, 24)

FRAME_HEADERS = {
    "Api-Version": f"{API_VERSION[0]}.{API_VERSION[1]}",
    "Docker-Experimental": "false",
    "Ostype": "linux",
    "Server": f"Docker/{__version__} (linux)",
    "Swarm": "inactive",
    "Builder-Version": "1",
}
"""The CLI negotiates by the first three; older Go clients parse the platform out of Server."""

_JSON = {**FRAME_HEADERS, "Content-Type": "application/json"}
_TEXT = {**FRAME_HEADERS, "Content-Type": "text/plain; charset=utf-8"}


def encoded(value: Any) -> bytes:
    """JSON in the compact form of Go's encoder."""
    return json.dumps(value, separators=(",", ":")).encode()


def json_reply(value: Any, status: int = 200) -> web.Response:
    return web.Response(body=encoded(value), status=status, headers=_JSON)


def text_reply(value: str, status: int = 200) -> web.Response:
    return web.Response(body=value.encode(), status=status, headers=_TEXT)


def empty_reply(status: int = 204) -> web.Response:
    return web.Response(status=status, headers=FRAME_HEADERS)


def failure(status: int, message: str) -> web.Response:
    """An error that has no class of its own, such as a request that is not HTTP."""
    return json_reply({"message": message}, status)


def error_reply(error: SandboxError) -> web.Response:
    return json_reply(error.to_wire(), error.status)


def message_line(value: Any) -> bytes:
    """One object of a JSON progress stream."""
    return encoded(value) + b"\r\n"


def error_line(message: str, code: int) -> bytes:
    """The last object of a progress stream that failed after its 200 had been sent."""
    detail = {"code": code, "message": message}
    return message_line({"errorDetail": detail, "error": message})
