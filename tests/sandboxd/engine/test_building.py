"""RUN steps for real: overlays, mounts, users, failures, under both id maps."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from sandboxd.errors import BuildFailed, CannotEnforce, StartFailed

if TYPE_CHECKING:
    from .conftest import Bench, Run

pytestmark = [pytest.mark.needs_userns, pytest.mark.needs_busybox]


class Yard:
    """A context and its builds on one engine."""

    def __init__(self, bench: Bench) -> None:
        self.bench = bench
        self.context = bench.base / "context"
        self.context.mkdir()
        self.told: list[dict[str, Any]] = []

    async def build(self, *lines: str, base: str = "busybox", **options: Any) -> str:
        """Build it and name it `app`; the image's id."""
        from sandboxd.images.build.context import Context
        from sandboxd.images.build.options import BuildOptions
        from sandboxd.images.reference import Reference

        self.told.clear()
        text = "\n".join([f"FROM {base}", *lines]).encode()
        wanted = BuildOptions(names=(Reference.parse("app"),), **options)
        context = Context.open(self.context, text=text)
        image = await self.bench.engine.builds.build(context, wanted, self.told.append)
        return image.id

    @property
    def output(self) -> str:
        return "".join(each.get("stream", "") for each in self.told)

    async def sh(self, script: str) -> str:
        """The output of a script in the image `app`; it must succeed."""
        result = await self.bench.sh(script, Image="app")
        assert result.exit_code == 0, result.stderr
        output: str = result.stdout.decode()
        return output


def test_a_steps_writes_become_a_layer(any_bench: Run) -> None:
    async def scenario(bench: Bench) -> None:
        yard = Yard(bench)
        await yard.build(
            "RUN echo one > /new && rm /etc/group && mkdir -p /d/e",
            "RUN rm -r /d && mkdir /d && echo two >> /new && echo shown",
        )
        assert "shown" in yard.output
        assert (
            await yard.sh("cat /new; ls /d; ls /etc") == "one\ntwo\npasswd\n"
            or (await yard.sh("cat /new; ls /d; test ! -e /etc/group")) == "one\ntwo\n"
        )

    any_bench(scenario)


def test_nothing_changed_makes_no_layer(any_bench: Run) -> None:
    async def scenario(bench: Bench) -> None:
        yard = Yard(bench)
        before = bench.engine.images.get("busybox").layers
        id = await yard.build("RUN true", "RUN cat /etc/hosts /etc/resolv.conf && ls /proc /dev")
        assert bench.engine.images.get(id).layers == before

    any_bench(scenario)


def test_shell_exec_and_script_forms(any_bench: Run) -> None:
    async def scenario(bench: Bench) -> None:
        yard = Yard(bench)
        await yard.build(
            "RUN echo $((1+1)) > /shell",
            'RUN ["sh", "-c", "echo $0 > /exec", "zero"]',
            "RUN <<EOF\necho a > /doc\necho b >> /doc\nEOF",
            "RUN cat > /beside <<EOF\nc $HOME\nEOF",
            "RUN <<EOF\n#!/bin/sh\necho $0 > /program\nEOF",
            'SHELL ["/bin/sh", "-ec"]',
            "RUN echo $- > /flags",
        )
        shown = await yard.sh("cat /shell /exec /doc /beside /program; grep e /flags >/dev/null")
        assert shown == "2\nzero\na\nb\nc /root\n/dev/pipes/script\n"

    any_bench(scenario)


def test_user_directory_and_environment(bench: Run) -> None:
    async def scenario(bench: Bench) -> None:
        if bench.ids.kind == "single":
            return
        yard = Yard(bench)
        await yard.build(
            "ENV E=env",
            "ARG A=arg",
            "WORKDIR /work",
            "RUN chmod 777 .",
            "USER user",
            "RUN echo $(id -u) $PWD $E $A $HOME > out",
        )
        assert await yard.sh("cat /work/out") == "1000 /work env arg /home\n"

    bench(scenario)


def test_a_failure_carries_code_and_last_words(any_bench: Run) -> None:
    async def scenario(bench: Bench) -> None:
        yard = Yard(bench)
        with pytest.raises(BuildFailed) as caught:
            await yard.build("RUN touch /kept", "RUN echo before; echo why >&2; exit 42")
        assert caught.value.exit_code == 42
        assert caught.value.what.startswith("Dockerfile line 3: RUN echo before")
        assert "why" in caught.value.why
        with pytest.raises(StartFailed, match="line 2"):
            await yard.build('RUN ["/no/such/program"]')
        staging = bench.base / "state" / "staging"
        assert os.listdir(staging) == []
        await yard.build("RUN touch /kept", "RUN echo fine")
        assert "Using cache" in yard.output

    any_bench(scenario)


