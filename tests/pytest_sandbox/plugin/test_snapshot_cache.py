"""`sandbox_snapshot_cache`: a seeded database is built once for all machines of a fleet."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from typing import TYPE_CHECKING

import pytest

from pytest_sandbox import connect
from tests.sandboxd.images.registry.conftest import docker_registry

if TYPE_CHECKING:
    from tests.conftest import Registry, Service
    from tests.sandboxd.images.registry.conftest import DockerRegistry

__all__ = ["docker_registry"]

pytestmark = pytest.mark.needs_userns

SEEDED = """
from sandbox_fixtures import postgres

def fill(pg):
    with open("calls", "a") as file:
        file.write("filled\\n")
    pg.psql("insert into word select md5(n::text) from generate_series(1, 1000) n")

pg = postgres(load=["create table word (text text)", fill])

def test_it(pg):
    assert pg.psql("select count(*) from word") == "1000"
    pg.psql("truncate word")
"""

RECIPE = """
from pytest_sandbox import volume

data = volume(commands=[["sh", "-c", "cat /proc/sys/kernel/random/uuid > id"]])

def test_it(sandbox, data):
    done = sandbox.run("host", ["cat", "/data/id"], volumes={data.name: "/data"})
    with open("ids", "ab") as file:
        file.write(done.stdout)
"""


@pytest.fixture(scope="module")
def fleet() -> Iterator[list[Service]]:
    """Two services that have nothing in common."""
    from tests.conftest import Service, _service_directory

    with ExitStack() as held:
        made = [Service(held.enter_context(_service_directory())) for _ in range(2)]
        for machine in made:
            machine.start()
            held.callback(machine.stop)
        yield made


@pytest.fixture
def machines(fleet: list[Service]) -> Iterator[list[Service]]:
    """The two services; no snapshot is left in them after the test."""
    yield fleet
    for machine in fleet:
        with connect(machine.host, autostart=False) as client:
            for snapshot in client.snapshots():
                client.snapshot_remove(snapshot.key)


def session(inner: pytest.Pytester, machine: Service, *options: str) -> pytest.RunResult:
    """A test session of one machine of the fleet."""
    return inner.runpytest_subprocess(f"--sandbox-host={machine.host}", *options)


@pytest.mark.needs_postgres
def test_a_seeded_database_travels(
    inner: pytest.Pytester, machines: list[Service], registry: Registry
) -> None:
    inner.makepyfile(SEEDED)
    cache = f"--sandbox-snapshot-cache={registry.address}/ci/seeds"
    for machine in machines:
        result = session(inner, machine, cache, "--sandbox-snapshot-cache-push")
        result.assert_outcomes(passed=1)
    assert (inner.path / "calls").read_text() == "filled\n"


@pytest.mark.needs_postgres
@pytest.mark.needs_registry
def test_a_seeded_database_travels_through_debians_registry(
    inner: pytest.Pytester, machines: list[Service], docker_registry: DockerRegistry
) -> None:
    inner.makepyfile(SEEDED)
    with open(inner.path / "tox.ini", "a") as ini:
        ini.write(f"\nsandbox_snapshot_cache = {docker_registry.authority}/ci/seeds\n")
        ini.write("sandbox_snapshot_cache_push = true\n")
    for machine in machines:
        session(inner, machine).assert_outcomes(passed=1)
    assert (inner.path / "calls").read_text() == "filled\n"


def test_a_recipe_travels_and_nothing_is_stored_unless_asked(
    inner: pytest.Pytester,
    machines: list[Service],
    registry: Registry,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    inner.makepyfile(RECIPE)
    here, there = machines
    monkeypatch.setenv("SANDBOX_SNAPSHOT_CACHE", f"{registry.address}/ci/seeds")
    session(inner, here).assert_outcomes(passed=1)
    with connect(here.host, autostart=False) as client:
        (made,) = client.snapshots()
        client.snapshot_remove(made.key)
    session(inner, here, "--sandbox-snapshot-cache-push").assert_outcomes(passed=1)
    session(inner, there).assert_outcomes(passed=1)
    first, second, third = (inner.path / "ids").read_text().splitlines()
    assert first != second == third


def test_a_cache_that_is_gone_is_said_once_even_where_warnings_are_errors(
    inner: pytest.Pytester, service: Service, registry: Registry
) -> None:
    registry.stop()
    inner.makepyfile(
        """
        import pytest
        from pytest_sandbox import volume

        one, two = (volume(commands=[["sh", "-c", f"echo {n}.$$ > x"]]) for n in (1, 2))

        @pytest.mark.parametrize("attempt", range(3))
        def test_it(one, two, attempt):
            pass
        """
    )
    name = f"{registry.address}/ci/seeds"
    cache = (f"--sandbox-snapshot-cache={name}", "--sandbox-snapshot-cache-push")
    result = session(inner, service, *cache)
    result.assert_outcomes(passed=3, warnings=1)
    assert result.stdout.str().count(f"the snapshot cache {name} is not used") == 1


def test_a_cache_that_cannot_be_one_fails_at_the_first_fixture(
    inner: pytest.Pytester, service: Service
) -> None:
    inner.makepyfile(RECIPE)
    result = session(inner, service, "--sandbox-snapshot-cache=localhost:1/seeds:tag")
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines(["*the tag is the snapshot's key*"])
