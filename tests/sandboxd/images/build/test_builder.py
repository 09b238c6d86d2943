"""Builds as a whole: what becomes of the config, of stages, of failures."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from sandboxd.errors import BadRequest, BuildFailed, NotFound, SandboxError
from sandboxd.images.build.builder import build_image
from sandboxd.images.build.context import Context
from sandboxd.images.build.options import BuildOptions
from sandboxd.images.platform import architecture

pytestmark = [pytest.mark.needs_userns, pytest.mark.outer]


class TestConfig:
    def config(self, shop: Any, *lines: str, base: str = "base", **options: Any) -> dict[str, Any]:
        found: dict[str, Any] = shop.build("\n".join([f"FROM {base}", *lines]), **options).config
        return found

    def test_every_instruction(self, workshop: Callable[..., Any]) -> None:
        with workshop() as shop:
            document = self.config(
                shop,
                'ENV A=1 B="x y"',
                "ENV A=2 C=$A",
                "LABEL l=${B} m='$A'",
                "WORKDIR /w",
                "WORKDIR v",
                "USER app:staff",
                "EXPOSE 80 90-91/udp",
                "VOLUME /data $A",
                "STOPSIGNAL SIGINT",
                "HEALTHCHECK --interval=5s --retries=2 CMD check it",
                'SHELL ["/bin/bash", "-c"]',
                "ENTRYPOINT start",
                'CMD ["$A"]',
                "ONBUILD RUN later",
                "MAINTAINER someone",
            )
            assert document["author"] == "someone"
            assert document["architecture"] == architecture()
            assert document["config"] == {
                "Env": ["A=2", "B=x y", "C=1"],
                "Labels": {"l": "x y", "m": "$A"},
                "WorkingDir": "/w/v",
                "User": "app:staff",
                "ExposedPorts": {"80/tcp": {}, "90/udp": {}, "91/udp": {}},
                "Volumes": {"/data": {}, "2": {}},
                "StopSignal": "SIGINT",
                "Healthcheck": {"Test": ["CMD-SHELL", "check it"], "Interval": 5 * 10**9,
                                "Retries": 2},
                "Shell": ["/bin/bash", "-c"],
                "Entrypoint": ["/bin/bash", "-c", "start"],
                "Cmd": ["$A"],
                "OnBuild": ["RUN later"],
            }  # fmt: skip

    def test_an_entrypoint_drops_the_bases_command(self, workshop: Callable[..., Any]) -> None:
        with workshop() as shop:
            assert self.config(shop, "ENV A=1")["config"]["Cmd"] == ["base"]
            assert "Cmd" not in self.config(shop, 'ENTRYPOINT ["x"]')["config"]
            own = self.config(shop, 'CMD ["mine"]', 'ENTRYPOINT ["x"]')["config"]
            assert own["Cmd"] == ["mine"]

    def test_empty_lists_take_away(self, workshop: Callable[..., Any]) -> None:
        with workshop() as shop:
            config = self.config(shop, 'ENTRYPOINT ["x"]', "ENTRYPOINT []", "CMD []")["config"]
            assert "Entrypoint" not in config
            assert config["Cmd"] == []

    def test_no_healthcheck(self, workshop: Callable[..., Any]) -> None:
        with workshop() as shop:
            assert self.config(shop, "HEALTHCHECK NONE")["config"]["Healthcheck"] == {
                "Test": ["NONE"]
            }

    def test_values_that_cannot_be(self, workshop: Callable[..., Any]) -> None:
        lines = ["EXPOSE x", "EXPOSE 0", "EXPOSE 70000", "USER $X", "WORKDIR $X", "STOPSIGNAL $X"]
        with workshop() as shop:
            for line in lines:
                with pytest.raises(BadRequest, match="Dockerfile line 2"):
                    self.config(shop, line)

    def test_history_tells_of_every_step(self, workshop: Callable[..., Any]) -> None:
        with workshop() as shop:
            shop.put("f", "x")
            document = self.config(
                shop, "ARG V=1", "ENV A=1", "RUN write /x y", "RUN nothing", "COPY f /"
            )
            steps = [
                (step["created_by"], step.get("empty_layer", False))
                for step in document["history"][1:]
            ]
            assert steps == [
                ("ARG V=1", True),
                ("ENV A=1", True),
                ("RUN |1 V=1 /bin/sh -c write /x y", False),
                ("RUN |1 V=1 /bin/sh -c nothing", True),
                ("COPY f /", False),
            ]
            layers = document["rootfs"]["diff_ids"]
            assert len(layers) == 1 + 2

    def test_labels_of_the_client(self, workshop: Callable[..., Any]) -> None:
        with workshop() as shop:
            config = self.config(shop, "LABEL a=1 b=1", labels={"b": "$2"})["config"]
            assert config["Labels"] == {"a": "1", "b": "$2"}

    def test_an_epoch_makes_it_reproducible(self, workshop: Callable[..., Any]) -> None:
        options = {"arguments": {"SOURCE_DATE_EPOCH": "86400"}, "no_cache": True}
        with workshop() as shop:
            first = shop.build("FROM scratch\nRUN write /x y\nENV A=1", **options)
            second = shop.build("FROM scratch\nRUN write /x y\nENV A=1", **options)
            assert first.id == second.id
            assert first.created == "1970-01-02T00:00:00Z"

    def test_from_alone_is_another_name_for_the_base(self, workshop: Callable[..., Any]) -> None:
        with workshop() as shop:
            image = shop.build("FROM base", "other:1")
            assert image.id == shop.images.get("base").id
            assert "other:1" in image.tags

    def test_scratch_alone_is_no_image(self, workshop: Callable[..., Any]) -> None:
        with workshop() as shop, pytest.raises(BadRequest, match="no image was generated"):
            shop.build("FROM scratch")


class TestRun:
    def test_what_a_command_sees(self, workshop: Callable[..., Any]) -> None:
        with workshop() as shop:
            shop.build(
                "FROM base\nENV E=1\nARG A=2\nUSER app\nWORKDIR /w\nRUN --network=none cmd",
                arguments={"A": "3"},
            )
            step = shop.ran[0]
            assert step.args == ("/bin/sh", "-c", "cmd")
            assert {"E=1", "A=3"} <= set(step.env)
            assert any(each.startswith("PATH=") for each in step.env)
            assert (step.user, step.cwd, step.network) == ("app", "/w", "none")

    def test_the_options_network_is_the_default(self, workshop: Callable[..., Any]) -> None:
        with workshop() as shop:
            shop.build("FROM base\nRUN a\nRUN --network=default b", network="none")
            assert [step.network for step in shop.ran] == ["none", "default"]

    def test_a_failure_says_where_what_and_why(self, workshop: Callable[..., Any]) -> None:
        with workshop() as shop:
            with pytest.raises(BuildFailed) as caught:
                shop.build("FROM base\n\nRUN fine\nRUN say oops; fail 7\nRUN never", "x:1")
            error = caught.value
            assert error.exit_code == 7
            assert error.what == "Dockerfile line 4: RUN say oops; fail 7"
            assert "'/bin/sh -c say oops; fail 7' returned a non-zero code: 7" in error.why
            assert "its last output: oops" in error.why
            assert len(shop.images.list()) == 2
            assert os.listdir(shop.store.root / "staging") == []
            shop.build("FROM base\n\nRUN fine\nRUN good")
            assert shop.commands == ["good"]

    def test_output_that_is_no_text(self, workshop: Callable[..., Any]) -> None:
        with workshop() as shop:
            shop.build('FROM base\nRUN say "é\\xff"')
            assert "é" in shop.output

    def test_mount_points_do_not_come_into_the_layer(self, workshop: Callable[..., Any]) -> None:
        with workshop() as shop:
            image = shop.build("FROM base\nRUN --mount=type=tmpfs,target=/new/place a")
            assert len(image.layers) == 1

    def test_a_missing_secret(self, workshop: Callable[..., Any]) -> None:
        with workshop() as shop:
            shop.build("FROM base\nRUN --mount=type=secret,id=s a")
            assert shop.ran[0].mounts == ()
            with pytest.raises(BadRequest, match="secret s: the client did not give it"):
                shop.build("FROM base\nRUN --mount=type=secret,id=s,required a")

    def test_a_secret_in_a_variable(self, workshop: Callable[..., Any]) -> None:
        with workshop() as shop:
            image = shop.build(
                "FROM base\nRUN --mount=type=secret,id=s,env=TOKEN a", secrets={"s": b"hush"}
            )
            assert "TOKEN=hush" in shop.ran[0].env
            assert "hush" not in json.dumps(image.config)


class TestStages:
    def test_unused_ones_are_skipped(self, workshop: Callable[..., Any]) -> None:
        with workshop() as shop:
            shop.build("FROM nowhere AS one\nRUN never\nFROM base\nRUN a")
            assert shop.commands == ["a"]

    def test_a_target_is_enough(self, workshop: Callable[..., Any]) -> None:
        with workshop() as shop:
            shop.build("FROM base AS one\nRUN a\nFROM one\nRUN b", target="one")
            assert shop.commands == ["a"]

    def test_one_that_builds_upon_another(self, workshop: Callable[..., Any]) -> None:
        with workshop() as shop:
            image = shop.build(
                "FROM base AS one\nARG A=1\nENV B=2\nRUN write /x 1\nFROM one\nRUN say $A$B"
            )
            assert shop.tree(image)["x"] == "1"
            assert {"A=1", "B=2"} <= set(shop.ran[-1].env)

    def test_independent_ones_run_side_by_side(self, workshop: Callable[..., Any]) -> None:
        """Each waits for the other's start: one after the other would never end."""
        with workshop() as shop:
            started: dict[str, asyncio.Event] = {}

            class Meeting:
                async def run(self, step: Any) -> int:
                    (step.staged / "u").mkdir()
                    for name in ("a", "b"):
                        started.setdefault(name, asyncio.Event())
                    started[step.args[-1]].set()
                    await asyncio.gather(*(event.wait() for event in started.values()))
                    return 0

            tools = replace(shop.tools, runner=Meeting())
            text = (
                b"FROM base AS one\nRUN a\nFROM base AS two\nRUN b\nFROM base\n"
                b"COPY --from=one /file /1\nCOPY --from=two /file /2"
            )
            context = Context.open(shop.context, text=text)
            work = build_image(tools, context, BuildOptions(), shop.told.append)
            image = asyncio.run(asyncio.wait_for(work, 30))
            assert shop.tree(image)["1"] == "a file"

    def test_a_failure_ends_the_others(self, workshop: Callable[..., Any]) -> None:
        text = (
            "FROM base AS one\nRUN wait\nFROM base AS two\nRUN fail 1\nFROM base\n"
            "COPY --from=one /file /1\nCOPY --from=two /file /2"
        )
        with workshop() as shop, pytest.raises(BuildFailed, match="line 4"):
            shop.build(text)

    def test_a_failing_stage_is_told_once(self, workshop: Callable[..., Any]) -> None:
        with workshop() as shop, pytest.raises(BuildFailed) as caught:
            shop.build("FROM base AS one\nRUN fail 1\nFROM one\nCOPY --from=one /x /")
        assert caught.value.message.count("Dockerfile line") == 1


