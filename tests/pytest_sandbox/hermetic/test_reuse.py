"""A sandbox is used again where nothing in it can have changed, and only there.

Every way to leave something is tried: one test leaves it, the next but one looks for it. The run
may use one processor, so that no sandbox is got ready ahead: two of them take turns.
"""

from __future__ import annotations

import pytest

pytestmark = pytest.mark.needs_userns

ONE_PROCESSOR = """
import os
os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
"""

CLEAN = """
import os, pytest

@pytest.fixture(scope="session")
def seen():
    return os.environ["SEEN"]

@pytest.mark.parametrize("number", range(3))
def test_nothing(number, capfd):
    os.stat("/tmp"), os.listdir("/"), os.listdir(os.path.expanduser("~"))
    with capfd.disabled():
        print(f"\\nused {os.stat('/proc/self/ns/mnt').st_ino} pid {os.getpid()} by {number}")

@pytest.mark.hermetic(reuse=False)
@pytest.mark.parametrize("number", range(3, 6))
def test_always_fresh(number, capfd):
    with capfd.disabled():
        print(f"\\nused {os.stat('/proc/self/ns/mnt').st_ino} pid {os.getpid()} by {number}")
"""

LEAVES = """
import ctypes, os, pathlib, socket, struct, subprocess, sys, time
import pytest

libc = ctypes.CDLL(None, use_errno=True)
HERE = pathlib.Path(__file__).parent
HOME = pathlib.Path.home()
NOTHING = "nothing"

class File:
    def __init__(self, path):
        self.path = pathlib.Path(path)
    def leave(self):
        self.path.write_text("left")
    def look(self):
        return self.path.exists()

class Emptied(File):
    def leave(self):
        before = os.stat(self.path.parent).st_mtime_ns
        self.path.write_text("left")
        self.path.unlink()
        assert os.stat(self.path.parent).st_mtime_ns != before
    def look(self):
        return NOTHING

class Removed(File):
    def leave(self):
        self.path.unlink()
    def look(self):
        return not self.path.exists()

class Changed(File):
    def leave(self):
        self.path.write_text("left")
    def look(self):
        return self.path.read_text() == "left"

class Mode(File):
    def leave(self):
        self.path.chmod(0o751)
    def look(self):
        return self.path.stat().st_mode & 0o777 == 0o751

class Time(File):
    def leave(self):
        os.utime(self.path, (7, 7))
    def look(self):
        return self.path.stat().st_mtime == 7

class Attribute(File):
    def leave(self):
        os.setxattr(self.path, "user.left", b"x")
    def look(self):
        return "user.left" in os.listxattr(self.path)

class Truncated(File):
    def leave(self):
        with open(self.path, "r+b") as file:
            file.truncate(0)
    def look(self):
        return self.path.stat().st_size == 0

class SharedMemory:
    def leave(self):
        assert libc.shmget(0x77, 4096, 0o1600) >= 0
    def look(self):
        return libc.shmget(0x77, 0, 0) >= 0

class Semaphores:
    def leave(self):
        assert libc.semget(0x77, 1, 0o1600) >= 0
    def look(self):
        return libc.semget(0x77, 0, 0) >= 0

class Messages:
    def leave(self):
        assert libc.msgget(0x77, 0o1600) >= 0
    def look(self):
        return libc.msgget(0x77, 0) >= 0

class Queue:
    def leave(self):
        assert libc.mq_open(b"/left", os.O_CREAT | os.O_RDWR, 0o600, None) >= 0
    def look(self):
        return os.listdir("/dev/mqueue") == ["left"]

class UserKey:
    def leave(self):
        number = {"x86_64": 248, "aarch64": 217}[os.uname().machine]
        libc.syscall(number, b"user", b"left", b"x", ctypes.c_size_t(1), -4)
    def look(self):
        number = {"x86_64": 249, "aarch64": 218}[os.uname().machine]
        return libc.syscall(number, b"user", b"left", None, -4) >= 0

class SessionKey(UserKey):
    def leave(self):
        number = {"x86_64": 248, "aarch64": 217}[os.uname().machine]
        libc.syscall(number, b"user", b"left", b"x", ctypes.c_size_t(1), -3)
    def look(self):
        number = {"x86_64": 249, "aarch64": 218}[os.uname().machine]
        return libc.syscall(number, b"user", b"left", None, -3) >= 0

class WaitingPort:
    def leave(self):
        server = socket.create_server(("127.0.0.1", 5432))
        client = socket.create_connection(("127.0.0.1", 5432))
        other, _ = server.accept()
        other.close()
        assert client.recv(1) == b""
        client.close()
        server.close()
    def look(self):
        with socket.socket() as one:
            try:
                one.bind(("127.0.0.1", 5432))
            except OSError:
                return True
        return False

class Daemon:
    def leave(self):
        reader, writer = os.pipe()
        if os.fork() == 0:
            os.setsid()
            if os.fork() == 0:
                left = socket.socket(socket.AF_UNIX)
                left.bind(b"\\0left")
                left.listen()
                os.write(writer, b"x")
                time.sleep(300)
            os._exit(0)
        os.wait()
        os.read(reader, 1)
    def look(self):
        with socket.socket(socket.AF_UNIX) as client:
            return client.connect_ex(b"\\0left") == 0

class Child(Daemon):
    def leave(self):
        self.left = subprocess.Popen(["sleep", "300"])
    def look(self):
        return len([name for name in os.listdir("/proc") if name.isdigit()]) > 2

WAYS = [
    File("/tmp/left"), File("/var/tmp/left"), File("/dev/shm/left"), File(HOME / "left"),
    File(HERE / "left"), File(HERE / "sub" / "left"), File(HERE.parent / "left"),
    Emptied("/tmp/left"), Emptied("/dev/shm/left"), Emptied(HERE / "left"), Emptied(HOME / "left"),
    Removed(HERE / "given.txt"), Changed(HERE / "given.txt"), Truncated(HERE / "given.txt"),
    Mode("/tmp"), Mode("/dev/shm"), Mode(HOME), Mode(HERE), Mode(HERE / "sub"), Mode(HERE.parent),
    Mode("/run"), Mode("/dev"), Mode("/dev/pts"), Mode("/"), Mode("/etc"), Mode("/dev/mqueue"),
    Time("/tmp"), Time("/var/tmp"), Time(HOME), Time(HERE), Time(HERE / "sub"), Time(HERE.parent),
    Attribute("/tmp"), Attribute(HOME), Attribute(HERE), Attribute(HERE / "given.txt"),
    SharedMemory(), Semaphores(), Messages(), Queue(), UserKey(), SessionKey(), WaitingPort(),
    Daemon(), Child(),
]

def name(way):
    return f"{type(way).__name__}-{getattr(way, 'path', '')}"

@pytest.mark.parametrize("way", WAYS, ids=name)
@pytest.mark.parametrize("step", ["leaves", "between", "looks"], scope="module")
def test_way(way, step):
    if step == "leaves":
        try:
            way.leave()
        except OSError as error:
            pytest.skip(str(error))
    elif step == "looks" and (met := way.look()) is not NOTHING:
        assert not met

"""

