"""Versions of PostgreSQL as data: a marker's list, an option's default, and what is not there."""

from __future__ import annotations

from pathlib import Path

import pytest

from sandbox_fixtures.postgresql.binaries import _complete, _installed, _wheel
from sandbox_fixtures.postgresql.versions import _version, in_version

ABSENT = "9"


def majors() -> list[str]:
    """Those that this machine has, the least first."""
    found = filter(_complete, (*_wheel(), *_installed(Path("/"))))
    return sorted({_version(each).partition(".")[0] for each in found}, key=int)


@pytest.mark.parametrize(
    ("image", "version", "expected"),
    [
        ("postgres", "17", "postgres:17"),
        ("postgres:16-alpine", "17", "postgres:17"),
        ("r.invalid:5000/postgres", "17", "r.invalid:5000/postgres:17"),
        ("r.invalid:5000/postgres:16", None, "r.invalid:5000/postgres:16"),
        ("postgres@sha256:0", "17", "postgres@sha256:0"),
        ("host", "17", "host"),
    ],
)
def test_the_version_is_the_tag_of_an_image(image: str, version: str | None, expected: str) -> None:
    assert in_version(image, version) == expected


@pytest.mark.needs_userns
@pytest.mark.needs_postgres
def test_a_test_runs_once_with_each_version(
    live: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    versions = majors()
    live.makepyfile(
        f"""
        import pytest
        from sandbox_fixtures import postgres

        pg = postgres(scope="module")

        def major(server):
            return server.psql("show server_version").partition(".")[0]

        @pytest.mark.sandbox(postgres={versions!r})
        class TestEach:
            def test_shared(self, pg, request):
                assert request.node.name == f"test_shared[postgres-{{major(pg)}}]"

            def test_own(self, postgres, request):
                assert request.node.name == f"test_own[postgres-{{major(postgres)}}]"

            def test_without(self):
                pass

        @pytest.mark.sandbox(postgres={ABSENT!r})
        def test_absent(postgres):
            pass

        def test_default(postgres):
            assert major(postgres) == {versions[0]!r}
        """
    )
    monkeypatch.setenv("SANDBOX_POSTGRES", versions[0])
    result = live.runpytest_subprocess("--strict-markers", "-rA")
    result.assert_outcomes(passed=2 * len(versions) + 2, errors=1)
    result.stdout.fnmatch_lines(
        [
            f"*no PostgreSQL {ABSENT}: there is {versions[-1]}.* in /*"
            f"(to mend it: apt install postgresql-{ABSENT}, pip install*",
            f"ERROR *::test_absent?postgres-{ABSENT}?*",
        ],
        consecutive=False,
    )
    skipped = live.runpytest_subprocess("--sandbox-skip-unavailable", "-k", "absent")
    skipped.assert_outcomes(skipped=1, deselected=2 * len(versions) + 2)


def test_a_bad_version_fails_the_collection_with_file_and_line(live: pytest.Pytester) -> None:
    path = live.makepyfile(
        """
        import pytest

        @pytest.mark.sandbox(postgres=["16", "latest"])
        def test_it(postgres):
            pass
        """
    )
    result = live.runpytest_subprocess()
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines(
        [f"{path}:3: marker sandbox: postgres=*'latest'* is not a version*"]
    )
