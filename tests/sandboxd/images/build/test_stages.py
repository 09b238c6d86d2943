"""Stages: which there are, which the target needs, what ARG means where."""

from __future__ import annotations

import pytest

from sandboxd.errors import BadRequest
from sandboxd.images.build.dockerfile import parse_dockerfile
from sandboxd.images.build.instructions import Arg
from sandboxd.images.build.stages import Plan, plan_stages
from sandboxd.images.build.variables import Given, Scope
from sandboxd.images.platform import architecture


def plan(text: str, given: Given | None = None, target: str = "") -> Plan:
    return plan_stages(parse_dockerfile(text.encode()), given or {}, target)


GRAPH = """\
FROM a AS one
FROM b AS two
RUN x
FROM scratch AS three
COPY --from=one /a /
COPY --from=1 /b /
FROM three AS four
RUN --mount=type=bind,from=five,target=/x y
FROM c AS five
FROM d AS six
"""


@pytest.mark.parametrize(
    ("target", "needed"),
    [
        ("one", (0,)),
        ("three", (0, 1, 2)),
        ("Four", (0, 1, 2, 3)),
        ("5", (5,)),
        ("", (5,)),
    ],
)
def test_what_a_target_needs(target: str, needed: tuple[int, ...]) -> None:
    assert plan(GRAPH, target=target).needed == needed


def test_steps_are_numbered_over_the_needed_stages() -> None:
    found = plan(GRAPH, target="three")
    assert found.numbers == {0: 1, 1: 2, 2: 4}
    assert found.steps == 6


def test_a_later_stage_is_an_images_name() -> None:
    assert plan(GRAPH).stage_called("five", before=3) is None


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("RUN x\nFROM a", "only ARG may come before"),
        ("ARG a=1", "no FROM"),
        ("FROM a\nCOPY --from=0 x y", "current or a later"),
        ("FROM a\nFROM b\nCOPY --from=2 x y", "line 3"),
        ("ARG V\nFROM $V", "should not be blank"),
    ],
)
def test_what_is_no_graph(text: str, words: str) -> None:
    with pytest.raises(BadRequest, match=words):
        plan(text)


def test_an_unknown_target_is_told_the_known_ones() -> None:
    with pytest.raises(BadRequest, match="stages: one, two"):
        plan("FROM a AS one\nFROM b AS two", target="three")


class TestGlobalArguments:
    def test_they_count_in_from_lines(self) -> None:
        text = "ARG IMAGE=busybox\nARG TAG=${IMAGE}-1\nFROM $IMAGE:${TAG}"
        assert plan(text).stages[0].image == "busybox:busybox-1"

    def test_the_client_goes_before_the_default(self) -> None:
        text = "ARG TAG=1\nFROM a:$TAG"
        assert plan(text, {"TAG": "2"}).stages[0].image == "a:2"
        assert plan(text, {"TAG": None}).stages[0].image == "a:1"

    def test_the_platform_is_known(self) -> None:
        text = "FROM --platform=$BUILDPLATFORM a-$TARGETARCH"
        stage = plan(text).stages[0]
        assert stage.platform == f"linux/{architecture()}"
        assert stage.image == f"a-{architecture()}"

    def test_a_stages_arguments_do_not_count(self) -> None:
        with pytest.raises(BadRequest, match="blank"):
            plan("FROM a\nARG B=x\nFROM $B")

    def test_the_last_of_two_stages_of_one_name_is_meant(self) -> None:
        assert plan("FROM a AS x\nFROM b AS x\nFROM x").stages[2].base == 1


class TestScope:
    def scope(self, text: str, given: Given | None = None, **environment: str) -> Scope:
        found = plan(text, given)
        scope = Scope(found.outer, environment)
        for each in found.stages[0].instructions:
            assert isinstance(each, Arg)
            scope.declare(each)
        return scope

    def test_a_global_one_must_be_declared_again(self) -> None:
        assert self.scope("ARG A=1\nFROM x").arguments == {}
        assert self.scope("ARG A=1\nFROM x\nARG A").arguments == {"A": "1"}
        assert self.scope("ARG A=1\nFROM x\nARG A=2").arguments == {"A": "2"}

    def test_the_client_goes_first(self) -> None:
        given = {"A": "3"}
        assert self.scope("ARG A=1\nFROM x\nARG A=2", given).arguments == {"A": "3"}

    def test_env_hides_an_argument(self) -> None:
        scope = self.scope("FROM x\nARG A=1", {"A": "2"}, A="env")
        assert scope.arguments == {}
        assert scope.expansion().word("$A") == "env"
        assert scope.command_environment()["A"] == "env"

    def test_one_without_a_value_is_unset(self) -> None:
        assert self.scope("FROM x\nARG A").expansion().word("${A-unset}") == "unset"

    def test_proxies_need_no_arg_and_leave_no_trace(self) -> None:
        scope = self.scope("FROM x", {"http_proxy": "p", "OTHER": "o"})
        assert scope.command_environment() == {"http_proxy": "p"}
        assert scope.arguments == {}

    def test_platform_arguments_must_be_declared(self) -> None:
        assert "TARGETARCH" not in self.scope("FROM x").arguments
        assert self.scope("FROM x\nARG TARGETARCH").arguments == {"TARGETARCH": architecture()}

    def test_a_default_may_use_what_was_declared_before(self) -> None:
        scope = self.scope("FROM x\nARG A=1\nARG B=${A}2")
        assert scope.arguments == {"A": "1", "B": "12"}
