"""A suite's images: fetched before its first test, pinned by `sandbox.lock`, missed offline.

The images come from a registry of our own on loopback, and are not on the service at first.
"""

from __future__ import annotations

import os
import pty
import re
import subprocess
import sys
import tomllib
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from pytest_sandbox import Client, NoSuchImage, connect

if TYPE_CHECKING:
    from tests.conftest import Registry, Service

pytestmark = [pytest.mark.needs_userns, pytest.mark.needs_busybox]

Stock = Callable[..., dict[str, str]]


@pytest.fixture
def client(service: Service) -> Iterator[Client]:
    with connect(service.host, autostart=False, lease=False) as connected:
        yield connected


@pytest.fixture
def stock(client: Client, busybox_tar: Path, registry: Registry) -> Iterator[Stock]:
    """Puts images that differ in a label into the registry, and nowhere else: name to digest."""
    made = set()

    def put(*tags: str, label: str = "") -> dict[str, str]:
        digests = {}
        for tag in tags:
            name = f"{registry.address}/team/box:{tag}"
            client.image_import(busybox_tar, name, changes=[f'LABEL which="{tag}{label}"'])
            (pushed,) = client.image_push(name)
            client.image_remove(name, force=True)
            digests[name] = pushed.digest
            made.add(name)
        return digests

    yield put
    for row in client.images():
        if any(tag.startswith(registry.address) for tag in row.tags):
            client.image_remove(row.id, force=True)


def _is_here(client: Client, name: str) -> bool:
    try:
        client.image_inspect(name)
    except NoSuchImage:
        return False
    return True


def _suite(inner: pytest.Pytester, container: str, recipe: str, marked: str) -> None:
    inner.makepyfile(
        f"""
        import pytest
        from pytest_sandbox import container, volume

        seeded = volume(image={recipe!r}, commands=[["sh", "-c", "echo filled > file"]])
        box = container({container!r}, ["sleep", "1000"], volumes={{"/data": "seeded"}})
        unused = container("registry.invalid/never:1", ["true"])

        def which(client, container):
            image = client.get_container(container.id).inspect()["Image"]
            return client.image_inspect(image)["Config"]["Labels"]["which"]

        def test_factory_and_recipe(sandbox, box):
            assert box.exec(["cat", "/data/file"]).stdout == b"filled\\n"
            print("ran in:", which(sandbox, box))

        @pytest.mark.sandbox(container_image={marked!r})
        def test_marker(sandbox, box):
            print("ran in:", which(sandbox, box))
        """
    )


def _ran_in(result: pytest.RunResult) -> list[str]:
    return sorted(line.partition("ran in: ")[2] for line in result.outlines if "ran in: " in line)


@pytest.mark.parametrize("args", [(), pytest.param(("-n2",), marks=pytest.mark.needs_xdist)])
def test_what_the_tests_need_is_fetched_before_the_first_of_them(
    live: pytest.Pytester, client: Client, stock: Stock, args: tuple[str, ...]
) -> None:
    names = stock("1", "2", "3")
    _suite(live, *names)
    live.makeconftest(
        f"""
        import pytest
        from pytest_sandbox import connect

        @pytest.hookimpl(tryfirst=True)
        def pytest_runtestloop(session):
            if session.items:
                with connect(lease=False) as client:
                    for name in {list(names)}:
                        client.image_inspect(name)
        """
    )
    result = live.runpytest_subprocess(*args)
    result.assert_outcomes(passed=2)
    result.stderr.no_fnmatch_line("*fetching*")
    assert all(_is_here(client, name) for name in names)


def test_only_what_the_chosen_tests_need_is_fetched(
    live: pytest.Pytester, client: Client, stock: Stock
) -> None:
    names = stock("1", "2", "3")
    _suite(live, *names)
    live.runpytest_subprocess("-k", "factory").assert_outcomes(passed=1, deselected=1)
    assert [_is_here(client, name) for name in names] == [True, True, False]


@pytest.mark.parametrize("look", ["--collect-only", "-knobody"])
def test_nothing_is_fetched_where_no_test_runs(
    live: pytest.Pytester, client: Client, stock: Stock, look: str
) -> None:
    names = stock("1", "2", "3")
    _suite(live, *names)
    live.runpytest_subprocess(look)
    assert not any(_is_here(client, name) for name in names)


