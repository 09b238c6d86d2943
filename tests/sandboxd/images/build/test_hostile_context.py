"""Contexts and bases that try to reach outside. A canary lies beside each root."""

from __future__ import annotations

import os
import tarfile
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest

from sandboxd.errors import BadRequest, SandboxError
from sandboxd.images.build.context import Context, unpack_context

from .conftest import archive

pytestmark = [pytest.mark.needs_userns, pytest.mark.outer]

SECRET = "the host's secret"


@pytest.fixture
def canary(tmp_path: Path) -> Path:
    path = tmp_path / "canary"
    path.mkdir()
    (path / "secret").write_text(SECRET)
    return path


def untouched(canary: Path) -> bool:
    return [each.name for each in canary.iterdir()] == ["secret"] and (
        canary / "secret"
    ).read_text() == SECRET


@pytest.mark.parametrize(
    "member",
    [{"name": "../x"}, {"name": "a/../../x"}, {"name": "/../x"}, {"name": "a/.."}],
)
def test_a_name_that_climbs_is_refused(
    workshop: Callable[..., Any], member: dict[str, str], canary: Path
) -> None:
    with workshop() as shop:
        with pytest.raises(BadRequest, match=r"\.\."):
            shop.build("FROM scratch\nCOPY . /", tar=archive([(member["name"], "x")]))
        assert untouched(canary)
        assert os.listdir(shop.store.root / "staging") == []


def test_writing_through_a_link_stays_inside(workshop: Callable[..., Any], canary: Path) -> None:
    members: list[tuple[str, Any]] = [("l", canary), ("l/new", "x"), ("f", "1")]
    with workshop() as shop:
        shop.build("FROM scratch\nCOPY f /", tar=archive(members))
    assert untouched(canary)


def test_a_hard_link_out_is_refused(workshop: Callable[..., Any], canary: Path) -> None:
    buffer = BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        info = tarfile.TarInfo("hard")
        info.type, info.linkname = tarfile.LNKTYPE, str(canary / "secret")
        tar.addfile(info)
    with workshop() as shop, pytest.raises(BadRequest, match="not in the archive"):
        shop.build("FROM scratch\nCOPY . /", tar=buffer.getvalue())


@pytest.mark.parametrize("target", ["{canary}/secret", "../canary/secret", "/proc/self/environ"])
def test_a_source_that_is_a_link_out_finds_nothing(
    workshop: Callable[..., Any], canary: Path, target: str
) -> None:
    with workshop() as shop:
        shop.put("l", Path(target.format(canary=canary)))
        with pytest.raises(BadRequest, match="not found in build context"):
            shop.build("FROM scratch\nCOPY l /")


def test_a_directory_on_the_way_that_is_a_link_out(
    workshop: Callable[..., Any], canary: Path
) -> None:
    with workshop() as shop:
        shop.put("way", canary)
        with pytest.raises(BadRequest, match="not found in build context"):
            shop.build("FROM scratch\nCOPY way/secret /")
        with pytest.raises(BadRequest, match="no source files"):
            shop.build("FROM scratch\nCOPY way/* /")


def test_a_link_out_in_a_directory_is_copied_as_the_link(
    workshop: Callable[..., Any], canary: Path
) -> None:
    with workshop() as shop:
        shop.put("d/l", canary / "secret")
        tree = shop.tree(shop.build("FROM scratch\nCOPY d /"))
        assert tree == {"l": f"-> {canary}/secret"}


def test_copying_over_a_link_out_of_the_image(workshop: Callable[..., Any], canary: Path) -> None:
    """The base image is hostile: its links name places of the host."""
    with workshop() as shop:
        shop.base("evil", [("to", canary), ("file", canary / "secret"), ("up", Path("../../.."))])
        shop.put("f", "new")
        image = shop.build(
            "FROM evil\nCOPY f /to/\nCOPY f /file\nCOPY f /up/x\nWORKDIR /to/deeper\n"
        )
        assert untouched(canary)
        inside = str(canary).lstrip("/")
        tree = shop.tree(image)
        assert tree[f"{inside}/f"] == tree[f"{inside}/secret"] == tree["x"] == "new"
        assert tree[f"{inside}/deeper"] is None


def test_copying_from_a_link_out_of_a_stage(workshop: Callable[..., Any], canary: Path) -> None:
    """CVE-2024-23652 and its kin: another stage's link must not be the host's."""
    with workshop() as shop:
        shop.base("evil", [("l", canary)])
        with pytest.raises(BadRequest, match="does not exist"):
            shop.build("FROM scratch\nCOPY --from=evil /l/secret /")


def test_owners_from_a_link_out_of_the_image(workshop: Callable[..., Any], canary: Path) -> None:
    with workshop() as shop:
        (canary / "secret").write_text("me:x:1:1::/:\n")
        shop.base("evil", [("etc", None), ("etc/passwd", canary / "secret")])
        shop.put("f", "x")
        with pytest.raises(BadRequest, match="no 'me' in /etc/passwd"):
            shop.build("FROM evil\nCOPY --chown=me f /")


