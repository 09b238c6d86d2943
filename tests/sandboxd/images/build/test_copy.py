"""COPY and ADD: what https://docs.docker.com/reference/dockerfile/#copy says, case by case."""

from __future__ import annotations

import gzip
import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sandboxd.errors import BadRequest, CannotEnforce

from .conftest import archive

pytestmark = [pytest.mark.needs_userns, pytest.mark.outer]

FILES = {"a.txt": "A", "b.txt": "B", "dir/c": "C", "dir/sub/d": "D", "other/e": "E"}


def copied(shop: Any, *lines: str, base: str = "scratch") -> dict[str, Any]:
    for name, content in FILES.items():
        shop.put(name, content)
    tree: dict[str, Any] = shop.tree(shop.build("\n".join([f"FROM {base}", *lines])))
    return tree


WHERE = [
        ("COPY a.txt /", {"a.txt": "A"}),
        ("COPY a.txt /x", {"x": "A"}),
        ("COPY a.txt /x/", {"x": None, "x/a.txt": "A"}),
        ("COPY a.txt x/", {"x": None, "x/a.txt": "A"}),
        ("COPY a.txt /x/y/z", {"x": None, "x/y": None, "x/y/z": "A"}),
        ("COPY a.txt b.txt /x/", {"x": None, "x/a.txt": "A", "x/b.txt": "B"}),
        ("COPY a.txt .", {"a.txt": "A"}),
        ("COPY /a.txt ./a.txt/../b", {"b": "A"}),
        ("COPY dir /x", {"x": None, "x/c": "C", "x/sub": None, "x/sub/d": "D"}),
        ("COPY dir/ /x/", {"x": None, "x/c": "C", "x/sub": None, "x/sub/d": "D"}),
        ("COPY dir/sub other /x/", {"x": None, "x/d": "D", "x/e": "E"}),
        ("COPY *.txt /", {"a.txt": "A", "b.txt": "B"}),
        ("COPY ?.txt /x/", {"x": None, "x/a.txt": "A", "x/b.txt": "B"}),
        ("COPY [b-z].txt /x", {"x": "B"}),
        ("COPY [^a].txt /x", {"x": "B"}),
        ("COPY d*/s* /x/", {"x": None, "x/d": "D"}),
        ("COPY no* a.txt /x/", {"x": None, "x/a.txt": "A"}),
        ('COPY ["a.txt", "/x y"]', {"x y": "A"}),
        ("COPY --parents dir/sub/d /x/", {"x": None, "x/dir": None, "x/dir/sub": None,
                                          "x/dir/sub/d": "D"}),
        ("COPY --parents dir/./sub/d /x/", {"x": None, "x/sub": None, "x/sub/d": "D"}),
        ("COPY --exclude=**/d dir /x/", {"x": None, "x/c": "C", "x/sub": None}),
        ("COPY --exclude=b* *.txt /x/", {"x": None, "x/a.txt": "A"}),
        ("COPY --link a.txt /x/", {"x": None, "x/a.txt": "A"}),
        ("WORKDIR /w/v\nCOPY a.txt x", {"w": None, "w/v": None, "w/v/x": "A"}),
        ("WORKDIR /w\nCOPY a.txt ../", {"w": None, "a.txt": "A"}),
        ("ENV T=/t\nCOPY a.txt ${T}/", {"t": None, "t/a.txt": "A"}),
        ("COPY <<x.txt /y\nhi $PATH_\nx.txt", {"y": "hi \n"}),
        ("ARG N=n\nCOPY <<x <<'y' /z/\n$N\nx\n$N\ny", {"z": None, "z/x": "n\n", "z/y": "$N\n"}),
        ("ADD a.txt /x/", {"x": None, "x/a.txt": "A"}),
]  # fmt: skip
"""Lines of a Dockerfile from scratch, and the tree that they make."""


def test_where_things_go(workshop: Callable[..., Any]) -> None:
    with workshop() as shop:
        for line, expected in WHERE:
            assert copied(shop, line) == expected, line