def test_without_prefetch_a_test_fetches_its_own(
    live: pytest.Pytester, client: Client, stock: Stock
) -> None:
    names = stock("1", "2", "3")
    _suite(live, *names)
    live.makeini("[pytest]\nsandbox_prefetch = false\n")
    live.runpytest_subprocess("-k", "factory").assert_outcomes(passed=1, deselected=1)
    assert [_is_here(client, name) for name in names] == [True, True, False]


def test_an_image_that_cannot_be_had_fails_the_tests_that_need_it(
    live: pytest.Pytester, stock: Stock, registry: Registry
) -> None:
    first, second = stock("1", "2")
    _suite(live, first, second, f"{registry.address}/team/box:missing")
    result = live.runpytest_subprocess()
    result.assert_outcomes(passed=1, errors=1)
    result.stdout.fnmatch_lines(["No such image: *box:missing: and pulling it failed: *"])


def test_a_terminal_sees_one_bar(live: pytest.Pytester, stock: Stock) -> None:
    _suite(live, *stock("1", "2", "3"))
    controller, terminal = pty.openpty()
    run = subprocess.Popen(
        [sys.executable, "-m", "pytest", "-p", "no:cacheprovider"],
        cwd=live.path,
        stdout=subprocess.DEVNULL,
        stderr=terminal,
        env={**os.environ, "TERM": "xterm", "COLUMNS": "120"},
    )
    os.close(terminal)
    shown = bytearray()
    # The last one to close the terminal ends it with EIO: pty(7).
    with suppress(OSError), open(controller, "rb", buffering=0) as screen:
        while piece := screen.read(1 << 16):
            shown += piece
    assert run.wait() == 0
    assert b"fetching 3 images" in shown


def _locked(inner: pytest.Pytester) -> dict[str, dict[str, str]]:
    document = tomllib.loads((inner.path / "sandbox.lock").read_text())
    assert document.pop("version") == 1
    return document


@pytest.mark.parametrize("args", [(), pytest.param(("-n2",), marks=pytest.mark.needs_xdist)])
def test_a_lock_holds_the_images_where_they_are(
    live: pytest.Pytester, client: Client, stock: Stock, args: tuple[str, ...]
) -> None:
    names = stock("1", "2", "3")
    _suite(live, *names)
    result = live.runpytest_subprocess("--sandbox-lock", *args)
    assert result.ret == 0
    result.stdout.fnmatch_lines(["sandbox: *sandbox.lock: 3 images pinned"])
    assert _ran_in(result) == []
    assert _locked(live) == {"images": names}
    assert not any(_is_here(client, name) for name in names)
    text = (live.path / "sandbox.lock").read_text()
    assert text.startswith("# The images of this test suite, by digest. Written by `pytest ")

    moved = stock("1", "2", "3", label=" moved")
    assert not set(moved.values()) & set(names.values())
    result = live.runpytest_subprocess("-s", *args)
    result.assert_outcomes(passed=2)
    assert _ran_in(result) == ([] if args else ["1", "3"])
    assert {name: _is_here(client, f"{name}@{digest}") for name, digest in names.items()} == (
        dict.fromkeys(names, True)
    )

    assert live.runpytest_subprocess("--sandbox-lock", *args).ret == 0
    assert _locked(live) == {"images": moved}
    before, changed = text.splitlines(), (live.path / "sandbox.lock").read_text().splitlines()
    assert sum(old != new for old, new in zip(before, changed, strict=True)) == 3


def test_a_part_of_the_suite_leaves_the_other_pins(live: pytest.Pytester, stock: Stock) -> None:
    names = stock("1", "2", "3")
    _suite(live, *names)
    live.runpytest_subprocess("--sandbox-lock")
    again = stock("1", "2", "3", label=" moved")
    live.runpytest_subprocess("--sandbox-lock", "-k", "factory")
    first, second, third = names
    assert _locked(live)["images"] == {
        first: again[first],
        second: again[second],
        third: names[third],
    }