def test_bindings_of_a_link_out(workshop: Callable[..., Any], canary: Path) -> None:
    with workshop() as shop:
        shop.put("l", canary)
        with pytest.raises(BadRequest, match="--mount"):
            shop.build("FROM base\nRUN --mount=type=bind,source=l,target=/x a")


@pytest.mark.parametrize("name", ["Dockerfile", "sub/Dockerfile"])
def test_a_dockerfile_that_is_a_link_out(
    workshop: Callable[..., Any], canary: Path, name: str
) -> None:
    with workshop() as shop:
        shop.put(name, canary / "secret")
        with pytest.raises(BadRequest, match="Cannot locate specified Dockerfile"):
            Context.open(shop.context, name)


@pytest.mark.parametrize("name", ["../canary/secret", "/proc/self/status"])
def test_a_dockerfiles_name_that_leads_out(
    workshop: Callable[..., Any], canary: Path, name: str
) -> None:
    with workshop() as shop, pytest.raises(BadRequest, match="Cannot locate"):
        Context.open(shop.context, name)


def test_a_fifo_blocks_nobody(workshop: Callable[..., Any]) -> None:
    with workshop() as shop:
        os.mkfifo(shop.context / "Dockerfile")
        with pytest.raises(BadRequest, match="not a regular file"):
            Context.open(shop.context)
        (shop.context / "Dockerfile").unlink()
        os.mkfifo(shop.context / "pipe")
        assert "pipe" in _names(shop, shop.build("FROM scratch\nCOPY pipe /"))


def _names(shop: Any, image: Any) -> list[str]:
    return os.listdir(shop.images.lowers(image)[0])


def test_an_ignore_file_that_is_malformed(workshop: Callable[..., Any]) -> None:
    with workshop() as shop:
        shop.files(Dockerfile="FROM scratch", _dot_dockerignore="a[\n")
        with pytest.raises(BadRequest, match=r"\.dockerignore"):
            Context.open(shop.context)


RULES = [
    ("", ["a", "d", "d/x", "d/y", "k.log"]),
    ("d\n", ["a", "k.log"]),
    ("*.log\n", ["a", "d", "d/x", "d/y"]),
    ("# d\n\n/d/\n", ["a", "k.log"]),
    ("**/x\n", ["a", "d", "d/y", "k.log"]),
    ("d\n!d/y\n", ["a", "d", "d/y", "k.log"]),
    ("*\n!a\n", ["a"]),
    ("d/*\n", ["a", "d", "k.log"]),
    ("?\n", ["k.log"]),
]
"""What .dockerignore says, and what of the context is left."""


def test_dockerignore(workshop: Callable[..., Any]) -> None:
    with workshop() as shop:
        for rules, left in RULES:
            shop.files(a="1", d__x="2", d__y="3", k_dot_log="4", _dot_dockerignore=rules)
            tree = shop.tree(shop.build("FROM scratch\nCOPY . /"))
            assert sorted(set(tree) - {".dockerignore"}) == left, rules


def test_an_ignore_file_for_one_dockerfile_goes_first(workshop: Callable[..., Any]) -> None:
    with workshop() as shop:
        shop.files(My="FROM scratch", My_dot_dockerignore="a\n", _dot_dockerignore="b\n")
        context = Context.open(shop.context, "My")
        assert (context.wanted(("a",), False), context.wanted(("b",), False)) == (False, True)


def test_what_is_ignored_cannot_be_named_either(workshop: Callable[..., Any]) -> None:
    with workshop() as shop:
        shop.files(d__secret="s", _dot_dockerignore="d/secret\n")
        with pytest.raises(BadRequest, match=r"excluded by \.dockerignore"):
            shop.build("FROM scratch\nCOPY d/secret /")


@pytest.mark.parametrize("data", [b"", b"x" * 2000, archive([("f", "x")])[:300]])
def test_a_damaged_archive_is_refused(workshop: Callable[..., Any], data: bytes) -> None:
    with workshop() as shop:
        if not data:
            # An empty body is an empty context, as for `docker build -`.
            shop.build("FROM base\nRUN a", tar=data)
            return
        with pytest.raises(SandboxError), shop.store.staging("build") as staged:
            unpack_context(BytesIO(data), staged, shop.store.idmap)
        assert os.listdir(shop.store.root / "staging") == []


def test_a_whiteout_in_a_context_hides_nothing_of_the_image(workshop: Callable[..., Any]) -> None:
    members: list[tuple[str, Any]] = [("d", None), ("d/.wh.etc", ""), ("d/f", "x")]
    with workshop() as shop:
        tree = shop.tree(shop.build("FROM base\nCOPY d /", tar=archive(members)))
        assert tree["f"] == "x"
        assert "etc/passwd" in tree