def test_a_signal_is_a_failure_too(bench: Run) -> None:
    async def scenario(bench: Bench) -> None:
        with pytest.raises(BuildFailed, match="non-zero code: 137"):
            await Yard(bench).build("RUN sh -c 'kill -9 $$'; exit $?")

    bench(scenario)


class TestMounts:
    def test_a_cache_stays_and_is_not_in_the_image(self, any_bench: Run) -> None:
        async def scenario(bench: Bench) -> None:
            yard = Yard(bench)
            mount = "--mount=type=cache,target=/var/cache/x"
            await yard.build(f"RUN {mount} echo 1 >> /var/cache/x/f; cat /var/cache/x/f > /a")
            await yard.build(f"RUN {mount} echo 2 >> /var/cache/x/f; cat /var/cache/x/f > /b")
            assert await yard.sh("cat /b; ls /var/cache/x 2>/dev/null || true") == "1\n2\n"
            keys, _ = bench.engine.builds.prune()
            assert len(keys) >= 3
            await yard.build(f"RUN {mount} cat /var/cache/x/f 2>/dev/null || echo none > /c")
            assert await yard.sh("cat /c") == "none\n"

        any_bench(scenario)

    def test_locked_caches_are_for_one_at_a_time(self, bench: Run) -> None:
        async def scenario(bench: Bench) -> None:
            yard = Yard(bench)
            line = (
                "RUN --mount=type=cache,target=/c,sharing=locked "
                "mkdir /c/lock && echo {} && rmdir /c/lock"
            )
            await yard.build(
                line.format(1), "FROM busybox AS b", line.format(2), "FROM busybox",
                "COPY --from=0 /etc/passwd /1", "COPY --from=b /etc/passwd /2",
            )  # fmt: skip

        bench(scenario)

    def test_a_secret_is_a_file_and_leaves_no_trace(self, any_bench: Run) -> None:
        async def scenario(bench: Bench) -> None:
            yard = Yard(bench)
            await yard.build(
                "RUN --mount=type=secret,id=s cat /run/secrets/s | tr a-z A-Z > /loud",
                "RUN --mount=type=secret,id=s,target=/etc/key,mode=0440 ls -l /etc/key > /mode",
                "RUN --mount=type=secret,id=s,env=S test ${#S} = 4",
                secrets={"s": b"ssm7"},
            )
            shown = await yard.sh("cat /loud; cut -c1-10 /mode; ls /run/secrets /etc/key || true")
            assert shown == "SSM7-r--r-----\n"
            for directory in ("layers", "build-cache", "blobs"):
                for path in (bench.base / "state" / directory).rglob("*"):
                    assert not _holds(path, b"ssm7"), path

        any_bench(scenario)

    def test_a_bind_of_the_context(self, any_bench: Run) -> None:
        async def scenario(bench: Bench) -> None:
            yard = Yard(bench)
            (yard.context / "src").mkdir()
            (yard.context / "src/f").write_text("from the context\n")
            (yard.context / "hidden").write_text("x")
            (yard.context / ".dockerignore").write_text("hidden\n")
            await yard.build(
                "RUN --mount=type=bind,target=/ctx ls /ctx > /names; cat /ctx/src/f > /content",
                "RUN --mount=source=src/f,target=/f cat /f >> /content; ! touch /f 2>/dev/null",
                "RUN --mount=source=src,target=/s,rw echo more >> /s/f; cat /s/f >> /content",
            )
            assert await yard.sh("cat /content /names; ls -d /ctx /s 2>/dev/null || true") == (
                "from the context\nfrom the context\nfrom the context\nmore\nsrc\n"
            )
            assert (yard.context / "src/f").read_text() == "from the context\n"

        any_bench(scenario)

    def test_a_bind_of_a_stage(self, any_bench: Run) -> None:
        async def scenario(bench: Bench) -> None:
            yard = Yard(bench)
            await yard.build(
                "RUN mkdir /out && echo made > /out/f",
                "FROM busybox",
                "RUN --mount=type=bind,from=0,source=/out,target=/in cat /in/f > /got",
                "RUN --mount=type=bind,from=busybox,source=/etc/passwd,target=/p cat /p > /pw",
            )
            assert await yard.sh("cat /got; head -c 4 /pw") == "made\nroot"

        any_bench(scenario)

    def test_a_tmpfs(self, any_bench: Run) -> None:
        async def scenario(bench: Bench) -> None:
            yard = Yard(bench)
            await yard.build(
                "RUN --mount=type=tmpfs,target=/t,size=1m echo x > /t/f; grep ' /t ' /proc/mounts"
            )
            assert "tmpfs" in yard.output
            assert await yard.sh("ls /t 2>/dev/null || echo gone") == "gone\n"

        any_bench(scenario)


def _holds(path: Path, content: bytes) -> bool:
    return path.is_file() and not path.is_symlink() and content in path.read_bytes()


