"""One container, from created to removed."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, BinaryIO, Self, TypedDict, Unpack

from pytest_sandbox.client.options import arguments, environment_list
from pytest_sandbox.client.results import RunResult
from pytest_sandbox.client.streams import Attachment, Feed, is_multiplexed, split_frames

if TYPE_CHECKING:
    from pytest_sandbox.client.session import Client


class LogOptions(TypedDict, total=False):
    """Keywords of `Container.logs`."""

    stdout: bool
    stderr: bool
    tail: int | None
    since: float | None
    timestamps: bool


class Container:
    """A container of the service; `with` removes it at the end, running or not.

    Every method raises NoSuchContainer once it is gone and ServiceUnavailable when the service is.
    """

    def __init__(self, client: Client, id: str, name: str = "") -> None:
        self._client = client
        self.id = id
        """64 hexadecimal digits."""
        self._name = name

    @property
    def client(self) -> Client:
        """The client that it was made or found with."""
        return self._client

    @property
    def name(self) -> str:
        """Its unique name, without Docker's leading slash."""
        if not self._name:
            self._name = self.inspect()["Name"].lstrip("/")
        return self._name

    @property
    def status(self) -> str:
        """`created`, `running`, `exited`, `removing` or `dead`, as of now."""
        return str(self.inspect()["State"]["Status"])

    def inspect(self) -> dict[str, Any]:
        """Docker's JSON for the container: `State`, `Config`, `HostConfig`, `Mounts`…"""
        found: dict[str, Any] = self._call("GET", "json")
        return found

    def start(self) -> Self:
        """Start the command; nothing happens when it runs already.

        Raises StartFailed with the `exit_code` that a shell would report: 127 for a command that is
        not there, 126 for one that cannot be executed.
        """
        self._call("POST", "start")
        return self

    def exec(
        self,
        args: Sequence[str],
        *,
        env: Mapping[str, str] | None = None,
        user: str = "",
        workdir: str = "",
        stdin: bytes = b"",
        timeout: float | None = None,
    ) -> RunResult:
        """Run a command in the running container and wait for its end.

        A missing command is no exception but `exit_code` 127, as in Docker, its reason in `stderr`.
        After `timeout` seconds the command is killed and the result says `timed_out`; it is killed,
        too, when this call ends in any other way. Conflict when the container does not run.
        """
        body: dict[str, Any] = {
            "Cmd": arguments(args),
            "Env": environment_list(env or {}),
            "User": user,
            "WorkingDir": workdir,
        }
        return self._client.run_collected(f"/sandbox{self._path('exec')}", body, stdin, timeout)

    def create_exec(
        self,
        args: Sequence[str],
        *,
        env: Mapping[str, str] | None = None,
        user: str = "",
        workdir: str = "",
        stdin: bool = False,
        tty: bool = False,
        size: tuple[int, int] | None = None,
    ) -> str:
        """Prepare a command for `start_exec`; its id. `size`: the terminal's (rows, columns)."""
        body = {
            "Cmd": arguments(args),
            "Env": environment_list(env or {}),
            "User": user,
            "WorkingDir": workdir,
            "AttachStdin": stdin,
            "AttachStdout": True,
            "AttachStderr": True,
            "Tty": tty,
            "ConsoleSize": size,
        }
        return str(self._call("POST", "exec", body=body)["Id"])

    def start_exec(self, exec_id: str, *, tty: bool = False) -> Attachment:
        """Start a prepared command; the stream to it, which the caller closes."""
        return self._client.attach(f"/exec/{exec_id}/start", body={"Detach": False, "Tty": tty})

    def exec_inspect(self, exec_id: str) -> dict[str, Any]:
        """Docker's JSON for a command of `create_exec`: `Running`, `ExitCode`, `Pid`…"""
        found: dict[str, Any] = self._client.call("GET", f"/exec/{exec_id}/json")
        return found

    def attach(
        self, *, stdin: bool = False, stdout: bool = True, stderr: bool = True, logs: bool = False
    ) -> Attachment:
        """The stream to the container's command, from now on; the caller closes it.

        It may be attached before the start, so that nothing is lost. `logs` begins with what has
        been written so far.
        """
        query = {"stream": True, "stdin": stdin, "stdout": stdout, "stderr": stderr, "logs": logs}
        return self._client.attach(self._path("attach"), query)

    def resize(self, rows: int, columns: int) -> None:
        """Tell the command the size of its terminal."""
        self._call("POST", "resize", {"h": rows, "w": columns})

    def logs(
        self,
        *,
        stdout: bool = True,
        stderr: bool = True,
        tail: int | None = None,
        since: float | None = None,
        timestamps: bool = False,
    ) -> bytes:
        """What the command has written, both streams in the order in which the service got it.

        `tail` counts lines from the end, `since` is in seconds since 1970.
        """
        pieces = self.read_log(
            stdout=stdout, stderr=stderr, tail=tail, since=since, timestamps=timestamps
        )
        with pieces:
            return b"".join(data for _, data in pieces)

    def follow(self, **wanted: Unpack[LogOptions]) -> Feed[tuple[int, bytes]]:
        """The log as (1 for stdout or 2 for stderr, bytes), going on until the command has ended.

        Keywords as in `logs`.
        """
        return self.read_log(follow=True, **wanted)

    def read_log(
        self, *, follow: bool = False, **wanted: Unpack[LogOptions]
    ) -> Feed[tuple[int, bytes]]:
        """The log as (1 for stdout or 2 for stderr, bytes), as far as it goes now or to the end."""
        query = {"stdout": True, "stderr": True, "follow": follow, **wanted}
        stream = self._client.stream("GET", self._path("logs"), query)
        return Feed(stream, split_frames(stream, is_multiplexed(stream.head)))

    def wait(self, timeout: float | None = None, *, condition: str = "not-running") -> int:
        """Wait for the command's end; its exit code. TimedOut after `timeout` seconds.

        `condition`: `not-running`, `next-exit` or `removed`.
        """
        answer = self._call("POST", "wait", {"condition": condition}, timeout=timeout)
        return int(answer["StatusCode"])

    def ready(
        self, *, tcp: int | None = None, unix: str | None = None, timeout: float = 30
    ) -> float:
        """Wait until something inside listens on the TCP port or the unix socket; seconds it took.

        Conflict at once, with exit code and last log lines, when the container has died; TimedOut
        after `timeout` seconds.
        """
        query = {"tcp": tcp, "unix": unix, "timeout": timeout}
        answer = self._client.call("GET", f"/sandbox/containers/{self.id}/ready", query)
        return float(answer["Elapsed"])

    def mounts(self) -> list[str]:
        """The mount operations that make up its root file system, in order, one line each."""
        plan: list[str] = self._client.call("GET", f"/sandbox/containers/{self.id}/mounts")
        return plan

    def stop(self, timeout: float = 10, *, signal: str | None = None) -> None:
        """Ask the command to end (SIGTERM, unless the image says otherwise), and kill it after
        `timeout` seconds. Nothing happens when it has ended."""
        self._call("POST", "stop", {"t": round(timeout), "signal": signal})

    def kill(self, sig: str | int = "KILL") -> None:
        """Send a signal; with KILL the command has ended on return. Conflict if it had before."""
        self._call("POST", "kill", {"signal": str(sig)})

    def restart(self, timeout: float = 10) -> None:
        """Stop and start."""
        self._call("POST", "restart", {"t": round(timeout)})

    def rename(self, name: str) -> None:
        """Give it another name. Conflict when the name is taken."""
        self._call("POST", "rename", {"name": name})
        self._name = name

    def commit(
        self,
        reference: str | None = None,
        *,
        message: str = "",
        author: str = "",
        changes: Sequence[str] = (),
        pause: bool = True,
        epoch: int | None = None,
    ) -> str:
        """An image of what it has written on top of its own image; the new image's id.

        `changes` are Dockerfile lines such as `CMD ["sh"]`. Its processes are stopped while its
        files are copied, unless `pause` is false. With `epoch`, seconds since 1970, nothing in the
        image is later, and equal changes give equal images. An image of a container of `host` lies
        on this machine's root and stays on it. Conflict for one that was made with `auto_remove`.
        """
        query = {
            "container": self.id,
            "repo": reference,
            "comment": message,
            "author": author,
            "changes": list(changes),
            "pause": pause,
            "epoch": epoch,
        }
        return str(self._client.call("POST", "/commit", query)["Id"])

    def changes(self) -> list[tuple[str, str]]:
        """What it has changed in its image: pairs of `A`dded, `C`hanged or `D`eleted and a path."""
        found = self._call("GET", "changes") or ()
        return [("CAD"[each["Kind"]], each["Path"]) for each in found]

    def export(
        self,
        target: str | os.PathLike[str] | BinaryIO,
        *,
        progress: Callable[[int], None] | None = None,
    ) -> None:
        """Write its root to a tar, without what is mounted in it."""
        from pytest_sandbox.client.transfers import write_out

        with self._client.stream("GET", self._path("export")) as answer:
            write_out(answer, target, progress)

    def put_archive(self, directory: str, archive: BinaryIO) -> None:
        """Unpack a tar, plain or compressed, in a directory of it that is there already."""
        from pytest_sandbox.client.images import upload
        from pytest_sandbox.client.targets import with_query
        from pytest_sandbox.client.transport import Request

        target = with_query(self._path("archive"), {"path": directory})
        headers = {"Content-Type": "application/x-tar"}
        with upload(archive, None) as blocks:
            self._client.send(Request("PUT", target, blocks, headers))

    def remove(self, force: bool = True) -> None:
        """Remove it and its anonymous volumes. Conflict when it runs and `force` is false."""
        self._call("DELETE", "", {"force": force, "v": True})

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        from pytest_sandbox.errors import Conflict, NotFound

        try:
            self.remove()
        except NotFound:
            pass  # it is gone: its own doing, with auto_remove
        except Conflict:
            self._wait_removed()

    def _wait_removed(self) -> None:
        """Somebody else removes it at this moment: return when that is done."""
        from pytest_sandbox.errors import NotFound

        try:
            self.wait(condition="removed")
        except NotFound:
            pass

    def _path(self, action: str) -> str:
        return f"/containers/{self.id}/{action}" if action else f"/containers/{self.id}"

    def _call(
        self, method: str, action: str, query: Mapping[str, Any] | None = None, **rest: Any
    ) -> Any:
        return self._client.call(method, self._path(action), query, **rest)

    def __repr__(self) -> str:
        return f"<Container {self._name or self.id[:12]}>"
