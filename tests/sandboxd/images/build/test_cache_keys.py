"""The build cache: one test for each thing that must make a step anew, and for what must not."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import pytest

pytestmark = [pytest.mark.needs_userns, pytest.mark.outer]

PAIRS = [
    ("RUN a", "RUN b"),
    ('RUN ["sh", "a"]', "RUN sh a"),
    ("ENV X=1\nRUN a", "ENV X=2\nRUN a"),
    ("USER root\nRUN a", "USER app\nRUN a"),
    ("WORKDIR /a\nRUN a", "WORKDIR /b\nRUN a"),
    ('SHELL ["sh", "-c"]\nRUN a', 'SHELL ["sh", "-ec"]\nRUN a'),
    ("LABEL x=1\nRUN a", "LABEL x=2\nRUN a"),
    ("HEALTHCHECK CMD x\nRUN a", "HEALTHCHECK CMD y\nRUN a"),
    ("ONBUILD RUN x\nRUN a", "ONBUILD RUN y\nRUN a"),
    ("EXPOSE 1\nRUN a", "EXPOSE 2\nRUN a"),
    ("VOLUME /x\nRUN a", "VOLUME /y\nRUN a"),
    ("STOPSIGNAL 1\nRUN a", "STOPSIGNAL 2\nRUN a"),
    ("CMD x\nRUN a", "CMD y\nRUN a"),
    ("ENTRYPOINT x\nRUN a", "ENTRYPOINT y\nRUN a"),
    ("RUN 1\nRUN a", "RUN 2\nRUN a"),
    ("RUN a", "RUN --network=none a"),
    ("RUN a", "RUN --mount=type=tmpfs,target=/x a"),
    ("RUN --mount=type=cache,target=/x a", "RUN --mount=type=cache,target=/y a"),
    (
        "RUN --mount=type=cache,id=1,target=/x a",
        "RUN --mount=type=cache,id=2,target=/x a",
    ),
    ("RUN --mount=type=secret,id=1 a", "RUN --mount=type=secret,id=2 a"),
    ("ARG X=1\nRUN a", "ARG X=2\nRUN a"),
    ("RUN <<E\n1\nE\nRUN a", "RUN <<E\n2\nE\nRUN a"),
    ("COPY <<f /\n1\nf\nRUN a", "COPY <<f /\n2\nf\nRUN a"),
]
"""Two Dockerfiles that differ in one ingredient of the last RUN's key."""


def test_each_ingredient_makes_a_command_run_again(workshop: Callable[..., Any]) -> None:
    with workshop() as shop:
        for number, (first, second) in enumerate(PAIRS):
            base = f"FROM base\nLABEL case={number}\n"
            shop.build(base + first)
            shop.build(base + first)
            assert shop.commands == [], first
            shop.build(base + second)
            assert shop.commands, second


class TestRun:
    def test_the_base_images_content_counts_not_its_name(
        self, workshop: Callable[..., Any]
    ) -> None:
        with workshop() as shop:
            shop.build("FROM base\nRUN a")
            shop.images.tag("base", "other", "1")
            shop.build("FROM other:1\nRUN a")
            assert shop.commands == []
            shop.base("base", [("f", "new")])
            shop.build("FROM base\nRUN a")
            assert shop.commands == ["a"]

    def test_an_argument_counts_once_it_is_declared(self, workshop: Callable[..., Any]) -> None:
        text = "FROM base\nRUN a\nARG X\nRUN b"
        with workshop() as shop:
            shop.build(text, arguments={"X": "1"})
            assert shop.commands == ["a", "b"]
            shop.build(text, arguments={"X": "2"})
            assert shop.commands == ["b"]
            shop.build(text, arguments={"X": "2"})
            assert shop.commands == []

    def test_a_proxy_does_not_count(self, workshop: Callable[..., Any]) -> None:
        with workshop() as shop:
            shop.build("FROM base\nRUN a", arguments={"http_proxy": "1"})
            assert "http_proxy=1" in shop.ran[0].env
            shop.build("FROM base\nRUN a", arguments={"http_proxy": "2"})
            assert shop.commands == []

    def test_a_secrets_content_does_not_count(self, workshop: Callable[..., Any]) -> None:
        text = "FROM base\nRUN --mount=type=secret,id=s a"
        with workshop() as shop:
            shop.build(text, secrets={"s": b"1"})
            shop.build(text, secrets={"s": b"2"})
            assert shop.commands == []

    def test_what_is_bound_counts(self, workshop: Callable[..., Any]) -> None:
        text = "FROM base\nRUN --mount=type=bind,source=src,target=/x a"
        with workshop() as shop:
            shop.files(src__f="1")
            shop.build(text)
            shop.files(other="1")
            shop.build(text)
            assert shop.commands == []
            shop.files(src__f="2")
            shop.build(text)
            assert shop.commands == ["a"]

    def test_the_stage_that_is_bound_counts(self, workshop: Callable[..., Any]) -> None:
        text = "FROM base AS one\nRUN {}\nFROM base\nRUN --mount=type=bind,from=one,target=/x a"
        with workshop() as shop:
            shop.build(text.format("1"))
            shop.build(text.format("2"))
            assert sorted(shop.commands) == ["2", "a"]


