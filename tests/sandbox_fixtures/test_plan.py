"""The snapshot's key follows from everything that the seeded cluster follows from."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import pytest

from pytest_sandbox.call_site import CallSite
from sandbox_fixtures import Postgres
from sandbox_fixtures.postgresql.binaries import Binaries
from sandbox_fixtures.postgresql.load import Call, SqlFile, SqlText, as_step, digest_of
from sandbox_fixtures.postgresql.plan import EMPTY, ClusterPlan

BINARIES = Binaries("host", "/usr/lib/postgresql/16/bin", "nobody", "sha256:1")


def fill(postgres: Postgres) -> None:
    """A step that a test may name."""


def fill_more(postgres: Postgres, rows: int = 1) -> None:
    """Another one."""


def key(binaries: Binaries = BINARIES, site: Path = Path("/"), **given: Any) -> str:
    load = tuple(as_step(item, CallSite(site)) for item in given.pop("load", ()))
    defaults: dict[str, Any] = {
        "inputs": (), "user": "postgres", "database": "postgres", "settings": {},
        "image": None, "binaries": None, "timeout": None,
    }  # fmt: skip
    return ClusterPlan(load, **{**defaults, **given}).key(binaries)


def test_the_same_plan_has_the_same_key() -> None:
    given: dict[str, Any] = {"load": ["select 1", fill], "settings": {"work_mem": "8MB"}}
    assert key(**given) == key(**given)
    assert key() == EMPTY.key(BINARIES)
    assert key().startswith("sha256:")
    assert len(key()) == 71


def test_what_does_not_change_the_cluster_does_not_change_the_key() -> None:
    elsewhere = Binaries("host", "/opt/pg/bin", "nobody", "sha256:1")
    assert key(elsewhere, timeout=3) == key()


@pytest.mark.parametrize(
    "change",
    [
        {"load": ["select 1"]},
        {"load": ["select 2"]},
        {"load": ["select 1", "select 2"]},
        {"load": [fill]},
        {"load": [fill_more]},
        {"load": [functools.partial(fill_more, rows=2)]},
        {"user": "alice"},
        {"database": "shop"},
        {"settings": {"wal_level": "logical"}},
        {"inputs": (Path(__file__),)},
        {"binaries": Binaries("host", "/usr/lib/postgresql/17/bin", "nobody", "sha256:2")},
    ],
)
def test_every_change_has_its_own_key(change: dict[str, Any]) -> None:
    binaries = change.get("binaries", BINARIES)
    given = {name: value for name, value in change.items() if name != "binaries"}
    others = [key(), key(load=["select 3"]), key(load=[functools.partial(fill_more, rows=3)])]
    assert key(binaries, **given) not in others


def test_a_changed_file_changes_the_key(tmp_path: Path) -> None:
    (tmp_path / "schema.sql").write_text("create table a()")
    before = key(site=tmp_path, load=[Path("schema.sql")])
    assert key(site=tmp_path, load=["schema.sql"]) == before
    (tmp_path / "schema.sql").write_text("create table b()")
    assert key(site=tmp_path, load=["schema.sql"]) != before


def test_a_changed_input_directory_changes_the_key(tmp_path: Path) -> None:
    (tmp_path / "1.py").write_text("a")
    digests = {digest_of(tmp_path)}
    (tmp_path / "2.py").write_text("")
    digests.add(digest_of(tmp_path))
    (tmp_path / "2.py").rename(tmp_path / "3.py")
    digests.add(digest_of(tmp_path))
    (tmp_path / "3.py").write_text("b")
    digests.add(digest_of(tmp_path))
    assert len(digests) == 4


def test_kinds_of_steps(tmp_path: Path) -> None:
    site = CallSite(tmp_path)
    (tmp_path / "a.sql").touch()
    assert as_step("a.sql", site) == SqlFile(tmp_path / "a.sql")
    assert as_step(Path("a.sql"), site) == SqlFile(tmp_path / "a.sql")
    assert as_step("select 1 from a.sql", site) == SqlText("select 1 from a.sql")
    assert as_step(fill, site) == Call(fill)
    with pytest.raises(TypeError, match="5 is neither SQL, a Path nor a function"):
        as_step(5, site)  # type: ignore[arg-type]


def test_a_function_without_source_is_refused() -> None:
    with pytest.raises(TypeError, match="its source cannot be read"):
        key(load=[print])


def test_a_missing_file_is_named() -> None:
    with pytest.raises(FileNotFoundError, match=r"nowhere\.sql"):
        key(load=["nowhere.sql"])
