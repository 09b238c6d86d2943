from __future__ import annotations

import pytest

from pytest_sandbox.client.targets import image_part, path_part, with_query
from pytest_sandbox.errors import BadRequest


def test_a_name_cannot_leave_its_place_in_the_path() -> None:
    assert path_part("../a?b#c d\r\n") == "..%2Fa%3Fb%23c%20d%0D%0A"
    assert image_part("r:5/a/b:1@sha256:2 x\n") == "r:5/a/b:1@sha256:2%20x%0A"


@pytest.mark.parametrize("part", [path_part, image_part])
def test_an_empty_name_is_none(part: object) -> None:
    assert callable(part)
    with pytest.raises(BadRequest, match="a name is missing"):
        part("")


def test_queries() -> None:
    assert with_query("/x", None) == "/x"
    assert with_query("/x", {"a": None}) == "/x"
    query = {"t": True, "f": False, "n": 0, "s": "a&b=c ", "l": ["1", "2"], "none": None}
    assert with_query("/x", query) == "/x?t=1&f=0&n=0&s=a%26b%3Dc+&l=1&l=2"