IN_PAIRS = """
def pytest_collection_modifyitems(items):
    items.sort(key=lambda item: (item.callspec.indices["way"], item.callspec.indices["step"]))
"""


def _run(hermetic: pytest.Pytester, source: str, conftest: str) -> pytest.RunResult:
    hermetic.makeconftest(ONE_PROCESSOR + conftest)
    (hermetic.path / "given.txt").write_text("given")
    (hermetic.path / "sub").mkdir()
    hermetic.makepyfile(source)
    return hermetic.runpytest_subprocess("--hermetic=function", "-rs")


def test_a_clean_sandbox_is_used_again(hermetic: pytest.Pytester) -> None:
    result = _run(hermetic, CLEAN, "")
    result.assert_outcomes(passed=6)
    used = [line.split() for line in result.outlines if "used " in line]
    sandboxes = [words[words.index("used") + 1] for words in used]
    assert sandboxes[0] in sandboxes[1:3], used
    assert len(set(sandboxes[3:]) - set(sandboxes[:3])) == 3, used
    assert {words[words.index("pid") + 1] for words in used} == {"2"}


def test_nothing_that_a_test_leaves_is_met_by_the_next(hermetic: pytest.Pytester) -> None:
    result = _run(hermetic, LEAVES, IN_PAIRS)
    outcomes = result.parseoutcomes()
    assert outcomes.get("failed", 0) == outcomes.get("errors", 0) == 0, result.stdout.str()
    # An ordinary user may not leave something everywhere.
    assert outcomes.get("skipped", 0) <= 12, result.stdout.str()
    assert outcomes["passed"] >= 120
