from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from pytest_sandbox import Conflict, Forbidden, SandboxError, ServiceUnavailable, connect
from pytest_sandbox.autostart import Service
from pytest_sandbox.errors import BadRequest
from sandboxd.linux import process as own_process

OTHER_UID = 12345

needs_service = pytest.mark.needs_userns


class Home:
    """A socket and a state of the test's own, where nothing runs yet."""

    def __init__(self, base: Path) -> None:
        self.base = base
        self.runtime = base / "run"
        self.socket = self.runtime / "docker.sock"
        self.root = base / "state"
        self.log = self.root / "service.log"

    @property
    def host(self) -> str:
        return f"unix://{self.socket}"

    def stop(self) -> None:
        """Stop the service, if one has been started, and wait until its process has ended."""
        service = Service(self.host, autostart=False)
        try:
            with connect(self.host, autostart=False, lease=False) as client:
                pidfd = os.pidfd_open(client.status()["Pid"])
                client.shutdown()
        except SandboxError:
            return
        with open(pidfd, "rb", buffering=0):
            wait_readable(pidfd)
        assert not service.running()


def wait_readable(fd: int) -> None:
    import select

    assert select.select([fd], [], [], 30)[0]


@pytest.fixture
def home(monkeypatch: pytest.MonkeyPatch) -> Iterator[Home]:
    home = Home(Path(tempfile.mkdtemp(prefix="sbx-", dir="/tmp")))
    monkeypatch.setenv("SANDBOX_HOST", home.host)
    monkeypatch.setenv("SANDBOX_ROOT", str(home.root))
    monkeypatch.setenv("SANDBOX_IDLE", "0")
    yield home
    monkeypatch.undo()
    home.stop()
    shutil.rmtree(home.base, ignore_errors=True)  # a killed service leaves what it masked


@needs_service
def test_the_first_call_starts_the_service(home: Home) -> None:
    with connect() as client:
        assert not home.socket.exists()
        assert client.version()["ApiVersion"] == "1.45"
    assert home.socket.stat().st_mode & 0o777 == 0o600
    assert home.runtime.stat().st_mode & 0o777 == 0o700
    assert home.root.stat().st_mode & 0o777 == 0o700
    assert "sandboxd" in home.log.read_text()


@needs_service
def test_the_service_is_nobodys_child_and_leads_no_session(home: Home) -> None:
    with connect() as client:
        pid = client.status()["Pid"]
    assert pid not in children_of(os.getpid())
    assert os.getsid(pid) != os.getsid(0)
    with pytest.raises(ChildProcessError):
        os.waitpid(pid, os.WNOHANG)
    assert str(Path(f"/proc/{pid}/cmdline").read_bytes()).count("sandboxd") == 1