def test_an_image_from_no_registry_is_pinned_by_its_id(
    live: pytest.Pytester, client: Client, busybox_tar: Path
) -> None:
    image_id = client.image_import(busybox_tar, "suite-own:1", changes=['LABEL which="own"'])
    _suite(live, "suite-own:1", "suite-own:1", "docker.io/library/suite-own:1")
    try:
        assert live.runpytest_subprocess("--sandbox-lock").ret == 0
        assert _locked(live) == {"images": {}, "local": {"suite-own:1": image_id}}
        live.runpytest_subprocess().assert_outcomes(passed=2)
    finally:
        client.image_remove("suite-own:1", force=True)
    result = live.runpytest_subprocess()
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(
        ["*pinned by id and missing*sandboxctl image load*", "*suite-own:1*"]
    )


def test_an_image_that_is_not_pinned_is_an_error_before_the_first_test(
    live: pytest.Pytester, stock: Stock
) -> None:
    first, second, third = stock("1", "2", "3")
    _suite(live, first, second, second)
    live.runpytest_subprocess("--sandbox-lock")
    _suite(live, first, second, third)
    result = live.runpytest_subprocess()
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(
        [
            "*sandbox.lock does not pin:",
            f"*{third}: for container box (*::test_marker)",
            "*to mend it: pytest --sandbox-lock",
        ]
    )


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("version = 2\n", "version 2 is not 1"),
        ("version = 1\n[images]\n'a:1' = 'latest'\n", "is no digest"),
        ("version = 1\n[images]\n'a' = 'sha256:" + "0" * 64 + "'\n", "is written 'a:1'"),
        ("version = 1\n[more]\n", "unknown key"),
        ("not toml", "Expected"),
    ],
)
def test_a_damaged_lock_says_how_to_renew_it(live: pytest.Pytester, text: str, why: str) -> None:
    _suite(live, "a:1", "a:1", "a:1")
    (live.path / "sandbox.lock").write_text(text)
    result = live.runpytest_subprocess()
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    why = why.replace("a:1", "a:latest")
    result.stderr.fnmatch_lines([f"*sandbox.lock: *{why}*", "to mend it: pytest --sandbox-lock"])


@pytest.mark.parametrize("args", [(), pytest.param(("-n2",), marks=pytest.mark.needs_xdist)])
def test_offline_names_all_that_is_missing_and_runs_nothing(
    live: pytest.Pytester, client: Client, stock: Stock, args: tuple[str, ...]
) -> None:
    first, second, third = stock("1", "2", "3")
    client.pull(first)
    _suite(live, first, second, third)
    result = live.runpytest_subprocess("--sandbox-offline", *args)
    result.assert_outcomes()
    assert result.ret == (pytest.ExitCode.INTERRUPTED if args else pytest.ExitCode.USAGE_ERROR)
    output = result.stdout if args else result.stderr
    output.fnmatch_lines(
        [
            "*--sandbox-offline, and these images are missing (sandboxctl pull brings them):*",
            f"  {second}: for recipe of volume seeded (*::test_factory_and_recipe)*",
            f"  {third}: for container box (*::test_marker)*",
        ]
    )
    output.no_fnmatch_line(f"*{first}*")
    assert [_is_here(client, name) for name in (second, third)] == [False, False]
    client.pull(second)
    client.pull(third)
    live.runpytest_subprocess("--sandbox-offline", *args).assert_outcomes(passed=2)


def test_offline_fetches_nothing_by_hand_either(live: pytest.Pytester, stock: Stock) -> None:
    (name,) = stock("1")
    live.makepyfile(
        f"""
        import pytest
        from pytest_sandbox import NoSuchImage

        def test_it(sandbox):
            with pytest.raises(NoSuchImage):
                sandbox.run({name!r}, ["true"])
        """
    )
    live.runpytest_subprocess("--sandbox-offline").assert_outcomes(passed=1)


def test_images_that_are_fetched_by_hand_are_pinned_too(
    live: pytest.Pytester, stock: Stock
) -> None:
    names = stock("1")
    (name,) = names
    _suite(live, name, name, name)
    live.runpytest_subprocess("--sandbox-lock")
    stock("1", label=" moved")
    live.makepyfile(
        f"""
        def test_it(sandbox):
            assert sandbox.run({name!r}, ["true"]).exit_code == 0
            assert sandbox.image_inspect("{name}@{names[name]}")
        """
    )
    live.runpytest_subprocess().assert_outcomes(passed=1)


