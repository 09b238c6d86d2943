"""A fresh, seeded PostgreSQL for one test, up to the answer to its first query."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from benchmarks import lockstep
from benchmarks.alternate import Subject, alternate
from benchmarks.bench import Bench, present
from benchmarks.peers import Absent, postgresql, testcontainers
from benchmarks.result import OURS, TORN_DOWN, Goal, Result, Row

ROWS = 1000
SEED = (
    "CREATE TABLE account (id integer PRIMARY KEY, name text NOT NULL)",
    f"INSERT INTO account SELECT n, 'name ' || n FROM generate_series(1, {ROWS}) AS n",
    "CREATE INDEX account_name ON account (name)",
)
_MEMORY = Path("/dev/shm")
_ON_DISK = ("template clone, wal_log", "template clone, file_copy")
_TEMPLATES = {
    _ON_DISK[0]: (None, "wal_log"),
    _ON_DISK[1]: (None, "file_copy"),
    "template clone, wal_log, data in memory": (_MEMORY, "wal_log"),
    "template clone, file_copy, data in memory": (_MEMORY, "file_copy"),
}
"""Where the server's data lie (None: where ours do), and the strategy of CREATE DATABASE.

The goal is about a server as it is usually set up, on disk, with the faster strategy. One whose
data somebody has put into memory is measured beside it.
"""
_DEFAULT_POLLS = "default polls"
_POLLS = {_DEFAULT_POLLS: testcontainers.POLL, "50 ms polls": 0.05}
_IMAGE = "postgres:latest"

_CONFTEST = f"""\
from sandbox_fixtures import postgres

pg = postgres(load={list(SEED)!r})
"""
_SUITE = f"""\
import psycopg
import pytest


@pytest.mark.parametrize("turn", range(10_000))
def test_database(pg, turn):
    with psycopg.connect(pg.url) as connection:
        assert connection.execute("SELECT count(*) FROM account").fetchone() == ({ROWS},)
"""


def measure(bench: Bench) -> Result:
    result = Result("database", "a fresh, seeded PostgreSQL, ready for its test")
    whole = _Whole({})
    peers: dict[str, Callable[[], Subject]] = {OURS: partial(_ours, bench, whole)}
    for name, (base, strategy) in _TEMPLATES.items():
        peers[name] = partial(_template, bench, name, base, strategy)
    for polls, seconds in _POLLS.items():
        name = f"{testcontainers.NAME}, {polls}"
        peers[name] = partial(_testcontainers, bench, whole, name, seconds)
    subjects = present(result, peers)
    result.rows = alternate(subjects, bench.rounds(50))
    by_default = f"{testcontainers.NAME}, {_DEFAULT_POLLS}"
    templates = [result.median(name) for name in _ON_DISK]
    measured = [median for median in templates if median is not None]
    ours = result.median(OURS)
    fastest = ours / min(measured) if measured and ours is not None else None
    result.goals = [
        Goal(
            "times faster than testcontainers with initdb",
            result.ratio(by_default, OURS),
            40,
            at_most=False,
        ),
        Goal("times a template clone on disk", fastest, 1.0, at_most=True),
    ]
    result.rows += whole.rows()
    return result


@dataclass
class _Whole:
    """The same runs with tear-down, beside the figures that the goals are about."""

    samples: dict[str, list[float]]

    def note(self, name: str, seconds: float) -> None:
        self.samples.setdefault(name, []).append(seconds)

    def rows(self) -> list[Row]:
        """Without the first run of each, which warmed up."""
        return [Row(name + TORN_DOWN, runs[1:]) for name, runs in self.samples.items()]


def _ours(bench: Bench, whole: _Whole) -> Subject:
    """The fixture as a test uses it, in a pytest run that goes in step with the benchmark."""
    postgresql.driver()
    directory = bench.work / "suite"
    directory.mkdir()
    (directory / "conftest.py").write_text(_CONFTEST)
    (directory / "test_database.py").write_text(_SUITE)
    step = bench.stack.enter_context(lockstep.suite(directory, bench.service.environ))

    def run() -> float:
        ready, complete = step()
        whole.note(OURS, complete)
        return ready

    return Subject(OURS, run, note="the fixture `postgres` in a pytest run")


def _template(bench: Bench, name: str, base: Path | None, strategy: str) -> Subject:
    if base is not None and not base.is_dir():
        raise Absent(f"no {base}")
    clones = bench.template_server(base or bench.work, SEED)(strategy)
    return _subject(name, lambda: contextlib.nullcontext(clones.fresh()))


def _testcontainers(bench: Bench, whole: _Whole, name: str, poll: float) -> Subject:
    daemon, image = bench.daemon, bench.work / "postgres.tar"
    if not image.exists():
        postgresql.image_tar(bench.archive, image)
        daemon.import_image(image, _IMAGE, *postgresql.image_changes())
    seed, sockets = bench.work / "seed.sql", bench.work / "sockets"
    seed.write_text("".join(f"{statement};\n" for statement in SEED))
    seed.chmod(0o644)
    sockets.mkdir(exist_ok=True)
    sockets.chmod(0o777)  # the server in the container runs as a user of its own

    def fresh() -> AbstractContextManager[str]:
        return testcontainers.postgres(daemon.host, _IMAGE, seed, sockets, poll)

    return _subject(name, fresh, whole, every=10)


def _subject(
    name: str,
    fresh: Callable[[], AbstractContextManager[str]],
    whole: _Whole | None = None,
    *,
    every: int = 1,
) -> Subject:
    psycopg = postgresql.driver()

    def run() -> float:
        began = time.perf_counter()
        with fresh() as dsn:
            with psycopg.connect(dsn) as connection:
                count = connection.execute("SELECT count(*) FROM account").fetchone()
            ready = time.perf_counter() - began
        assert count == (ROWS,)
        if whole is not None:
            whole.note(name, time.perf_counter() - began)
        return ready

    return Subject(name, run, every=every)
