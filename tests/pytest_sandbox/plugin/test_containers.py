"""The fixture `sandbox` and what the factories make, on a real service."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from pytest_sandbox import connect

if TYPE_CHECKING:
    from tests.conftest import Service

pytestmark = pytest.mark.needs_userns


def test_the_client_lives_for_the_session_and_leaves_nothing(
    live: pytest.Pytester, service: Service
) -> None:
    live.makepyfile(
        """
        def test_run(sandbox):
            sandbox.kept = sandbox.container("host", ["sleep", "1000"]).start()
            assert sandbox.run("host", ["echo", "hello"]).stdout == b"hello\\n"

        def test_same_client(sandbox):
            assert sandbox.kept.status == "running"
            print("id:", sandbox.kept.id)
        """
    )
    result = live.runpytest_subprocess("-s")
    result.assert_outcomes(passed=2)
    (id,) = (line.split()[-1] for line in result.outlines if "id: " in line)
    with connect(service.host, autostart=False) as client:
        assert id not in [container.id for container in client.containers(all=True)]


def test_a_container_with_its_command_environment_and_options(live: pytest.Pytester) -> None:
    live.makepyfile(
        """
        from pytest_sandbox import container

        box = container(command=["sleep", "1000"], env={"A": "b"}, workdir="/var", read_only=True)

        def test_it(box):
            assert box.status == "running"
            assert box.name.startswith("box-")
            assert box.exec(["sh", "-c", "echo $A $PWD $(hostname)"]).stdout == b"b /var box\\n"
            assert box.exec(["touch", "/file"]).exit_code
        """
    )
    live.runpytest_subprocess().assert_outcomes(passed=1)


def test_scopes_by_name_and_by_function(live: pytest.Pytester) -> None:
    live.makeconftest(
        """
        def pytest_addoption(parser):
            parser.addoption("--wide", action="store_true")
        """
    )
    live.makepyfile(
        """
        from pytest_sandbox import container

        def width(fixture_name, config):
            assert fixture_name == "dynamic"
            return "module" if config.option.wide else "function"

        each = container(command=["sleep", "1000"])
        shared = container(command=["sleep", "1000"], scope="module")
        dynamic = container(command=["sleep", "1000"], scope=width)

        def test_one(each, shared, dynamic):
            print(f"ids: {each.id} {shared.id} {dynamic.id}")

        test_two = test_one
        """
    )
    for args, different in [((), [2, 1, 2]), (("--wide",), [2, 1, 1])]:
        result = live.runpytest_subprocess("-s", *args)
        result.assert_outcomes(passed=2)
        rows = [line.partition("ids: ")[2].split() for line in result.outlines if "ids: " in line]
        assert [len(set(column)) for column in zip(*rows, strict=True)] == different


def test_a_fixture_may_have_another_name(live: pytest.Pytester) -> None:
    live.makepyfile(
        """
        from pytest_sandbox import container

        _fixture = container(command=["sleep", "1000"], name="box")

        def test_it(box):
            assert box.status == "running"
        """
    )
    live.runpytest_subprocess().assert_outcomes(passed=1)


def test_volumes_are_filled_once_and_fresh_for_each_test(live: pytest.Pytester) -> None:
    (live.path / "given").mkdir()
    (live.path / "given" / "a").write_text("from the host")
    live.makepyfile(
        """
        from pathlib import Path

        import pytest

        from pytest_sandbox import container, volume

        filled = volume(
            files={"text": "hello", "bytes": b"\\x00", "tree": Path("given")},
            commands=[["sh", "-c", "tr a-z A-Z < text > shouted; pwd > place; echo $A > env"]],
            env={"A": "b"},
        )
        empty = volume()
        box = container(
            command=["sleep", "1000"],
            volumes={"/filled": "filled", "/empty": "empty", "/host:ro": Path("given")},
        )

        @pytest.mark.parametrize("attempt", [1, 2])
        def test_it(box, attempt):
            def sh(script):
                return box.exec(["sh", "-c", script]).stdout

            assert sh("cat /filled/shouted /filled/tree/a /filled/env") == b"HELLOfrom the hostb\\n"
            assert sh("cat /filled/place") == b"/volume\\n"
            assert sh("ls /empty") == b""
            assert sh("cat /host/a") == b"from the host"
            assert box.exec(["touch", "/host/b"]).exit_code
            assert sh("rm -r /filled/*; touch /filled/mine /empty/mine; ls /filled") == b"mine\\n"
        """
    )
    live.runpytest_subprocess().assert_outcomes(passed=2)


def test_a_volume_from_a_recipe_and_from_a_snapshot(live: pytest.Pytester) -> None:
    live.makepyfile(
        """
        import pytest

        from pytest_sandbox import Recipe, container, volume

        by_recipe = volume(recipe=Recipe("host", "/data", files={"/data/file": b"content"}))

        @pytest.fixture
        def by_hand(sandbox):
            snapshot = sandbox.snapshot(Recipe("host", "/data", files={"/data/file": b"content"}))
            with sandbox.volume(snapshot=snapshot) as made:
                yield made

        box = container(command=["sleep", "9"], volumes={"/a": "by_recipe", "/b": "by_hand"})

        def test_it(box):
            assert box.exec(["cat", "/a/file", "/b/file"]).stdout == b"contentcontent"
        """
    )
    live.runpytest_subprocess().assert_outcomes(passed=1)


def test_a_failing_fill_command_fails_the_test_with_its_output(live: pytest.Pytester) -> None:
    live.makepyfile(
        """
        from pytest_sandbox import container, volume

        filled = volume(commands=[["sh", "-c", "echo no luck >&2; exit 3"]])

        def test_it(filled):
            pass
        """
    )
    result = live.runpytest_subprocess()
    result.assert_outcomes(errors=1)
    result.stdout.re_match_lines([".*no luck.*"])
    result.stdout.no_fnmatch_line("*Traceback*")


def test_a_name_that_is_no_volume(live: pytest.Pytester) -> None:
    live.makepyfile(
        """
        import pytest
        from pytest_sandbox import container

        @pytest.fixture
        def number():
            return 7

        wrong = container(command=["true"], volumes={"/a": "number"})
        unknown = container(command=["true"], volumes={"/a": "nothing"})

        def test_wrong(wrong):
            pass

        def test_unknown(unknown):
            pass
        """
    )
    result = live.runpytest_subprocess()
    result.assert_outcomes(errors=2)
    result.stdout.fnmatch_lines(
        ["*fixture 'number' is no volume but int*", "*fixture 'nothing' not found*"]
    )


SERVER = """
import socket, sys
server = socket.socket({family})
server.bind({address})
server.listen()
print("listening", flush=True)
server.accept()
"""


@pytest.mark.parametrize(
    ("ready", "family", "address"),
    [("8000", "socket.AF_INET", "('', 8000)"), ("'/tmp/s'", "socket.AF_UNIX", "'/tmp/s'")],
)
def test_the_test_waits_until_the_container_listens(
    live: pytest.Pytester, ready: str, family: str, address: str
) -> None:
    server = SERVER.format(family=family, address=address)
    live.makepyfile(
        f"""
        import sys
        from pytest_sandbox import container

        def check(box):
            assert box.logs() == b"listening\\n"

        box = container(command=[sys.executable, "-c", {server!r}], ready=[{ready}, check])

        def test_it(box):
            assert box.status == "running"
        """
    )
    live.runpytest_subprocess().assert_outcomes(passed=1)


def test_a_container_that_dies_instead_is_told_at_once(live: pytest.Pytester) -> None:
    live.makepyfile(
        """
        from pytest_sandbox import container

        box = container(command=["sh", "-c", "echo no config; exit 3"], ready=8000, timeout=1000)

        def test_it(box):
            pass
        """
    )
    result = live.runpytest_subprocess()
    result.assert_outcomes(errors=1)
    report = result.stdout.str()
    assert "exit code 3" in report.replace("code: 3", "code 3")
    assert "no config" in report
    assert "Traceback" not in report


def test_a_container_that_never_listens(live: pytest.Pytester) -> None:
    live.makepyfile(
        """
        import pytest
        from pytest_sandbox import container

        box = container(command=["sleep", "1000"], ready=8000, timeout=1000)

        @pytest.mark.sandbox(timeout=0.05)
        def test_it(box):
            pass
        """
    )
    result = live.runpytest_subprocess()
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines(["*8000*"])


def test_the_marker_reaches_the_containers_of_its_node(live: pytest.Pytester) -> None:
    live.makepyfile(
        """
        import pytest
        from pytest_sandbox import container

        pytestmark = pytest.mark.sandbox(env={"A": "module", "B": "module"})
        box = container(command=["sleep", "1000"], env={"A": "factory", "C": "factory"})
        wide = container(command=["sleep", "1000"], scope="module")

        @pytest.mark.sandbox(env={"A": "test"})
        def test_it(box, wide):
            echo = ["sh", "-c", "echo $A $B $C"]
            assert box.exec(echo).stdout == b"test module factory\\n"
            assert wide.exec(echo).stdout == b"module module\\n"
        """
    )
    live.runpytest_subprocess().assert_outcomes(passed=1)


MISSING_IMAGE = """
from pytest_sandbox import container

