"""The life of a container that was made: start, end, stop, kill, rename, remove.

Order is a promise to clients. At the end of a program: its last output, the log's end and the
streams' end; then the state; then whoever waits. At a removal: the record, the name, then whoever
waits for that.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import time
from functools import partial
from typing import Final

from sandboxd.engine import network_mode
from sandboxd.engine.assembly import container_spec, rootfs_of
from sandboxd.engine.container import Container
from sandboxd.engine.events import Events
from sandboxd.engine.execs import Execs
from sandboxd.engine.floors import Floors
from sandboxd.engine.health_monitor import HealthMonitor
from sandboxd.engine.limits import Limiter
from sandboxd.engine.mounting import Mounting
from sandboxd.engine.persistence import Persistence
from sandboxd.engine.program import Program
from sandboxd.engine.registry import Registry
from sandboxd.engine.signals import heeds, signal_number
from sandboxd.engine.states import State, Step, after
from sandboxd.errors import Conflict, SandboxError, StartFailed
from sandboxd.launcher.spec import Rootfs

log = logging.getLogger("sandboxd.engine")

STOP_SECONDS: Final = 10.0
"""Between the stop signal and SIGKILL, where neither request nor container says otherwise."""
_NOT_STARTED: Final = 128


class Lifecycle:
    """The only writer of containers' states."""

    def __init__(
        self,
        floors: Floors,
        registry: Registry,
        mounting: Mounting,
        limiter: Limiter,
        persistence: Persistence,
        events: Events,
        execs: Execs,
    ) -> None:
        self._floors = floors
        self._registry = registry
        self._mounting = mounting
        self._limiter = limiter
        self._persistence = persistence
        self._events = events
        self._execs = execs
        self._health = HealthMonitor(execs, events)

    async def start(self, container: Container, *, watch: bool = True) -> bool:
        """Start it; False when it is running already. Answers once the command is executing.

        Raises StartFailed with a shell's exit code, Conflict, or what the mounts raise. Without
        `watch` its output stays in the pipes until `program.watch` or its end.
        """
        async with container.lock:
            if container.running:
                return False
            after(container.state, Step.START, container.name)
            try:
                program = await self._launch(container)
            except (SandboxError, OSError) as error:
                raise self._start_failed(container, error) from error
            self._started(container, program)
        if watch:
            program.watch()
        return True

    async def _launch(self, container: Container) -> Program:
        floors, settings = self._floors, container.settings
        enclosure = self._limiter.enclose(container.id, settings.host.limits)
        try:
            with (
                network_mode.opened(settings.host.network, self._registry, floors.launcher) as net,
                self._mounting.opened(container.mounts) as mounts,
            ):
                spec = container_spec(
                    container,
                    self._rootfs(container),
                    mounts,
                    cgroups=enclosure.directories,
                    rlimits=floors.rlimits,
                )
                program = await Program.start(
                    partial(floors.launcher.start, spec, network=net),
                    container.outlet,
                    stdin=container.stdin,
                    tty=settings.tty,
                )
        except BaseException:
            enclosure.close()
            raise
        container.enclosure = enclosure
        return program

    def _rootfs(self, container: Container) -> Rootfs:
        if container.keeps_writes:
            os.makedirs(container.upper, 0o700, exist_ok=True)
            # The kernel refuses a work directory that a volatile mount left.
            for work in (container.upper / "w", *container.upper.glob("binds/*/w")):
                self._floors.memory.discard(work)
        return rootfs_of(container, self._floors.images)

    def _started(self, container: Container, program: Program) -> None:
        container.program = program
        container.log.begin()
        container.enter(Step.START, started=time.time_ns(), exit_code=0, error="", oom_killed=False)
        program.running.when_ended(partial(self._ended, container, program))
        self._write(container)
        self._publish(container, "start")
        self._health.begin(container)

    def _start_failed(self, container: Container, error: SandboxError | OSError) -> SandboxError:
        """Record it and let go of everyone who waits; returns what to raise."""
        if isinstance(error, OSError):
            error = SandboxError.from_os(f"start container {container.name}", error)
        code = error.exit_code if isinstance(error, StartFailed) else _NOT_STARTED
        container.enter(Step.FAIL, exit_code=code, error=error.message)
        container.outlet.end()
        self._write(container)
        if container.auto_remove:
            self.discard(container, volumes=True)
        return error

    def _ended(self, container: Container, program: Program, code: int) -> None:
        """The first process is dead, and with its pid namespace every other one."""
        program.finish()
        container.program = None
        container.outlet.end()
        container.log.end()
        oom_killed = False
        if container.enclosure:
            oom_killed = container.enclosure.close()
            container.enclosure = None
        now = time.time_ns()
        container.enter(Step.EXIT, exit_code=code, finished=now, oom_killed=oom_killed)
        self._write(container)
        if oom_killed:
            self._publish(container, "oom")
        seconds = (now - container.facts.started) // 1_000_000_000
        self._publish(container, "die", exitCode=str(code), execDuration=str(seconds))
        container.settle("not-running", "next-exit")
        kept = container.removal_begun or container.restarting
        if container.auto_remove and not kept:
            self.discard(container, volumes=True)

    async def stop(
        self, container: Container, timeout: float | None = None, signal_name: str | None = None
    ) -> bool:
        """Stop signal, then SIGKILL after `timeout` seconds (below zero: never). False if stopped.

        As in Docker the first process gets no default action of a signal, being pid 1. One that
        neither catches nor blocks the stop signal cannot see it, so no time is lost in waiting.
        """
        settings = container.settings
        name = signal_name or settings.stop_signal or "TERM"
        number = signal_number(name)
        if timeout is None:
            timeout = STOP_SECONDS if settings.stop_timeout is None else settings.stop_timeout
        if not container.running:
            return False
        ended = container.wait("next-exit")
        if not self._heeds(container, number):
            timeout = 0
        self._signal(container, number)
        await asyncio.wait([ended], timeout=None if timeout < 0 else timeout)
        if not ended.done():
            self._signal(container, signal.SIGKILL)
            await ended
        self._publish(container, "stop")
        return True

    async def kill(self, container: Container, signal_name: str) -> None:
        """Send a signal; SIGKILL answers after the death. Raises Conflict if it is not running."""
        number = signal_number(signal_name)
        if not container.running:
            raise Conflict(
                f"Cannot kill container: {container.name}: container {container.id} is not running"
            )
        ended = container.wait("next-exit")
        self._signal(container, number)
        if number == signal.SIGKILL:
            await ended

    async def restart(self, container: Container, timeout: float | None = None) -> None:
        """Stop it if it runs, then start it."""
        container.restarting = True
        try:
            await self.stop(container, timeout)
            await self.start(container)
        finally:
            container.restarting = False
        self._publish(container, "restart")

    def rename(self, container: Container, name: str) -> None:
        """Raises BadRequest and Conflict; then nothing has changed."""
        old = container.name
        self._registry.rename(container, name)
        self._write(container)
        self._publish(container, "rename", oldName=f"/{old}")

    async def remove(
        self, container: Container, *, force: bool = False, volumes: bool = False
    ) -> None:
        """Remove it, killing it first with `force`. Answers when its name is free.

        Raises Conflict when it runs and may not be killed, or when someone else removes it.
        """
        if container.removal_begun or container.state is State.REMOVED:
            raise Conflict(f"removal of container {container.name} is already in progress")
        if container.running and not force:
            after(State.RUNNING, Step.REMOVE, container.name)
        container.removal_begun = True
        try:
            async with container.lock:
                if container.running:
                    ended = container.wait("next-exit")
                    self._signal(container, signal.SIGKILL)
                    await ended
                self.discard(container, volumes=volumes or container.auto_remove)
        finally:
            container.removal_begun = False

    def discard(self, container: Container, *, volumes: bool) -> None:
        """Make a container that does not run vanish. When this raises, it is dead."""
        if container.state is State.REMOVED:
            return
        container.enter(Step.REMOVE)
        self._discard_rest(container, volumes=volumes)

    def finish_removal(self, container: Container) -> None:
        """Go on with a removal that an earlier service began; what prevents it is logged."""
        try:
            if container.state is State.DEAD:
                container.enter(Step.REMOVE)
            self._discard_rest(container, volumes=False)
        except (SandboxError, OSError) as error:
            log.error("container %s cannot be removed: %s", container.id, error)

    def _discard_rest(self, container: Container, *, volumes: bool) -> None:
        try:
            self._persistence.forget(container)
        except (SandboxError, OSError) as error:
            container.enter(Step.STUCK, error=f"{error}")
            raise
        self._registry.drop(container)
        self._execs.forget(container)
        container.outlet.end()
        container.log.close()
        if container.stdin:
            container.stdin.abandon()
        if volumes:
            self._mounting.remove_anonymous(container.mounts)
        if container.lease:
            container.lease.containers.pop(container.id, None)
        container.enter(Step.GONE)
        self._publish(container, "destroy")
        container.settle("not-running", "next-exit", "removed")

    def _heeds(self, container: Container, number: int) -> bool:
        return container.program is None or heeds(container.program.running.pid, number)

    def _signal(self, container: Container, number: int) -> None:
        if container.program and container.program.kill(number):
            self._publish(container, "kill", signal=str(int(number)))

    def _write(self, container: Container) -> None:
        """Once for each transition; a full disk must not keep a container from ending."""
        try:
            self._persistence.write(container)
        except SandboxError as error:
            log.error("the state of container %s is not written: %s", container.id, error)

    def _publish(self, container: Container, action: str, **attributes: str) -> None:
        self._events.publish(
            "container", action, container.id, {**container.attributes, **attributes}
        )