class TestCopy:
    def again(self, shop: Any, text: str = "FROM base\nCOPY src /dst/") -> bool:
        """Whether the COPY was made anew."""
        shop.build(text)
        return "Using cache" not in shop.output

    def test_content(self, workshop: Callable[..., Any]) -> None:
        with workshop() as shop:
            shop.files(src__f="1")
            assert self.again(shop)
            assert not self.again(shop)
            shop.files(src__f="2")
            assert self.again(shop)

    def test_content_of_the_same_size_and_mtime(self, workshop: Callable[..., Any]) -> None:
        """buildkit issue 4817."""
        with workshop() as shop:
            path = shop.put("src/f", "1").context / "src/f"
            os.utime(path, ns=(10**18, 10**18))
            assert self.again(shop)
            path.write_text("2")
            os.utime(path, ns=(10**18, 10**18))
            assert self.again(shop)

    def test_content_that_takes_another_files_place(self, workshop: Callable[..., Any]) -> None:
        with workshop() as shop:
            path = shop.put("src/f", "1").put("new", "2").context / "src/f"
            for each in (path, shop.context / "new"):
                os.utime(each, ns=(10**18, 10**18))
            assert self.again(shop)
            os.rename(shop.context / "new", path)
            assert self.again(shop)

    def test_mtime_does_not_count(self, workshop: Callable[..., Any]) -> None:
        with workshop() as shop:
            path = shop.put("src/f", "1").context / "src/f"
            assert self.again(shop)
            os.utime(path, ns=(10**18, 10**18))
            assert not self.again(shop)

    def test_mode(self, workshop: Callable[..., Any]) -> None:
        with workshop() as shop:
            path = shop.put("src/f", "1").context / "src/f"
            assert self.again(shop)
            path.chmod(0o755)
            assert self.again(shop)

    def test_name(self, workshop: Callable[..., Any]) -> None:
        with workshop() as shop:
            path = shop.put("src/f", "1").context / "src/f"
            assert self.again(shop)
            path.rename(path.with_name("g"))
            assert self.again(shop)

    def test_kind(self, workshop: Callable[..., Any]) -> None:
        with workshop() as shop:
            path = shop.put("src/f", "").context / "src/f"
            assert self.again(shop)
            path.unlink()
            path.mkdir(mode=0o644)
            path.chmod(0o755)
            assert self.again(shop)

    def test_a_links_target(self, workshop: Callable[..., Any]) -> None:
        with workshop() as shop:
            path = shop.put("src/f", "1").context / "src/link"
            path.symlink_to("f")
            assert self.again(shop)
            path.unlink()
            path.symlink_to("g")
            assert self.again(shop)

    def test_an_attribute(self, workshop: Callable[..., Any]) -> None:
        with workshop() as shop:
            path = shop.put("src/f", "1").context / "src/f"
            assert self.again(shop)
            try:
                os.setxattr(path, "user.x", b"1")
            except OSError as error:
                pytest.skip(f"no user attributes here: {error}")
            assert self.again(shop)

    def test_flags_and_words(self, workshop: Callable[..., Any]) -> None:
        others = [
            "COPY src /other/",
            "COPY --chown=1 src /dst/",
            "COPY --chmod=700 src /dst/",
            "COPY --link src /dst/",
            "COPY --exclude=g src /dst/",
            "COPY --parents src /dst/",
            "ADD src /dst/",
            "WORKDIR /w\nCOPY src dst/",
        ]
        with workshop() as shop:
            shop.files(src__f="1", src__g="2")
            assert self.again(shop)
            for other in others:
                assert self.again(shop, f"FROM base\n{other}"), other

    def test_what_is_not_copied_does_not_count(self, workshop: Callable[..., Any]) -> None:
        with workshop() as shop:
            shop.files(src__f="1", other="1", _dot_dockerignore="src/g\n")
            assert self.again(shop)
            shop.files(other="2", src__g="ignored")
            assert not self.again(shop)

    def test_a_linked_layer_is_used_over_another_base(self, workshop: Callable[..., Any]) -> None:
        with workshop() as shop:
            shop.files(src__f="1")
            shop.base("second", [("etc", None)])
            first = shop.build("FROM base\nCOPY --link src /dst/")
            second = shop.build("FROM second\nCOPY --link src /dst/")
            assert first.layers[-1] == second.layers[-1]
            assert first.layers[0] != second.layers[0]

    def test_an_uploaded_context_hits_what_a_directory_made(
        self, workshop: Callable[..., Any]
    ) -> None:
        from .conftest import archive

        with workshop() as shop:
            shop.put("src/f", "1", 0o644)
            (shop.context / "src").chmod(0o755)
            assert self.again(shop)
            shop.build("FROM base\nCOPY src /dst/", tar=archive([("src", None), ("src/f", "1")]))
            assert "Using cache" in shop.output


