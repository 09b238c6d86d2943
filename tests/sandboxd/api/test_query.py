"""Queries in the spellings that the CLI, docker-py and compose send."""

from __future__ import annotations

import json
from urllib.parse import urlencode

import pytest

from sandboxd.api.query import Query
from sandboxd.errors import BadRequest


def query(**values: str) -> Query:
    return Query(urlencode(values))


@pytest.mark.parametrize("value", ["1", "true", "True", "yes", "anything"])
def test_true(value: str) -> None:
    assert query(force=value).flag("force")


@pytest.mark.parametrize("value", ["", "0", "no", "false", "False", "FALSE", "none", "None"])
def test_false(value: str) -> None:
    # docker-py sends force=False: taking it for true would kill a running container.
    assert not query(force=value).flag("force")


def test_an_absent_flag_has_its_default() -> None:
    assert not Query("").flag("force")
    assert Query("").flag("rm", default=True)


@pytest.mark.parametrize(
    "text", ['{"label":{"a=b":true,"c":true,"d":false}}', '{"label":["a=b","c"]}']
)
def test_filters_of_the_cli_and_of_docker_py(text: str) -> None:
    assert query(filters=text).filters({"label"}) == {"label": ["a=b", "c"]}


@pytest.mark.parametrize("text", ["", "{}", "null"])
def test_no_filters(text: str) -> None:
    assert query(filters=text).filters({"label"}) == {}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("nonsense", "invalid filter"),
        ("[]", "invalid filter"),
        ("[" * 100_000, "invalid filter"),
        ('{"zz":["1"]}', "invalid filter 'zz'"),
        ('{"label":"a"}', "invalid filter 'label'"),
        ('{"label":[1]}', "invalid filter 'label'"),
    ],
)
def test_bad_filters(text: str, message: str) -> None:
    with pytest.raises(BadRequest, match=message):
        query(filters=text).filters({"label"})


def test_events_take_any_filter() -> None:
    text = json.dumps({"zz": ["1"]})
    assert query(filters=text).filters(None) == {"zz": ["1"]}


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("1764000000", 1764000000.0),
        ("1764000000.734208747", 1764000000.734208747),
        ("2025-11-24T16:00:00Z", 1764000000.0),
        ("2025-11-24T16:00:00.734208747Z", 1764000000.734208),
        ("2025-11-24T17:00:00+01:00", 1764000000.0),
        ("0", None),
        ("", None),
    ],
)
def test_moments(value: str, seconds: float | None) -> None:
    assert query(since=value).moment("since") == seconds


@pytest.mark.parametrize("value", ["yesterday", "inf", "nan", "2025-13-01T00:00:00Z"])
def test_bad_moments(value: str) -> None:
    with pytest.raises(BadRequest, match="since"):
        query(since=value).moment("since")


@pytest.mark.parametrize("encoded", ["name=%FF%FE", "name=a%00b", "&".join(["a=1"] * 2000)])
def test_queries_that_are_refused(encoded: str) -> None:
    with pytest.raises(BadRequest, match="invalid query"):
        Query(encoded)


def test_numbers() -> None:
    assert query(limit="-1").integer("limit", 7) == -1
    assert Query("").integer("limit", 7) == 7
    assert query(t="1.5").seconds("t") == 1.5
    assert Query("").seconds("t") is None
    with pytest.raises(BadRequest, match="limit"):
        query(limit="many").integer("limit", 7)