class TestBases:
    def test_one_that_is_missing_is_pulled_or_an_error(self, workshop: Callable[..., Any]) -> None:
        with workshop() as shop, pytest.raises(SandboxError, match="Dockerfile line 1"):
            shop.build("FROM localhost:1/nothing:here\nRUN a")

    def test_another_platform(self, workshop: Callable[..., Any]) -> None:
        with workshop() as shop:
            shop.build(f"FROM --platform=linux/{architecture()} base\nRUN a")
            with pytest.raises(NotFound, match="does not match the specified platform"):
                shop.build("FROM --platform=linux/s390x base\nRUN a")

    def test_triggers_run_first_and_once(self, workshop: Callable[..., Any]) -> None:
        with workshop() as shop:
            shop.put("f", "x")
            shop.build("FROM base\nONBUILD COPY f /\nONBUILD RUN trigger", "parent:1")
            assert shop.commands == []
            image = shop.build("FROM parent:1\nRUN own", "child:1")
            assert shop.commands == ["trigger", "own"]
            assert "Executing 2 build triggers" in shop.output
            assert "OnBuild" not in image.config["config"]
            shop.build("FROM child:1\nRUN more")
            assert shop.commands == ["more"]

    def test_a_trigger_that_fails(self, workshop: Callable[..., Any]) -> None:
        with workshop() as shop:
            shop.build("FROM base\nONBUILD RUN fail 3", "parent:1")
            with pytest.raises(BuildFailed, match="a trigger of the base: RUN fail 3"):
                shop.build("FROM parent:1")