def test_no_cache_makes_everything_anew(workshop: Callable[..., Any]) -> None:
    with workshop() as shop:
        shop.build("FROM base\nRUN a\nRUN b")
        shop.build("FROM base\nRUN a\nRUN b", no_cache=True)
        assert shop.commands == ["a", "b"]
        shop.build("FROM base\nRUN a\nRUN b")
        assert shop.commands == []


def test_a_cached_build_gives_the_very_same_image(workshop: Callable[..., Any]) -> None:
    with workshop() as shop:
        shop.files(f="1")
        text = "FROM base\nENV A=1\nRUN write /x y\nCOPY f /\nCMD z"
        first = shop.build(text, "app:1")
        second = shop.build(text, "app:2")
        assert first.id == second.id
        assert second.tags == ("app:1", "app:2")


def test_the_layers_of_the_cache_outlive_the_image(workshop: Callable[..., Any]) -> None:
    with workshop() as shop:
        first = shop.build("FROM base\nRUN write /x y", "app:1")
        shop.images.remove("app:1")
        assert shop.store.layers.has(first.layers[-1])
        assert shop.build("FROM base\nRUN write /x y").layers == first.layers
        assert shop.commands == []


def test_pruning_forgets_all_and_frees_the_layers(workshop: Callable[..., Any]) -> None:
    with workshop() as shop:
        image = shop.build("FROM base\nRUN write /x y", "app:1")
        shop.images.remove("app:1")
        assert len(shop.tools.cache.prune()) == 1
        assert image.layers[-1] in shop.store.collect().layers
        shop.build("FROM base\nRUN write /x y")
        assert shop.commands == ["write /x y"]


def test_a_layer_that_is_gone_is_made_again(workshop: Callable[..., Any]) -> None:
    with workshop() as shop:
        image = shop.build("FROM base\nRUN write /x y", "app:1")
        shop.images.remove("app:1")
        shop.store.layers.delete(image.layers[-1])
        assert shop.tree(shop.build("FROM base\nRUN write /x y"))["x"] == "y"
        assert shop.commands == ["write /x y"]
