"""Pytest's end of the watcher: starts it, tells it what to look at, asks what it has seen."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterable
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final

from pytest_sandbox.hermetic.escapes import connection_filter
from pytest_sandbox.hermetic.escapes.escape import Escape

_PACKET_MAX: Final = 1 << 18


class Watch:
    """The watcher of one pytest process. It ends with this process and the zygote, however."""

    def __init__(self, pardoned: Iterable[str] = ()) -> None:
        """`pardoned`: paths of unix sockets that tests are meant to reach. Raises OSError."""
        self._socket, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            self._process = subprocess.Popen(
                [*_command(), str(theirs.fileno()), *pardoned],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )
        self._something = False
        """Whether the watcher has said that there is something to take."""

    def install_filter(self) -> None:
        """In the zygote, once it may: from now on the watcher sees its children's connections.

        Why it does not, where the kernel refuses, `seen` says.
        """
        try:
            listener = connection_filter.install()
        except (OSError, KeyError) as error:
            self._socket.send(json.dumps({"blind": str(error)}).encode())
        else:
            socket.send_fds(self._socket, [b'{"listener": true}'], [listener])
            os.close(listener)
        self._socket.close()

    def serve_names(self, pidfd: int) -> bool:
        """Let the watcher be the name server of a sandbox; whether it could."""
        socket.send_fds(self._socket, [b'{"shell": true}'], [pidfd])
        return bool(self._answer()["ready"])

    def seen(self, pid: int) -> list[Escape]:
        """What was asked of the network by the sandbox whose pid 1 this is, since the last call.

        Raises OSError when the watcher cannot see any more.
        """
        if not (self._something or self._hint()):
            return []
        wanted = [os.stat(f"/proc/{pid}/ns/{kind}").st_ino for kind in ("pid", "net")]
        self._socket.send(json.dumps({"take": wanted}).encode())
        answer = self._answer()
        if why := answer["blind"]:
            raise OSError(why)
        self._something = answer["rest"]
        return [_escape(*event) for event in answer["seen"]]

    def close(self) -> None:
        """End the watcher. The zygote must have ended: a filter without a listener fails calls."""
        self._socket.close()
        self._process.kill()
        self._process.wait()

    def _hint(self) -> bool:
        try:
            return bool(self._packet(socket.MSG_DONTWAIT))
        except BlockingIOError:
            return False

    def _packet(self, flags: int = 0) -> bytes:
        packet = self._socket.recv(_PACKET_MAX, flags)
        if not packet:
            raise ConnectionResetError("the watcher has died, so that connect(2) fails in tests")
        return packet

    def _answer(self) -> dict[str, Any]:
        while True:
            message: dict[str, Any] = json.loads(self._packet())
            if message:
                return message
            self._something = True


def _escape(protocol: str, subject: str, outcome: str, process: str) -> Escape:
    if protocol == "name":
        return Escape("names", "looked up", subject)
    detail = ", ".join(note for note in (outcome, process and f"by {process}") if note)
    return Escape("connections", "tried", f"{protocol} {subject}", detail)


def _command() -> list[str]:
    """A lean Python: no site, no environment."""
    roots = [str(Path(_origin(name)).parents[1]) for name in ("pytest_sandbox", "sandboxd")]
    code = (
        f"import sys; sys.path[:0] = {list(dict.fromkeys(roots))!r}; "
        "from pytest_sandbox.hermetic.escapes.watcher import main; main()"
    )
    return [sys.executable, "-S", "-E", "-B", "-c", code]


def _origin(package: str) -> str:
    spec = find_spec(package)
    assert spec is not None
    assert spec.origin is not None
    return spec.origin
