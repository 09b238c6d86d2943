"""JSON bodies, read as Go does: nulls and keys in any case (CLI), absent fields (docker-py)."""

from __future__ import annotations

from typing import Any

import pytest

from sandboxd.api.bodies import CONTAINER_CREATE, EXEC_CREATE, RECIPE, VOLUME_CREATE
from sandboxd.errors import BadRequest


def test_keys_are_taken_in_any_case_and_given_in_dockers() -> None:
    body = {"image": "x", "CMD": ["a"], "hostconfig": {"autoremove": True, "BINDS": ["/a:/b"]}}
    assert CONTAINER_CREATE(body, "") == {
        "Image": "x",
        "Cmd": ["a"],
        "HostConfig": {"AutoRemove": True, "Binds": ["/a:/b"]},
    }


def test_keys_that_are_data_keep_their_case() -> None:
    body: dict[str, Any] = {
        "Labels": {"Image": "MiXed"},
        "Volumes": {"/Data": {}},
        "HostConfig": {"PortBindings": {"80/tcp": [{"hostip": "", "HostPort": "5000-5999"}]}},
        "NetworkingConfig": {"EndpointsConfig": {"Default": {"aliases": ["A"]}}},
    }
    assert CONTAINER_CREATE(body, "") == {
        "Labels": {"Image": "MiXed"},
        "Volumes": {"/Data": {}},
        "HostConfig": {"PortBindings": {"80/tcp": [{"HostIp": "", "HostPort": "5000-5999"}]}},
        "NetworkingConfig": {"EndpointsConfig": {"Default": {"Aliases": ["A"]}}},
    }


def test_null_is_the_same_as_absent() -> None:
    body = {"Cmd": None, "Env": None, "Labels": None, "HostConfig": {"Binds": None}}
    assert CONTAINER_CREATE(body, "") == {"HostConfig": {}}


def test_an_empty_list_stays() -> None:
    # MaskedPaths: [] is an order, null is none.
    body: dict[str, Any] = {"HostConfig": {"MaskedPaths": []}}
    assert CONTAINER_CREATE(body, "") == {"HostConfig": {"MaskedPaths": []}}


def test_unknown_fields_are_ignored() -> None:
    assert CONTAINER_CREATE({"Nope": 1, "HostConfig": {"Neither": {"x": []}}}, "") == {
        "HostConfig": {}
    }


def test_a_command_may_be_one_text() -> None:
    assert EXEC_CREATE({"Cmd": "ls"}, "") == {"Cmd": ["ls"]}


def test_a_labels_null_is_an_empty_text() -> None:
    assert VOLUME_CREATE({"Labels": {"a": None}}, "") == {"Labels": {"a": ""}}


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ([], "request body"),
        ("x", "request body"),
        (None, "request body"),
        ({"Tty": "yes"}, "Tty"),
        ({"Tty": 1}, "Tty"),
        ({"Image": 1}, "Image"),
        ({"Env": "A=1"}, "Env"),
        ({"Env": [1]}, "Env"),
        ({"Cmd": {"a": 1}}, "Cmd"),
        ({"Labels": ["a"]}, "Labels"),
        ({"Labels": {"a": 1}}, "Labels"),
        ({"HostConfig": []}, "HostConfig"),
        ({"HostConfig": {"Memory": "1g"}}, "HostConfig.Memory"),
        ({"HostConfig": {"Memory": 1.5}}, "HostConfig.Memory"),
        ({"HostConfig": {"Memory": True}}, "HostConfig.Memory"),
        ({"HostConfig": {"Memory": 2**64}}, "HostConfig.Memory"),
        ({"HostConfig": {"Mounts": [{"Target": 1}]}}, "HostConfig.Mounts.Target"),
        ({"HostConfig": {"PortBindings": {"80/tcp": {}}}}, "HostConfig.PortBindings"),
        ({"Image": "a\0b"}, "Image"),
        ({"Cmd": ["a\0b"]}, "Cmd"),
        ({"Labels": {"a\0": "b"}}, "Labels"),
    ],
)
def test_wrong_types_are_refused_by_name(body: Any, field: str) -> None:
    with pytest.raises(BadRequest) as caught:
        CONTAINER_CREATE(body, "")
    assert field in caught.value.message


def test_a_recipes_files_keep_their_paths() -> None:
    body = {"Files": {"/A/b.SQL": {"content": "aGk=", "MODE": 420}}}
    assert RECIPE(body, "") == {"Files": {"/A/b.SQL": {"Content": "aGk=", "Mode": 420}}}