REFUSED = [
    ("COPY nothing /", "not found in build context or excluded"),
    ("COPY no* /", "no source files were specified"),
    ("COPY a.txt b.txt /x", "must be a directory and end with a /"),
    ("COPY *.txt /x", "must be a directory and end with a /"),
    ("COPY ../a.txt /", "forbidden path outside the build context"),
    ("COPY dir/../../a.txt /", "forbidden path outside"),
    ("COPY [ /", "syntax error in pattern"),
    ("COPY --chmod=9 a.txt /", "octal"),
    ("COPY --chown=nobody-here a.txt /", "no 'nobody-here' in /etc/passwd"),
    ("COPY --from=$X a /", "variables are not expanded"),
    ("COPY a.txt /x\nCOPY a.txt /x/", "non-directory"),
    ("COPY a.txt /x\nCOPY a.txt /x/y", "non-directory"),
    ("COPY a.txt /x/c/\nCOPY dir /x/", "overwrite directory"),
    ("ADD --checksum=sha256:" + "0" * 64 + " a.txt /", "--checksum"),
    ("ADD https://example.test/x.git /", "git"),
]
"""Lines that cannot be, and words of the error."""


def test_what_is_refused(workshop: Callable[..., Any]) -> None:
    with workshop() as shop:
        for line, words in REFUSED:
            with pytest.raises((BadRequest, CannotEnforce)) as caught:
                copied(shop, line)
            assert words in caught.value.message, line
            assert "Dockerfile line" in caught.value.message, line


class TestOverLayers:
    def test_a_directory_that_is_there_takes_the_file(self, workshop: Callable[..., Any]) -> None:
        with workshop() as shop:
            tree = copied(shop, "COPY a.txt /etc", base="base")
            assert tree["etc/a.txt"] == "A"
            assert "etc/passwd" in tree

    def test_it_keeps_its_attributes(self, workshop: Callable[..., Any]) -> None:
        with workshop() as shop:
            shop.put("a.txt", "A")
            shop.build("FROM base\nCOPY --chmod=700 a.txt /private/", "one")
            image = shop.build("FROM base\nRUN write /etc/x y\nCOPY --chmod=700 a.txt /etc/z")
            assert stat.S_IMODE(shop.stat(image, "etc").st_mode) == 0o755
            assert stat.S_IMODE(shop.stat(image, "etc/z").st_mode) == 0o700

    def test_a_link_in_the_target_leads_on_inside(self, workshop: Callable[..., Any]) -> None:
        with workshop() as shop:
            tree = copied(shop, "COPY a.txt /lib/", base="base")
            assert tree["lib"] == "-> usr/lib"
            assert tree["usr/lib/a.txt"] == "A"
            assert tree["usr/lib/old"] == "old"

    def test_a_link_below_a_directory_that_is_copied_too(
        self, workshop: Callable[..., Any]
    ) -> None:
        with workshop() as shop:
            shop.put("tree/lib/new", "N")
            tree = copied(shop, "COPY tree /", base="base")
            assert tree["lib"] == "-> usr/lib"
            assert tree["usr/lib/new"] == "N"

    def test_a_file_replaces_a_file(self, workshop: Callable[..., Any]) -> None:
        with workshop() as shop:
            assert copied(shop, "COPY a.txt /file", base="base")["file"] == "A"

    def test_a_file_in_the_way_of_a_directory(self, workshop: Callable[..., Any]) -> None:
        with workshop() as shop, pytest.raises(BadRequest, match="non-directory"):
            copied(shop, "COPY dir /file", base="base")

    def test_a_removed_directory_is_made_anew(self, workshop: Callable[..., Any]) -> None:
        with workshop() as shop:
            shop.base("gone", [("x", None), ("x/y", "1")])
            shop.build("FROM gone", "gone2")
            tree = copied(shop, "COPY a.txt /x/", base="gone2")
            assert tree == {"x": None, "x/y": "1", "x/a.txt": "A"}


class TestAttributes:
    def test_owner_is_root_and_mode_is_kept(self, workshop: Callable[..., Any]) -> None:
        with workshop() as shop:
            shop.put("run", "x", 0o750)
            status = shop.stat(shop.build("FROM scratch\nCOPY run /"), "run")
            assert (status.st_uid, status.st_gid) == (0, 0)
            assert stat.S_IMODE(status.st_mode) == 0o750

    def test_modification_time_is_kept(self, workshop: Callable[..., Any]) -> None:
        with workshop() as shop:
            os.utime(shop.put("f", "x").context / "f", ns=(10**18, 10**18))
            status = shop.stat(shop.build("FROM scratch\nCOPY f /"), "f")
            assert status.st_mtime_ns == 10**18

    @pytest.mark.parametrize(
        ("owner", "expected"),
        [("5", (5, 5)), ("5:6", (5, 6)), ("app", (1000, 1000)), ("app:staff", (1000, 50)),
         (":staff", (0, 50))],
    )  # fmt: skip
    def test_chown(
        self, workshop: Callable[..., Any], owner: str, expected: tuple[int, int]
    ) -> None:
        with workshop() as shop:
            if shop.store.idmap.size == 1:
                expected = (0, 0)
            shop.put("d/f", "x")
            image = shop.build(f"FROM base\nCOPY --chown={owner} d /new/")
            for path in ("new", "new/f"):
                status = shop.stat(image, path)
                assert (status.st_uid, status.st_gid) == expected

    def test_chmod_is_for_all_that_is_copied(self, workshop: Callable[..., Any]) -> None:
        with workshop() as shop:
            shop.put("d/s/f", "x")
            image = shop.build("FROM scratch\nCOPY --chmod=0711 d /new/")
            modes = [shop.stat(image, path).st_mode & 0o7777 for path in ("new/s", "new/s/f")]
            assert modes == [0o711, 0o711]

    def test_a_stages_files_stay_whose_they_are(self, workshop: Callable[..., Any]) -> None:
        with workshop() as shop:
            expected = (0, 0) if shop.store.idmap.size == 1 else (7, 7)
            shop.put("f", "x")
            text = "FROM base AS one\nCOPY --chown=7 f /d/\nFROM scratch\nCOPY --from=one /d /e"
            status = shop.stat(shop.build(text), "e/f")
            assert (status.st_uid, status.st_gid) == expected


