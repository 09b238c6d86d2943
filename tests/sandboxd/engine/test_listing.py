"""The rows of `docker ps` and their filters."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from sandboxd.errors import BadRequest, NoSuchContainer

pytestmark = [pytest.mark.needs_userns, pytest.mark.needs_busybox]

Run = Callable[[Callable[..., Any]], Any]


def test_filters(bench: Run) -> None:
    async def scenario(b: Any) -> Any:
        await b.make("true", name="created", Labels={"a": "1"})
        exited = await b.up("sh", "-c", "exit 3", name="exited", Labels={"a": "2"})
        await b.engine.wait(exited)
        host = {"Binds": ["data:/v"]}
        up = await b.up("sleep", "99", name="up", HostConfig=host, ExposedPorts={"80/tcp": {}})
        found = {}
        for key, value in (
            ("status", "created"), ("status", "exited"), ("status", "running"),
            ("exited", "3"), ("exited", "0"), ("label", "a"), ("label", "a=2"),
            ("name", "^/up$"), ("name", "^up$"), ("name", "e.*d"), ("id", up.id), ("id", up.id[:5]),
            ("ancestor", "busybox"), ("ancestor", "busybox:latest"), ("ancestor", "other"),
            ("before", "up"), ("since", "created"), ("volume", "data"), ("volume", "/v"),
            ("network", "none"), ("expose", "80"), ("expose", "80/tcp"), ("expose", "81"),
            ("publish", "80"), ("health", "none"), ("is-task", "false"), ("is-task", "true"),
        ):  # fmt: skip
            rows = b.engine.list(all=True, filters={key: [value]})
            found[key, value] = "".join(row["Names"][0][1] for row in rows)
        default = [row["Names"] for row in b.engine.list(filters={})]
        limited = [row["Names"] for row in b.engine.list(limit=2, filters={})]
        return found, default, limited

    found, default, limited = bench(scenario)
    assert found == {
        ("status", "created"): "c", ("status", "exited"): "e", ("status", "running"): "u",
        ("exited", "3"): "e", ("exited", "0"): "", ("label", "a"): "ec", ("label", "a=2"): "e",
        ("name", "^/up$"): "u", ("name", "^up$"): "u", ("name", "e.*d"): "ec",
        **{key: "u" for key in found if key[0] == "id"},
        ("ancestor", "busybox"): "uec", ("ancestor", "busybox:latest"): "uec",
        ("ancestor", "other"): "", ("before", "up"): "ec", ("since", "created"): "ue",
        ("volume", "data"): "u", ("volume", "/v"): "u", ("network", "none"): "uec",
        ("expose", "80"): "u", ("expose", "80/tcp"): "u", ("expose", "81"): "",
        ("publish", "80"): "", ("health", "none"): "uec",
        ("is-task", "false"): "uec", ("is-task", "true"): "",
    }  # fmt: skip
    assert default == [["/up"]]
    assert limited == [["/up"], ["/exited"]]


@pytest.mark.parametrize(
    ("filters", "error"),
    [
        ({"zz": ["1"]}, "invalid filter 'zz'"),
        ({"status": ["zz"]}, "invalid filter 'status=zz'"),
        ({"exited": ["x"]}, "invalid filter 'exited=x'"),
        ({"name": ["("]}, r"invalid filter 'name=\('"),
        ({"is-task": ["perhaps"]}, "invalid filter 'is-task=perhaps'"),
        ({"before": ["nosuch"]}, "No such container: nosuch"),
    ],
)
def test_broken_filters(bench: Run, filters: dict[str, list[str]], error: str) -> None:
    async def scenario(b: Any) -> Any:
        await b.make("true")
        with pytest.raises((BadRequest, NoSuchContainer), match=error):
            b.engine.list(all=True, filters=filters)

    bench(scenario)


def test_a_row(bench: Run) -> None:
    async def scenario(b: Any) -> Any:
        container = await b.up("sleep", "99", name="up", Labels={"a": "b"})
        (row,) = b.engine.list(filters={}, size=True)
        return row, container.id

    row, id = bench(scenario)
    assert row["Id"] == id
    assert row["Names"] == ["/up"]
    assert row["Image"] == "busybox:latest"
    assert row["ImageID"].startswith("sha256:")
    assert row["Command"] == "sleep 99"
    assert row["State"] == "running"
    assert row["Status"].startswith("Up ")
    assert row["Labels"] == {"a": "b"}
    assert row["HostConfig"] == {"NetworkMode": "none"}
    assert row["SizeRootFs"] > 0
