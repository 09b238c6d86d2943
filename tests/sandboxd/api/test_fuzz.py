"""Any input is either read or refused with a BadRequest: nothing else comes out of the readers."""

from __future__ import annotations

import contextlib
import json

from hypothesis import given, settings
from hypothesis import strategies as st

from sandboxd.api.bodies import CONTAINER_CREATE, EXEC_CREATE, RECIPE, SANDBOX_RUN, VOLUME_CREATE
from sandboxd.api.query import Query
from sandboxd.api.router import Router
from sandboxd.api.routes import ROUTES
from sandboxd.errors import BadRequest

ROUTER = Router(ROUTES)
SHAPES = (CONTAINER_CREATE, EXEC_CREATE, RECIPE, SANDBOX_RUN, VOLUME_CREATE)

_leaves = st.none() | st.booleans() | st.integers() | st.floats() | st.text()
_keys = st.sampled_from(
    ["Image", "image", "Cmd", "HostConfig", "Binds", "Mounts", "Target", "Labels", "Files", "Env"]
) | st.text(max_size=5)
_values = st.recursive(
    _leaves, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(_keys, inner, max_size=4)
)


@settings(database=None)
@given(_values)
def test_bodies(value: object) -> None:
    for shape in SHAPES:
        with contextlib.suppress(BadRequest):
            read = shape(value, "")
            assert isinstance(read, dict)
            assert shape(read, "") == read


@settings(database=None)
@given(st.text() | st.from_regex(r"(/(containers|images|exec|%[0-9a-f]{2}|\.\.|[a-z:]+)){1,6}"))
def test_paths(path: str) -> None:
    with contextlib.suppress(BadRequest):
        found = ROUTER.find("GET", path)
        assert found is None or all("\0" not in value for value in found[1].values())


@settings(database=None)
@given(st.text(alphabet='a=&%;f0Zilters{}[]":1-T.', max_size=60), _values)
def test_queries(text: str, filters: object) -> None:
    with contextlib.suppress(BadRequest):
        query = Query(text)
        query.flag("f")
        for read in (query.seconds, query.moment):
            with contextlib.suppress(BadRequest):
                read("a")
    with contextlib.suppress(BadRequest):
        from urllib.parse import urlencode

        encoded = urlencode({"filters": json.dumps(filters)})
        for values in Query(encoded).filters(None).values():
            assert all(isinstance(value, str) for value in values)
