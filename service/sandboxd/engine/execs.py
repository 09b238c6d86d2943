"""Further processes in running containers."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

from sandboxd.engine.assembly import Rlimit, environment, first_process
from sandboxd.engine.attachments import Attachment, Outlet
from sandboxd.engine.container import Container
from sandboxd.engine.events import Events
from sandboxd.engine.fields import Fields
from sandboxd.engine.floors import Floors
from sandboxd.engine.hostconfig import console_size
from sandboxd.engine.names import new_id
from sandboxd.engine.program import Program
from sandboxd.engine.stdin import Stdin
from sandboxd.errors import (
    BadRequest,
    CannotEnforce,
    Conflict,
    NoSuchExec,
    SandboxError,
    StartFailed,
)
from sandboxd.launcher.client import Running
from sandboxd.launcher.spec import Process

log = logging.getLogger("sandboxd.engine")

_PATIENCE: Final = 0.1
"""Seconds in which processes that an exec left in the background may still add to its output."""
_NOT_STARTED: Final = 126
_REMEMBERED: Final = 1024
"""Ended execs whose exit code can still be asked for."""


@dataclass(eq=False)
class Exec:
    """One exec: created, then started at most once."""

    id: str
    container: Container
    process: Process
    streams: frozenset[int]
    """1 and 2: the output streams that a client takes."""
    takes_stdin: bool
    detach_keys: str
    program: Program | None = None
    started: bool = False
    exit_code: int | None = None
    over: asyncio.Future[int] | None = None
    """For who waits for its exit code and all of its output."""

    @property
    def running(self) -> bool:
        return self.started and self.exit_code is None

    def about(self) -> dict[str, Any]:
        """The body of GET /exec/{id}/json."""
        process = self.process
        return {
            "ID": self.id,
            "Running": self.running,
            "ExitCode": self.exit_code,
            "Pid": self.program.running.pid if self.program else 0,
            "ContainerID": self.container.id,
            "ProcessConfig": {
                "tty": process.tty,
                "entrypoint": process.args[0],
                "arguments": list(process.args[1:]),
                "privileged": False,
                "user": process.user,
            },
            "OpenStdin": self.takes_stdin,
            "OpenStdout": 1 in self.streams,
            "OpenStderr": 2 in self.streams,
            "CanRemove": self.exit_code is not None,
            "DetachKeys": self.detach_keys,
        }


class Execs:
    """The execs of all containers."""

    def __init__(self, floors: Floors, events: Events) -> None:
        self._floors = floors
        self._events = events
        self._known: dict[str, Exec] = {}
        self._ended: deque[str] = deque()
        self._finishing: set[asyncio.Task[None]] = set()

    def create(self, container: Container, body: Mapping[str, Any]) -> str:
        """Its id. Raises Conflict unless the container runs, BadRequest without a command."""
        if not container.running:
            raise Conflict(f"container {container.id} is not running")
        made = _exec(container, Fields(body), self._floors.rlimits)
        self._known[made.id] = made
        container.execs.add(made.id)
        self._publish(made, f"exec_create: {' '.join(made.process.args)}")
        return made.id

    def find(self, id: str) -> Exec:
        try:
            return self._known[id]
        except KeyError:
            raise NoSuchExec.named(id) from None

    async def start(
        self, id: str, *, detach: bool = False, size: tuple[int, int] | None = None
    ) -> Attachment | None:
        """Run it; the attachment to its streams unless `detach`.

        Raises Conflict when it was started before or the container ended, StartFailed when the
        command cannot be executed: its exit code is then 127 or 126.
        """
        exec_ = self.find(id)
        if exec_.started:
            raise Conflict(f"Error: Exec command {id} is already running or has already run")
        if size and any(size):
            exec_.process = exec_.process._replace(rows=size[0], cols=size[1])
        outlet, stdin = Outlet(), Stdin() if exec_.takes_stdin and not detach else None
        attachment = None
        if not detach:
            attachment = Attachment(
                outlet, tty=exec_.process.tty, streams=exec_.streams, stdin=stdin
            )
        (await self.begin(exec_, outlet, stdin, detach=detach)).watch()
        return attachment

    async def begin(
        self, exec_: Exec, outlet: Outlet, stdin: Stdin | None = None, *, detach: bool = False
    ) -> Program:
        """Run it, its output going to `outlet` once somebody watches. Raises like `start`."""
        if exec_.container.program is None:
            raise Conflict(f"container {exec_.container.id} is not running")
        exec_.started = True
        try:
            target = exec_.container.program
            program = await self._launch(exec_, target, outlet, stdin, detach=detach)
        except BaseException as error:
            code = error.exit_code if isinstance(error, StartFailed) else _NOT_STARTED
            self._over(exec_, code, outlet)
            if isinstance(error, OSError):
                raise SandboxError.from_os(f"start exec {exec_.id}", error) from error
            raise
        exec_.program = program
        self._publish(exec_, f"exec_start: {' '.join(exec_.process.args)}")
        program.running.when_ended(partial(self._ended_process, exec_, outlet))
        return program

    async def _launch(
        self,
        exec_: Exec,
        target: Program,
        outlet: Outlet,
        stdin: Stdin | None,
        *,
        detach: bool,
    ) -> Program:
        enclosure = exec_.container.enclosure
        cgroups = enclosure.directories if enclosure else ()

        async def launch(stdio: tuple[int, int, int]) -> Running:
            return await self._floors.launcher.exec(target.running, exec_.process, stdio, cgroups)

        return await Program.start(
            launch,
            outlet,
            stdin=stdin,
            tty=exec_.process.tty,
            stdout=1 in exec_.streams and not detach,
            stderr=2 in exec_.streams and not detach,
        )

    def resize(self, id: str, rows: int, cols: int) -> None:
        """Raises Conflict unless it runs."""
        exec_ = self.find(id)
        if exec_.program is None or not exec_.running:
            raise Conflict(f"exec {id} is not running")
        exec_.program.resize(rows, cols)

    def kill(self, id: str, signal: int) -> None:
        """Send a signal to a running exec; one that has ended needs none."""
        program = self.find(id).program
        if program:
            program.kill(signal)

    def forget(self, container: Container) -> None:
        """The container is gone: execs that never started go too. The end of others may still be on
        its way, and stays known a while."""
        for id in container.execs:
            if not self._known[id].started:
                del self._known[id]

    def _ended_process(self, exec_: Exec, outlet: Outlet, code: int) -> None:
        assert exec_.program is not None
        if exec_.program.drained():
            exec_.program.finish()
            self._over(exec_, code, outlet)
            return
        task = asyncio.get_running_loop().create_task(
            self._over_soon(exec_, exec_.program, code, outlet)
        )
        self._finishing.add(task)
        task.add_done_callback(self._finishing.discard)

    async def _over_soon(self, exec_: Exec, program: Program, code: int, outlet: Outlet) -> None:
        await program.finish_within(_PATIENCE)
        self._over(exec_, code, outlet)

    def _over(self, exec_: Exec, code: int, outlet: Outlet) -> None:
        """The exit code first: clients ask for it as soon as the stream has ended."""
        exec_.exit_code = code
        exec_.program = None
        exec_.container.execs.discard(exec_.id)
        self._ended.append(exec_.id)
        if len(self._ended) > _REMEMBERED:
            self._known.pop(self._ended.popleft(), None)
        self._publish(exec_, "exec_die", execID=exec_.id, exitCode=str(code))
        outlet.end()
        if exec_.over is not None and not exec_.over.done():
            exec_.over.set_result(code)

    def _publish(self, exec_: Exec, action: str, **attributes: str) -> None:
        container = exec_.container
        self._events.publish(
            "container",
            action,
            container.id,
            {**container.attributes, "execID": exec_.id, **attributes},
        )


def _exec(container: Container, fields: Fields, rlimits: tuple[Rlimit, ...]) -> Exec:
    args = fields.command("Cmd")
    if not args:
        raise BadRequest("No exec command specified")
    if fields.flag("Privileged"):
        raise CannotEnforce("Privileged=True", "an exec never gets more than its container has")
    tty = fields.flag("Tty")
    rows, cols = console_size(fields.get("ConsoleSize"), "ConsoleSize")
    first = first_process(container, rlimits)
    process = first._replace(
        args=args,
        env=environment(container, tty=tty, added=fields.texts("Env")),
        cwd=fields.text("WorkingDir") or first.cwd,
        user=fields.text("User") or first.user,
        tty=tty,
        rows=rows,
        cols=cols,
        init=False,
    )
    attached = {1: "AttachStdout", 2: "AttachStderr"}
    return Exec(
        id=new_id(),
        container=container,
        process=process,
        streams=frozenset(stream for stream, name in attached.items() if fields.flag(name)),
        takes_stdin=fields.flag("AttachStdin"),
        detach_keys=fields.text("DetachKeys"),
    )