@pytest.mark.needs_system_python
def test_an_image_of_an_interpreter_is_a_fixture_and_an_image_to_run(
    live: pytest.Pytester, system_python: str
) -> None:
    live.makepyfile(
        f"""
        from pytest_sandbox import container, image

        own_python = image(python={system_python!r})
        box = container(own_python, ["python", "-c", "import time; time.sleep(1000)"])

        def test_value(sandbox, own_python):
            code = "import sys; print('%d.%d' % sys.version_info[:2])"
            assert sandbox.run(own_python, ["python", "-c", code]).stdout == b"{system_python}\\n"

        def test_container(box):
            assert box.exec(["python", "-c", "print(1)"]).stdout == b"1\\n"
        """
    )
    live.runpytest_subprocess().assert_outcomes(passed=2)


def test_an_image_by_its_name_is_fetched_too(
    live: pytest.Pytester, client: Client, stock: Stock
) -> None:
    first, second = stock("1", "2")
    live.makepyfile(
        f"""
        from pytest_sandbox import container, image

        base = image({first!r})
        other = image({second!r})
        box = container(other, ["sleep", "1000"])

        def test_it(base, box, sandbox):
            assert base == {first!r}
            assert sandbox.image_inspect(base)["Config"]["Labels"] == {{"which": "1"}}
        """
    )
    live.runpytest_subprocess("--sandbox-lock")
    assert _locked(live)["images"].keys() == {first, second}
    (live.path / "sandbox.lock").unlink()
    live.runpytest_subprocess().assert_outcomes(passed=1)


def test_all_ways_to_name_an_image_are_found(live: pytest.Pytester) -> None:
    """Offline every image is missed, so that the refusal shows which ones are known."""
    live.makeconftest(
        """
        from pytest_sandbox import Recipe, container, volume
        from sandbox_fixtures import postgres

        base = container("r.invalid/overridden:1", ["true"])
        wide = container("r.invalid/wide:1", ["true"], scope="class")
        filled = volume(recipe=Recipe("r.invalid/recipe:1", "/data"))
        seeded = volume(files={"a": "b"})
        copied = volume(snapshot="sha256:" + "0" * 64)
        database = postgres(image="r.invalid/postgres:1")
        """
    )
    live.makepyfile(
        f"""
        import pytest
        from pytest_sandbox import container

        host = container("host", ["true"])
        by_id = container("sha256:{"0" * 64}", ["true"])
        by_default = container()
        hidden = container("r.invalid/hidden:1", ["true"])

        @pytest.fixture
        def base(base):
            return base

        @pytest.fixture
        def hidden():
            return None

        @pytest.fixture(autouse=True)
        def everywhere(by_default):
            pass

        @pytest.mark.usefixtures("filled", "seeded", "copied", "database", "host", "by_id")
        def test_function(base, hidden):
            pass

        @pytest.mark.sandbox(container_image="r.invalid/class:1")
        class TestClass:
            def test_class(self, wide):
                pass

            @pytest.mark.sandbox(container_image="r.invalid/nearest:1")
            def test_nearest(self, wide, postgres):
                pass
        """
    )
    arguments = ("--sandbox-offline", "--sandbox-container-image=r.invalid/default:1")
    result = live.runpytest_subprocess(*arguments)
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    found = dict(line.strip().split(": for ") for line in result.errlines[1:] if line)
    assert {
        image: re.sub(r" \([^)]*\)", "", what).split(", ") for image, what in found.items()
    } == {
        "r.invalid/class:1": ["container by_default", "container wide"],
        "r.invalid/default:1": ["container by_default", "recipe of volume seeded"],
        "r.invalid/nearest:1": ["container by_default", "postgres postgres"],
        "r.invalid/overridden:1": ["container base"],
        "r.invalid/postgres:1": ["postgres database"],
        "r.invalid/recipe:1": ["recipe of volume filled"],
        f"sha256:{'0' * 64}": ["container by_id"],
    }
