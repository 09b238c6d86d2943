"""What a test gets: names and the URL."""

from __future__ import annotations

from dataclasses import FrozenInstanceError
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import pytest

from sandbox_fixtures import Postgres


def postgres(**given: Any) -> Postgres:
    values = {"host": "/run/s/1", "port": 5432, "user": "postgres", "password": ""}
    return Postgres(**{**values, "database": "postgres", "container": None, **given})


def test_the_url() -> None:
    assert postgres().url == "postgresql://postgres@/postgres?host=/run/s/1&port=5432"
    assert postgres().url_for("postgresql+psycopg").startswith("postgresql+psycopg://postgres@/")
    assert postgres().socket == "/run/s/1/.s.PGSQL.5432"


def test_names_are_quoted_in_the_url() -> None:
    url = urlsplit(postgres(user="a@b:c", database="d/e?f", host="/run/a b&c").url)
    assert unquote(url.netloc) == "a@b:c@"
    assert unquote(url.path) == "/d/e?f"
    assert parse_qs(url.query) == {"host": ["/run/a b&c"], "port": ["5432"]}


def test_it_is_frozen() -> None:
    with pytest.raises(FrozenInstanceError):
        postgres().user = "other"  # type: ignore[misc]