class TestLinks:
    def test_a_link_inside_a_directory_stays_a_link(self, workshop: Callable[..., Any]) -> None:
        with workshop() as shop:
            shop.put("d/f", "x").put("d/l", Path("f")).put("d/broken", Path("/nowhere"))
            tree = shop.tree(shop.build("FROM scratch\nCOPY d /"))
            assert tree == {"broken": "-> /nowhere", "f": "x", "l": "-> f"}

    def test_a_source_that_is_a_link_is_followed(self, workshop: Callable[..., Any]) -> None:
        with workshop() as shop:
            shop.put("f", "x").put("l", Path("f"))
            assert shop.tree(shop.build("FROM scratch\nCOPY l /")) == {"l": "x"}

    def test_a_link_on_the_way_is_followed(self, workshop: Callable[..., Any]) -> None:
        with workshop() as shop:
            shop.put("real/f", "x").put("way", Path("real"))
            assert shop.tree(shop.build("FROM scratch\nCOPY way/f /")) == {"f": "x"}


class TestFrom:
    def test_another_stage(self, workshop: Callable[..., Any]) -> None:
        with workshop() as shop:
            text = "FROM base AS one\nRUN write /out/f made\nFROM scratch\nCOPY --from=one /out /"
            assert shop.tree(shop.build(text)) == {"f": "made"}

    def test_an_image(self, workshop: Callable[..., Any]) -> None:
        with workshop() as shop:
            tree = shop.tree(shop.build("FROM scratch\nCOPY --from=base:latest /lib/old /"))
            assert tree == {"old": "old"}

    def test_something_that_is_not_there(self, workshop: Callable[..., Any]) -> None:
        with workshop() as shop, pytest.raises(BadRequest, match="stat /nope"):
            shop.build("FROM scratch\nCOPY --from=base /nope /")


class TestAdd:
    def test_an_archive_is_unpacked(self, workshop: Callable[..., Any]) -> None:
        data = archive([("x", None), ("x/f", "in")])
        with workshop() as shop:
            shop.put("a.tar", data).put("b.tgz", gzip.compress(data))
            tree = shop.tree(shop.build("FROM scratch\nADD a.tar /one/\nADD b.tgz /two"))
            assert tree == {"one": None, "one/x": None, "one/x/f": "in",
                            "two": None, "two/x": None, "two/x/f": "in"}  # fmt: skip

    def test_copy_unpacks_nothing(self, workshop: Callable[..., Any]) -> None:
        with workshop() as shop:
            shop.put("a.tar", archive([("f", "in")]))
            assert list(shop.tree(shop.build("FROM scratch\nCOPY a.tar /"))) == ["a.tar"]

    def test_what_is_called_an_archive_but_is_none(self, workshop: Callable[..., Any]) -> None:
        with workshop() as shop:
            shop.put("a.tar", "text").put("b.gz", gzip.compress(b"text"))
            tree = shop.tree(shop.build("FROM scratch\nADD a.tar b.gz /"))
            assert list(tree) == ["a.tar", "b.gz"]

    def test_a_hostile_archive_stays_inside(
        self, workshop: Callable[..., Any], tmp_path: Path
    ) -> None:
        with workshop() as shop:
            shop.put("a.tar", archive([("l", tmp_path), ("l/canary", "out")]))
            shop.build("FROM scratch\nADD a.tar /x/")
            assert not (tmp_path / "canary").exists()