def test_owners_pretend_under_a_single_id_map(any_bench: Run) -> None:
    """What package managers do: chown to somebody, and go on."""

    async def scenario(bench: Bench) -> None:
        yard = Yard(bench)
        await yard.build("RUN echo x > /f && chown 7:8 /f && chown -h 1000 /f && ls -n /f > /seen")
        owner = (await yard.sh("cut -d' ' -f1- /seen")).split()
        mapped = bench.ids.kind != "single"
        assert owner[2:4] == (["1000", "8"] if mapped else ["0", "0"])
        # Outside of builds nothing pretends.
        result = await bench.sh("chown 7 /etc/passwd")
        assert (result.exit_code == 0) is mapped

    any_bench(scenario)


def test_networks_that_cannot_be_had(bench: Run) -> None:
    async def scenario(bench: Bench) -> None:
        yard = Yard(bench)
        await yard.build("RUN --network=none cat /proc/net/dev")
        with pytest.raises(CannotEnforce):
            await yard.build("RUN --network=host true")
        with pytest.raises(CannotEnforce):
            await yard.build("RUN true", network="host")

    bench(scenario)


def test_cancelling_kills_the_command(bench: Run) -> None:
    async def scenario(bench: Bench) -> None:
        yard = Yard(bench)
        building = asyncio.ensure_future(yard.build("RUN echo up; sleep 1000"))
        while "up\n" not in yard.output:
            await asyncio.sleep(0.005)
        building.cancel()
        with pytest.raises(asyncio.CancelledError):
            await building
        assert bench.engine.builds.under_way == 0
        assert os.listdir(bench.base / "state" / "staging") == []
        assert bench.engine.idle

    bench(scenario)


def test_two_builds_share_a_step(bench: Run) -> None:
    async def scenario(bench: Bench) -> None:
        yards = Yard(bench), Yard.__new__(Yard)
        yards[1].bench, yards[1].context, yards[1].told = bench, yards[0].context, []
        line = "RUN cat /proc/sys/kernel/random/uuid > /id"
        first, second = await asyncio.gather(*(yard.build(line) for yard in yards))
        assert first == second
        assert sum("Using cache" in yard.output for yard in yards) == 1

    bench(scenario)


def test_many_steps_are_many_layers(bench: Run) -> None:
    """More than one page of mount options."""

    async def scenario(bench: Bench) -> None:
        yard = Yard(bench)
        await yard.build(*(f"RUN echo {n} > /f{n}" for n in range(40)))
        assert await yard.sh("cat /f0 /f39") == "0\n39\n"

    bench(scenario)


class TestHost:
    """FROM host: layers over the machine's own root."""

    def test_a_build_on_it(self, bench: Run) -> None:
        async def scenario(bench: Bench) -> None:
            yard = Yard(bench)
            (yard.context / "tool").write_text("#!/bin/sh\necho my own tool\n")
            (yard.context / "tool").chmod(0o755)
            await yard.build(
                "COPY tool /usr/local/bin/my-tool",
                "WORKDIR /usr/local/share/sandbox-test",
                "RUN my-tool > said",
                base="host",
            )
            image = bench.engine.images.get("app")
            assert image.on_host
            assert len(image.layers) == 3
            result = await bench.engine.run(
                {"Image": "app", "Cmd": ["sh", "-c", "my-tool; cat said"]}
            )
            assert result.stdout == b"my own tool\nmy own tool\n"
            assert not os.path.exists("/usr/local/bin/my-tool")
            # The image host itself knows nothing of it.
            plain = await bench.engine.run({"Image": "host", "Cmd": ["sh", "-c", "my-tool"]})
            assert plain.exit_code == 127

        bench(scenario)

    def test_a_command_may_install_where_one_installs(self, bench: Run) -> None:
        """Also as an ordinary user, whose namespace has no power over root's directories."""

        async def scenario(bench: Bench) -> None:
            await Yard(bench).build(
                "RUN echo lib > /usr/local/share/sandbox-test && mkdir /opt/sandbox-test",
                "RUN cat /usr/local/share/sandbox-test > /opt/sandbox-test/copy",
                "FROM host",
                "COPY --from=0 /opt/sandbox-test/copy /usr/local/share/sandbox-copied",
                base="host",
            )
            script = "cat /usr/local/share/sandbox-copied; ls /opt/sandbox-test 2>/dev/null || true"
            result = await bench.engine.run({"Image": "app", "Cmd": ["sh", "-c", script]})
            assert result.stdout == b"lib\n"

        bench(scenario)

    def test_it_survives_a_restart(self, bench: Run) -> None:
        async def scenario(bench: Bench) -> None:
            await Yard(bench).build("WORKDIR /usr/local/share/sandbox-test", base="host")
            from sandboxd.images.catalog import Catalog

            again = Catalog(bench.engine.store, bench.engine.images.get("host"))
            assert again.find("app").on_host

        bench(scenario)
