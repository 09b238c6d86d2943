"""`postgres`, from initdb to a test's own cluster, on a real service."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from pytest_sandbox import connect

if TYPE_CHECKING:
    from tests.conftest import Service

pytestmark = [pytest.mark.needs_userns, pytest.mark.needs_postgres]


def test_the_fixture_of_the_plugin_is_an_empty_cluster(live: pytest.Pytester) -> None:
    live.makepyfile(
        """
        def test_it(postgres):
            assert postgres.psql("select * from pg_tables where schemaname = 'public'") == ""
            assert postgres.psql("select current_user, current_database()") == "postgres|postgres"
            assert postgres.psql("show server_encoding") == "UTF8"
        """
    )
    live.runpytest_subprocess().assert_outcomes(passed=1)


@pytest.mark.needs_psycopg
def test_a_driver_comes_in_by_the_url(live: pytest.Pytester) -> None:
    live.makepyfile(
        """
        import psycopg
        from sandbox_fixtures import postgres

        pg = postgres(load=["create table a (b int)"], database="it's=a \\"shop\\"/?&", user="o me")

        def test_it(pg):
            with psycopg.connect(pg.url) as connection:
                connection.execute("insert into a values (1)")
                assert connection.execute("select current_user, current_database()").fetchone() == (
                    "o me",
                    "it's=a \\"shop\\"/?&",
                )
                assert connection.info.host == pg.host
        """
    )
    live.runpytest_subprocess().assert_outcomes(passed=1)


def test_sql_files_and_functions_fill_it_once(live: pytest.Pytester) -> None:
    (live.path / "schema.sql").write_text(
        "create table word (text text);\ncopy word from stdin;\nfrom a file\n\\.\n"
    )
    live.makepyfile(
        """
        from pathlib import Path
        import pytest
        from sandbox_fixtures import postgres

        def fill(pg):
            with open("calls", "a") as file:
                file.write("called\\n")
            pg.psql("insert into word values ('from a function')")

        pg = postgres(load=[Path("schema.sql"), "insert into word values ('from a text')", fill])

        @pytest.mark.parametrize("attempt", [1, 2])
        def test_it(pg, attempt):
            words = pg.psql("select text from word order by text").splitlines()
            assert words == ["from a file", "from a function", "from a text"]
            pg.psql("drop table word")
        """
    )
    for _ in range(2):
        live.runpytest_subprocess().assert_outcomes(passed=2)
    assert (live.path / "calls").read_text() == "called\n"


def test_a_changed_file_is_loaded_anew(live: pytest.Pytester) -> None:
    live.makepyfile(
        """
        from sandbox_fixtures import postgres

        pg = postgres(load=["schema.sql"])

        def test_it(pg):
            print("value:", pg.psql("select * from a"))
        """
    )
    for value in ("1", "2", "1"):
        (live.path / "schema.sql").write_text(f"create table a as select {value}")
        live.runpytest_subprocess("-s").stdout.re_match_lines([f".*value: {value}"])


def test_each_test_has_a_cluster_of_its_own(live: pytest.Pytester) -> None:
    live.makepyfile(
        """
        import pytest
        from sandbox_fixtures import postgres

        pg = postgres()
        other = postgres()

        @pytest.mark.parametrize("attempt", [1, 2])
        def test_it(pg, other, attempt):
            pg.psql("create table a ()")
            other.psql("create table a ()")
            assert pg.socket != other.socket
        """
    )
    live.runpytest_subprocess().assert_outcomes(passed=2)


@pytest.mark.needs_xdist
def test_workers_seed_once(live: pytest.Pytester) -> None:
    live.makepyfile(
        """
        import pytest
        from sandbox_fixtures import postgres

        def fill(pg):
            with open("calls", "a") as file:
                file.write("called\\n")

        pg = postgres(load=["create table single_flight ()", fill])

        @pytest.mark.parametrize("number", range(6))
        def test_it(pg, number):
            pg.psql("insert into single_flight default values")
            assert pg.psql("select count(*) from single_flight") == "1"
        """
    )
    live.runpytest_subprocess("-n2").assert_outcomes(passed=6)
    assert (live.path / "calls").read_text() == "called\n"


def test_one_cluster_for_a_module(live: pytest.Pytester) -> None:
    live.makepyfile(
        """
        from sandbox_fixtures import postgres

        pg = postgres(load=["create table a ()"], scope="module")

        def test_one(pg):
            pg.psql("insert into a default values")

        def test_two(pg):
            assert pg.psql("select count(*) from a") == "1"
        """
    )
    live.runpytest_subprocess().assert_outcomes(passed=2)


def test_settings_win_over_the_defaults(live: pytest.Pytester) -> None:
    live.makepyfile(
        """
        from sandbox_fixtures import postgres

        pg = postgres(settings={"wal_level": "logical", "max_wal_senders": "3", "work_mem": "9MB"})

        def test_it(pg):
            assert pg.psql("show wal_level; show work_mem; show fsync") == "logical\\n9MB\\noff"
        """
    )
    live.runpytest_subprocess().assert_outcomes(passed=1)


FAILING_LOADS = {
    "sql": ('"create table b (); nonsense"', "nonsense", "syntax error"),
    "file": ('"missing.sql"', "missing.sql", "FileNotFoundError"),
    "function": ("fail", "RuntimeError: on purpose", "fail"),
    "death": ("kill", "the server died while it was seeded", "137"),
}


@pytest.mark.parametrize("kind", FAILING_LOADS)
def test_a_failing_load_is_told_and_seals_nothing(
    live: pytest.Pytester, service: Service, kind: str
) -> None:
    load, *complaints = FAILING_LOADS[kind]
    live.makepyfile(
        f"""
        from sandbox_fixtures import postgres

        def fail(pg):
            raise RuntimeError("on purpose")

        def kill(pg):
            pg.container.kill()
            pg.psql("select 1")

        pg = postgres(load=["create table a ()", {load}])

        def test_it(pg):
            pass
        """
    )
    with connect(service.host, autostart=False) as client:
        before = {snapshot.key for snapshot in client.snapshots()}
        result = live.runpytest_subprocess()
        assert {snapshot.key for snapshot in client.snapshots()} == before
        assert client.containers(all=True) == []
    result.assert_outcomes(errors=1)
    for complaint in complaints:
        assert complaint in result.stdout.str()


def test_a_server_that_cannot_start_is_told_with_its_log(live: pytest.Pytester) -> None:
    live.makepyfile(
        """
        from sandbox_fixtures import postgres

        pg = postgres(settings={"shared_buffers": "no size"}, timeout=1000)

        def test_it(pg):
            pass
        """
    )
    result = live.runpytest_subprocess()
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines(['*invalid value for parameter "shared_buffers"*'])


def test_the_server_log_is_in_a_failing_test(live: pytest.Pytester) -> None:
    live.makepyfile(
        """
        from sandbox_fixtures import postgres

        pg = postgres()

        def test_it(pg):
            pg.psql("select * from nowhere")
        """
    )
    result = live.runpytest_subprocess()
    result.assert_outcomes(failed=1)
    result.stdout.re_match_lines(
        [r"-+ container pg-\w{6} \(running\): log .*", r".*relation \"nowhere\" does not exist.*"]
    )


def test_programs_of_a_named_directory(live: pytest.Pytester) -> None:
    live.makepyfile(
        """
        import pytest
        from pathlib import Path
        from sandbox_fixtures import postgres

        installed = sorted(Path("/usr/lib/postgresql").glob("*/bin"))
        if not installed:
            pytest.skip("no PostgreSQL of the host", allow_module_level=True)
        pg = postgres(binaries=installed[0])

        def test_it(pg):
            version = installed[0].parent.name
            assert pg.psql("show server_version").startswith(version)
        """
    )
    result = live.runpytest_subprocess("-rs")
    assert result.ret == 0 or "no PostgreSQL of the host" in result.stdout.str()


def test_no_programs_at_all(live: pytest.Pytester) -> None:
    live.makepyfile(
        """
        from sandbox_fixtures import postgres

        pg = postgres(binaries="/nowhere")

        def test_it(pg):
            pass
        """
    )
    result = live.runpytest_subprocess()
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines(["*no PostgreSQL programs: /nowhere has no initdb and no *"])
