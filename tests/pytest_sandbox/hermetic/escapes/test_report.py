"""What hermetic tests reach beyond tmp_path, seen from outside: whole runs of pytest."""

from __future__ import annotations

import re
import socket
from collections.abc import Iterator
from pathlib import Path
from xml.etree import ElementTree

import pytest

pytestmark = pytest.mark.needs_userns

TESTS = """
    import ctypes, os, pathlib, socket, struct, subprocess, sys, threading

    HERE = pathlib.Path(__file__).parent
    CLIENT = "import socket; print(socket.socket().connect_ex(('192.0.2.9', 443)))"

    def test_quiet(tmp_path):
        (tmp_path / "mine").write_text("x")
        (HERE / "__pycache__").mkdir(exist_ok=True)
        (HERE / "__pycache__" / "x.pyc").write_text("x")
        (HERE / "kept.txt").open("r+").close()
        with socket.create_server(("127.0.0.1", 0)) as server:
            socket.create_connection(server.getsockname()).close()
        os.environ["PASSING"] = "1"
        del os.environ["PASSING"]

    def test_copied_up():
        (HERE / "kept.txt").write_text("as it wos")

    def test_writes():
        (HERE / "kept.txt").write_text("changed")
        (HERE / "gone.txt").unlink()
        subprocess.run(["mkdir", "-p", os.path.expanduser("~/cache/deep")], check=True)
        pathlib.Path("/dev/shm/segment").write_text("x")

    def test_connections():
        assert subprocess.run([sys.executable, "-c", CLIENT]).returncode == 0
        with socket.socket() as client:
            place = struct.pack("!H4s8x", 80, socket.inet_aton("192.0.2.7"))
            address = struct.pack("=H", socket.AF_INET) + place
            ctypes.CDLL(None).connect(client.fileno(), address, 16)
        def refused():
            with socket.socket() as client:
                assert client.connect_ex(("127.0.0.1", 9)) != 0
        thread = threading.Thread(target=refused)
        thread.start()
        thread.join()
        with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as client:
            try:
                client.sendto(b"x", ("2001:db8::1", 514))
            except OSError:
                pass
        with socket.socket(socket.AF_UNIX) as client:
            assert client.connect_ex(str(HERE / "daemon.sock")) != 0

    def test_names():
        try:
            socket.getaddrinfo("Example.org", 80)
        except socket.gaierror as error:
            assert error.errno == socket.EAI_AGAIN
        assert subprocess.run(["getent", "ahosts", "of-a-program.example"]).returncode == 2

    def test_left():
        global process, server
        process = subprocess.Popen(["sleep", "1000"])
        server = socket.create_server(("127.0.0.1", 8123))
        os.environ["LEFT"] = "secret"
        os.chdir("/")

    def test_crash():
        (HERE / "last_words").write_text("x")
        os.abort()
"""

SEEN = """
test_*.py::test_copied_up
  writes      changed */kept.txt
test_*.py::test_writes
  writes      created /dev/shm/segment
  writes      created *home/cache/ (with 1 entry)
  writes      deleted */gone.txt
  writes      changed */kept.txt
test_*.py::test_connections
  connections tried tcp 192.0.2.9:443 (by python*)
  connections tried tcp 192.0.2.7:80 (by python*)
  connections tried tcp 127.0.0.1:9 (refused, by *)
  connections tried udp [[]2001:db8::1]:514 (by python*)
  connections tried unix */daemon.sock (by python*)
test_*.py::test_names
  names       looked up *xample.org
  names       looked up of-a-program.example
test_*.py::test_left
  processes   left sleep 1000
  sockets     left tcp 127.0.0.1:8123
  environment set LEFT
  environment changed working directory (now /)
test_*.py::test_crash
  writes      created */last_words
6 tests reached beyond tmp_path: writes 6, connections 5, names 2, processes 1, sockets 1, *
"""


@pytest.fixture
def project(hermetic: pytest.Pytester) -> Iterator[pytest.Pytester]:
    """With files to change, and a daemon of the host's that listens."""
    (hermetic.path / "kept.txt").write_text("as it was")
    (hermetic.path / "gone.txt").write_text("as it was")
    with socket.socket(socket.AF_UNIX) as daemon:
        daemon.bind(str(hermetic.path / "daemon.sock"))
        daemon.listen()
        hermetic.makepyfile(TESTS)
        yield hermetic


def _outcomes(result: pytest.RunResult) -> dict[str, str]:
    return dict(re.findall(r"::(test_\w+) (PASSED|FAILED|ERROR)", result.stdout.str()))


def test_observing_tells_all_and_changes_nothing(project: pytest.Pytester) -> None:
    plain = project.runpytest_subprocess("--hermetic=function", "-v", "-p", "no:warnings")
    result = project.runpytest_subprocess(
        *("--hermetic=function", "--hermetic-report=observe", "-v", "-p", "no:warnings"),
        "--junitxml=report.xml",
    )
    result.stdout.fnmatch_lines(SEEN.strip().splitlines(), consecutive=True)
    result.stdout.no_fnmatch_line("*secret*")
    assert _outcomes(result) == _outcomes(plain)
    assert _outcomes(result)["test_crash"] == "FAILED"
    assert (project.path / "kept.txt").read_text() == "as it was"
    assert (project.path / "gone.txt").exists()
    properties = _properties(project.path / "report.xml")
    assert properties["test_quiet"] == {}
    assert properties["test_names"].keys() == {"hermetic names"}
    assert "created /dev/shm/segment" in properties["test_writes"]["hermetic writes"]
    sections = result.stdout.str().partition("= FAILURES =")[2].partition("= hermetic report =")[0]
    assert "- hermetic report -" in sections
    assert "writes: created" in sections