box = container("no-such-image:1", ["true"])

def test_it(box):
    pass
"""


def test_a_missing_image_is_an_error_with_its_remedy(live: pytest.Pytester) -> None:
    live.makepyfile(MISSING_IMAGE)
    result = live.runpytest_subprocess()
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines(["*no-such-image:1*pulling it failed*to mend it*"])


def test_a_missing_image_is_skipped_on_request(live: pytest.Pytester) -> None:
    live.makepyfile(MISSING_IMAGE)
    result = live.runpytest_subprocess("--sandbox-skip-unavailable", "-rs")
    result.assert_outcomes(skipped=1)
    result.stdout.fnmatch_lines(["SKIPPED * No such image: no-such-image:1*"])


def test_the_image_comes_from_marker_factory_command_line_ini_environment(
    live: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    live.makepyfile(
        """
        import pytest
        from pytest_sandbox import container

        plain = container(command=["true"])
        named = container("factory", ["true"])

        def test_plain(plain): pass
        def test_named(named): pass

        @pytest.mark.sandbox(container_image="marker")
        def test_marked(named): pass
        """
    )

    def images(*args: str) -> list[str]:
        lines = live.runpytest_subprocess(*args).outlines
        return [line.split(":")[1].strip() for line in lines if line.startswith("No such image")]

    monkeypatch.setenv("SANDBOX_CONTAINER_IMAGE", "environment")
    assert images() == ["environment", "factory", "marker"]
    assert images("-o", "sandbox_container_image=ini") == ["ini", "factory", "marker"]
    both = ("-o", "sandbox_container_image=ini", "--sandbox-container-image=line")
    assert images(*both)[0] == "line"


def test_shown_paths(live: pytest.Pytester) -> None:
    (live.path / "tools").mkdir()
    (live.path / "tools" / "tool").touch()
    live.makepyfile(
        """
        from pytest_sandbox import container

        box = container(command=["sleep", "1000"])

        def test_it(sandbox, box, pytestconfig):
            tool = str(pytestconfig.rootpath / "tools" / "tool")
            assert sandbox.run("host", ["ls", tool]).exit_code == 0
            assert box.exec(["ls", tool]).exit_code == 0
            assert sandbox.run("host", ["ls", __file__]).exit_code
        """
    )
    live.runpytest_subprocess("-o", "sandbox_show=tools").assert_outcomes(passed=1)


def test_the_service_starts_by_itself(autostarted: pytest.Pytester) -> None:
    autostarted.makepyfile(
        "def test_it(sandbox): assert sandbox.run('host', ['true']).exit_code == 0"
    )
    result = autostarted.runpytest_subprocess()
    result.assert_outcomes(passed=1)
    result.stdout.fnmatch_lines(["sandbox: unix:///* (not started)"])


def test_no_service_and_none_can_start(
    inner: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    inner.makepyfile("def test_it(sandbox): pass")
    (inner.path / "file").touch()
    monkeypatch.setenv("SANDBOX_HOST", f"unix://{inner.path}/file/docker.sock")
    result = inner.runpytest_subprocess("-rE")
    result.assert_outcomes(errors=1)
    result.stdout.no_fnmatch_line("*Traceback*")


@pytest.mark.needs_xdist
def test_workers_have_a_client_each(live: pytest.Pytester) -> None:
    live.makepyfile(
        """
        import pytest
        from pytest_sandbox import container

        box = container(command=["sleep", "1000"], scope="session")

        @pytest.mark.parametrize("number", range(4))
        def test_it(box, number, record_property):
            assert box.status == "running"
            record_property("box", box.id)
        """
    )
    result = live.runpytest_subprocess("-n2", "--junitxml=report.xml")
    result.assert_outcomes(passed=4)
    report = (live.path / "report.xml").read_text()
    assert len(set(report.split('name="box" value="')[1:])) >= 2


def test_hooks_tell_of_starts_and_stops(live: pytest.Pytester) -> None:
    live.makeconftest(
        """
        def pytest_sandbox_container_started(container, request):
            print(f"started {request.fixturename} {container.status}")

        def pytest_sandbox_container_stopping(container, request):
            print(f"stopping {request.fixturename} {container.status}")
        """
    )
    live.makepyfile(
        """
        from pytest_sandbox import container
        box = container(command=["sleep", "1000"])
        def test_it(box): print("testing")
        """
    )
    live.runpytest_subprocess("-s").stdout.re_match_lines(
        [".*started box running", ".*testing", ".*stopping box running"]
    )