class TestOutput:
    def test_as_dockers_classic_builder_writes(self, workshop: Callable[..., Any]) -> None:
        with workshop() as shop:
            image = shop.build("FROM base\nRUN say hello\n", "app:1", "app:2")
            short = image.id.removeprefix("sha256:")[:12]
            lines = shop.output.splitlines()
            assert lines[0] == "Step 1/2 : FROM base"
            assert "Step 2/2 : RUN say hello" in lines
            assert "hello" in lines
            assert lines[-3:] == [
                f"Successfully built {short}",
                "Successfully tagged app:1",
                "Successfully tagged app:2",
            ]
            assert {"aux": {"ID": image.id}} in shop.told

    def test_arguments_that_nobody_wants(self, workshop: Callable[..., Any]) -> None:
        with workshop() as shop:
            shop.build("FROM base\nARG A\nRUN a", arguments={"A": "1", "B": "2"})
            assert "[Warning] One or more build-args [B] were not consumed" in shop.output

    def test_nothing_stays_in_staging(self, workshop: Callable[..., Any]) -> None:
        with workshop() as shop:
            shop.files(f="x")
            shop.build("FROM base\nCOPY f /\nRUN write /x y\nWORKDIR /new/dir")
            assert os.listdir(shop.store.root / "staging") == []