def _properties(report: Path) -> dict[str, dict[str, str]]:
    cases = ElementTree.parse(report).getroot().iter("testcase")
    return {
        case.attrib["name"]: {
            each.attrib["name"]: each.attrib["value"]
            for each in case.iter("property")
            if each.attrib["name"].startswith("hermetic")
        }
        for case in cases
    }


SHARED = """
    import os, pathlib, socket, subprocess
    import pytest

    @pytest.fixture(scope="module", autouse=True)
    def server():
        process = subprocess.Popen(["sleep", "1000"])
        os.environ["OF_THE_FIXTURE"] = "1"
        with socket.create_server(("127.0.0.1", 0)):
            yield
        del os.environ["OF_THE_FIXTURE"]
        process.kill()
        process.wait()

    def test_first():
        pathlib.Path("/tmp/first").write_text("x")
        global left
        left = subprocess.Popen(["sleep", "999"])

    def test_second():
        assert pathlib.Path("/tmp/first").exists()
        pathlib.Path("/tmp/first").write_text("y")

    @pytest.mark.xfail
    def test_expected_to_fail():
        pathlib.Path("/tmp/third").write_text("x")
        assert 0

    def test_asks():
        with socket.socket() as client:
            client.connect_ex(("192.0.2.7", 80))

    @pytest.mark.skip
    def test_skipped():
        pass

    def test_last():
        pass
"""


def test_strict_fails_the_kinds_that_are_named(hermetic: pytest.Pytester) -> None:
    """In a sandbox that a module shares, what a fixture takes away in time is not left."""
    hermetic.makepyfile(SHARED)
    options = ("--hermetic", "--hermetic-report=strict", "-p", "no:warnings", "-v")
    result = hermetic.runpytest_subprocess(*options, "-o", "hermetic_strict=writes processes")
    result.assert_outcomes(failed=2, passed=2, xfailed=1, skipped=1, errors=1)
    outcomes = _outcomes(result)
    assert (outcomes["test_first"], outcomes["test_second"]) == ("FAILED", "FAILED")
    assert (outcomes["test_asks"], outcomes["test_last"]) == ("PASSED", "ERROR")
    result.stdout.fnmatch_lines(
        [
            "hermetic report: this is not allowed (hermetic_strict)",
            "  processes: left sleep 999 (since test_*::test_first)",
            "hermetic report: this is not allowed (hermetic_strict)",
            "  writes: created /tmp/first",
            "sandboxctl shell *::test_first*",
            "hermetic report: this is not allowed (hermetic_strict)",
            "  writes: changed /tmp/first",
            "*= hermetic report =*",
            "test_*::test_asks",
            "  connections tried tcp 192.0.2.7:80 (by python*)",
        ]
    )
    result.stdout.no_fnmatch_line("*left sleep 1000*")
    result.stdout.no_fnmatch_line("*OF_THE_FIXTURE*")


@pytest.mark.needs_xdist
def test_workers_tell_the_controller(hermetic: pytest.Pytester) -> None:
    for name in ("one", "two"):
        hermetic.makepyfile(
            **{f"test_{name}": f"def test_it(): open('/tmp/{name}.tmp', 'w').close()"}
        )
    hermetic.makepyfile(test_other="def test_it(): open('/tmp/other', 'w').close()")
    hermetic.makeini(
        "[pytest]\naddopts = -p no:cacheprovider\nsandbox_hermetic = true\n"
        "hermetic_report = observe\nhermetic_ignore = two.* */oth?r\n"
    )
    result = hermetic.runpytest_subprocess("-n2")
    result.assert_outcomes(passed=3)
    result.stdout.fnmatch_lines(
        ["*= hermetic report =*", "test_one.py::test_it", "  writes      created /tmp/one.tmp"]
    )
    result.stdout.fnmatch_lines(["1 test reached beyond tmp_path: writes 1"])


def test_a_test_may_ask_for_the_network(hermetic: pytest.Pytester) -> None:
    hermetic.makepyfile(
        """
        import socket, pytest

        @pytest.mark.hermetic(network="host")
        def test_it():
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
                client.connect_ex(("192.0.2.7", 9))
        """
    )
    result = hermetic.runpytest_subprocess("--hermetic-report=strict")
    result.assert_outcomes(passed=1)
    result.stdout.no_fnmatch_line("*= hermetic report =*")


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        (("--hermetic-report=loud",), "--hermetic-report=loud: it is neither observe nor strict"),
        (("-o", "hermetic_report=x"), "hermetic_report=x: it is neither observe nor strict"),
        (("-o", "hermetic_strict=files"), "hermetic_strict=files: it is none of writes, *"),
        (("-o", "sandbox_keep_count=-1"), "sandbox_keep_count=-1: it is no whole number *"),
        (("-o", "sandbox_keep_size=much"), "sandbox_keep_size=much: it is no number of bytes*"),
    ],
)
def test_unusable_settings_are_named(
    hermetic: pytest.Pytester, options: tuple[str, ...], complaint: str
) -> None:
    result = hermetic.runpytest_inprocess(*options)
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines([f"ERROR: {complaint}"])
