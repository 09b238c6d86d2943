"""A PostgreSQL for every test: a whole server, already filled, that nobody else uses.

The first run makes the server's data directory, fills it and seals it as a snapshot. From then on
each test starts a server on a copy-on-write clone of it, which takes some milliseconds. Edit
`schema.sql`, or the code below, and the next run makes a new snapshot by itself.
"""

from pathlib import Path

import pytest

from sandbox_fixtures import Postgres, postgres


def add_books(pg: Postgres) -> None:
    """A function may fill it as well: it is called once, with the server running."""
    for title, year in [("Persuasion", 1817), ("Emma", 1815)]:
        pg.psql(f"insert into book values ('{title}', 1, {year})")


# Assigning to a name makes a fixture of that name. It could stand in a conftest.py as well.
pg = postgres(load=[Path("schema.sql"), "insert into author values (1, 'Jane Austen')", add_books])


def test_the_books_are_there(pg: Postgres) -> None:
    assert pg.psql("select title from book order by published") == "Emma\nPersuasion"


@pytest.mark.parametrize("attempt", [1, 2])
def test_changes_stay_in_their_test(pg: Postgres, attempt: int) -> None:
    pg.psql("delete from book where title = 'Emma'")
    assert pg.psql("select count(*) from book") == "1"


def test_any_driver_gets_in(pg: Postgres) -> None:
    """`psycopg.connect(pg.url)`, `create_engine(pg.url_for("postgresql+psycopg"))`…"""
    assert pg.url.startswith("postgresql://postgres@/postgres?host=/")
    assert Path(pg.socket).is_socket()