def children_of(pid: int) -> list[int]:
    return [int(each) for each in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


@needs_service
def test_the_service_holds_none_of_our_descriptors(home: Home) -> None:
    reader, writer = os.pipe()
    os.set_inheritable(writer, True)
    with connect() as client:
        client.version()
    os.close(writer)
    wait_readable(reader)
    assert os.read(reader, 1) == b""
    os.close(reader)


@needs_service
def test_a_test_runs_own_warnings_do_not_reach_the_service(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONWARNINGS", "error")
    with connect() as client:
        environ = Path(f"/proc/{client.status()['Pid']}/environ").read_bytes()
    assert b"PYTHONWARNINGS" not in environ
    assert f"SANDBOX_HOST={home.host}".encode() in environ


@needs_service
def test_a_second_start_finds_the_first(home: Home) -> None:
    assert Service().start()
    assert not Service().start()


@needs_service
def test_of_many_who_start_it_at_once_one_wins_and_all_are_served(home: Home) -> None:
    script = "from pytest_sandbox import connect; print(connect().status()['Pid'])"
    processes = [
        subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE) for _ in range(3)
    ]
    mine: list[int] = []

    def here() -> None:
        with connect() as client:
            mine.append(client.status()["Pid"])

    threads = [threading.Thread(target=here) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    pids = {*mine, *(int(process.communicate()[0]) for process in processes)}
    assert len(pids) == 1
    assert len(mine) == 3
    assert home.log.read_text().count("INFO sandboxd sandboxd ") == 1


@needs_service
def test_a_socket_that_a_dead_service_left_is_replaced(home: Home) -> None:
    home.runtime.mkdir(mode=0o700)
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(home.socket))
    with connect() as client:
        assert client.version()


@needs_service
def test_a_client_outlives_its_service(home: Home) -> None:
    with connect() as client:
        first = client.status()["Pid"]
        home.stop()
        assert client.status()["Pid"] != first


@needs_service
def test_what_the_service_says_about_its_failure_is_raised_here(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    Service().start()
    monkeypatch.setenv("SANDBOX_HOST", f"unix://{home.base}/elsewhere/docker.sock")
    with pytest.raises(Conflict, match="another service uses this state") as caught:
        connect().version()
    assert "sandboxctl service stop" in caught.value.mend


def test_a_service_that_breaks_at_its_start_shows_its_log(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SANDBOX_IDLE", "a while")
    with pytest.raises(ServiceUnavailable, match="could not convert string to float") as caught:
        connect().version()
    assert str(home.log) in caught.value.why


def test_without_autostart_nothing_starts(home: Home) -> None:
    with pytest.raises(ServiceUnavailable) as caught:
        connect(autostart=False).version()
    assert str(home.socket) in caught.value.what
    assert "no such socket" in caught.value.why
    assert "sandboxctl service start" in caught.value.mend
    assert not home.runtime.exists()
    assert not Service(autostart=False).running()


def test_a_dead_service_is_told_from_none(home: Home) -> None:
    home.runtime.mkdir(mode=0o700)
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(home.socket))
    with pytest.raises(ServiceUnavailable, match="has ended"):
        connect(autostart=False).version()


@needs_service
def test_the_service_dies_during_a_call(home: Home) -> None:
    with connect() as client:
        pid = client.status()["Pid"]
        timer = threading.Timer(0.3, os.kill, (pid, 9))
        timer.start()
        with pytest.raises(ServiceUnavailable, match="went away during POST /sandbox/run"):
            client.run("host", ["sleep", "60"])
        timer.join()


def test_a_directory_that_lets_others_in_is_refused(home: Home) -> None:
    home.runtime.mkdir(mode=0o777)
    home.runtime.chmod(0o777)
    with pytest.raises(Forbidden, match="mode 0777 lets others in") as caught:
        connect().version()
    assert caught.value.mend == f"chmod 700 {home.runtime}"


@pytest.mark.needs_root
@pytest.mark.parametrize("place", ["runtime", "root"])
def test_a_directory_of_another_owner_is_refused(home: Home, place: str) -> None:
    directory: Path = getattr(home, place)
    directory.mkdir(mode=0o700)
    os.chown(directory, OTHER_UID, OTHER_UID)
    with pytest.raises(Forbidden, match=f"belongs to user id {OTHER_UID}"):
        connect().version()


@pytest.mark.needs_root
def test_a_socket_that_another_user_serves_is_refused(home: Home) -> None:
    home.runtime.mkdir(mode=0o755)
    with socket.socket(socket.AF_UNIX) as impostor:
        impostor.bind(str(home.socket))
        os.seteuid(OTHER_UID)  # SO_PEERCRED gives who listened: unix(7)
        try:
            impostor.listen()
        finally:
            os.seteuid(0)
            # A change of ids takes it, and without it children of later tests hide their /proc.
            own_process.prctl(own_process.PR_SET_DUMPABLE, 1)
        with pytest.raises(Forbidden, match=f"user id {OTHER_UID} serves it"):
            connect().version()


@pytest.mark.needs_ordinary_user
def test_a_directory_that_we_may_not_enter(home: Home) -> None:
    home.runtime.mkdir(mode=0o700)
    home.runtime.chmod(0)
    with pytest.raises(Forbidden, match="Permission denied"):
        connect().version()
    home.runtime.chmod(0o700)


@pytest.mark.parametrize("place", ["runtime", "root"])
def test_a_directory_that_cannot_be_made(home: Home, place: str) -> None:
    directory: Path = getattr(home, place)
    directory.write_text("in the way")
    with pytest.raises(Forbidden, match="it is not a directory"):
        connect().version()


def test_a_parent_that_is_no_directory(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    (home.base / "file").write_text("in the way")
    monkeypatch.setenv("SANDBOX_HOST", f"unix://{home.base}/file/deep/docker.sock")
    with pytest.raises(SandboxError, match="set SANDBOX_HOST"):
        connect().version()


@pytest.mark.parametrize("host", ["tcp://localhost:2375", "unix://relative", "/run/docker.sock"])
def test_only_absolute_unix_sockets_are_served(host: str) -> None:
    with pytest.raises(BadRequest, match="only unix:///absolute/path is served"):
        connect(host)


def test_a_path_that_no_socket_can_have() -> None:
    with pytest.raises(BadRequest, match="longer than the 107 bytes") as caught:
        connect("unix:///tmp/" + "ä" * 60)
    assert "SANDBOX_HOST" in caught.value.mend
