"""The routing table: paths as Docker's clients write them."""

from __future__ import annotations

import pytest

from sandboxd.api import containers, images, volumes
from sandboxd.api.router import Router
from sandboxd.api.routes import ROUTES
from sandboxd.errors import BadRequest


@pytest.fixture(scope="module")
def router() -> Router:
    return Router(ROUTES)


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("/images/busybox/json", "busybox"),
        ("/images/docker.io/library/busybox:1.36/json", "docker.io/library/busybox:1.36"),
        ("/images/r:5000/a/b@sha256:00/json", "r:5000/a/b@sha256:00"),
        ("/images/docker.io%2Flibrary%2Fx/json", "docker.io/library/x"),
        ("/images/json/json", "json"),
    ],
)
def test_image_names_hold_slashes_and_colons(router: Router, path: str, name: str) -> None:
    assert router.find("GET", path) == (images.inspect, {"name": name})


@pytest.mark.parametrize(
    ("path", "id_"),
    [
        ("/containers/abc/json", "abc"),
        ("/containers//abc/json", "/abc"),
        ("/containers/%2Fabc/json", "/abc"),
        ("/containers/a%2Fb/json", "a/b"),
        ("/containers/../json", ".."),
        ("/containers/%2e%2e/json", ".."),
        ("/containers/json/json", "json"),
    ],
)
def test_a_containers_name_is_one_segment(router: Router, path: str, id_: str) -> None:
    assert router.find("GET", path) == (containers.inspect, {"id": id_})


def test_literal_paths_win(router: Router) -> None:
    assert router.find("GET", "/images/json") == (images.list_, {})
    assert router.find("POST", "/volumes/prune") == (volumes.prune, {})


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/containers/a/b/json"),
        ("GET", "/containers/json/"),
        ("PUT", "/containers/json"),
        ("GET", "/"),
        ("GET", ""),
        ("GET", "//containers/json"),
        ("GET", "/images//json/x"),
        ("get", "/version"),
    ],
)
def test_what_is_not_in_the_table(router: Router, method: str, path: str) -> None:
    assert router.find(method, path) is None


@pytest.mark.parametrize("path", ["/containers/%FF/json", "/containers/a%00b/json"])
def test_names_that_no_object_can_have(router: Router, path: str) -> None:
    with pytest.raises(BadRequest, match="invalid path"):
        router.find("GET", path)


def test_no_route_is_there_twice() -> None:
    seen = [(route.method, route.path) for route in ROUTES]
    assert len(seen) == len(set(seen))
