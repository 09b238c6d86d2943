"""Dockerfiles into typed instructions: what BuildKit's parser takes, and what it refuses."""

from __future__ import annotations

import pytest

from sandboxd.errors import BadRequest
from sandboxd.images.build.dockerfile import parse_dockerfile, parse_trigger
from sandboxd.images.build.instructions import (
    SCRIPT,
    Arg,
    Cmd,
    Command,
    Copy,
    Entrypoint,
    Env,
    Expose,
    From,
    Healthcheck,
    Heredoc,
    Instruction,
    Label,
    Maintainer,
    Onbuild,
    Run,
    Shell,
    Stopsignal,
    User,
    Volume,
    Workdir,
)


def parsed(text: str) -> list[Instruction]:
    return list(parse_dockerfile(text.encode()).instructions)


def only(text: str) -> Instruction:
    (found,) = parsed(text)
    return found


class TestTorture:
    TEXT = """\
# syntax=docker/dockerfile:1
# escape=\\

ARG VERSION=1
from --platform=linux/amd64 busybox:${VERSION} as Builder
RUN --mount=type=cache,target=/c --mount=type=tmpfs,target=/t --network=none echo a \\
    # a comment inside

    && echo b
\tRUN ["/bin/echo", "a b", "\\u00e9"]
RUN <<EOF
echo 1
  echo 2
EOF
RUN <<-'X' cat && cat <<Y
\tone $V
\tX
two
Y
RUN <<PY
#!/usr/bin/env python3
print(1)
PY
COPY --chown=1:2 --chmod=644 --link a "b c" /dst/
COPY <<one.txt <<-"two.txt" /docs/
hello $NAME
one.txt
\tliteral $NAME
two.txt
ADD --checksum=sha256:aa https://example.test/x /
CMD echo done
"""

    @pytest.fixture
    def found(self) -> list[Instruction]:
        return parsed(self.TEXT)

    def test_kinds_and_lines(self, found: list[Instruction]) -> None:
        names = [type(each).__name__ for each in found]
        assert names == ["Arg", "From", *["Run"] * 5, *["Copy"] * 3, "Cmd"]
        assert [each.line for each in found] == [4, 5, 6, 10, 11, 15, 20, 24, 25, 30, 31]

    def test_from(self, found: list[Instruction]) -> None:
        start = found[1]
        assert isinstance(start, From)
        assert (start.image, start.name) == ("busybox:${VERSION}", "builder")
        assert start.platform == "linux/amd64"

    def test_comments_and_blank_lines_inside_a_continuation(self, found: list[Instruction]) -> None:
        run = found[2]
        assert isinstance(run, Run)
        assert run.command.words[0].split() == ["echo", "a", "&&", "echo", "b"]
        assert run.mounts == ("type=cache,target=/c", "type=tmpfs,target=/t")
        assert run.network == "none"

    def test_exec_form(self, found: list[Instruction]) -> None:
        run = found[3]
        assert isinstance(run, Run)
        assert run.command == Command(("/bin/echo", "a b", "é"), True)

    def test_a_heredoc_alone_is_the_shells_script(self, found: list[Instruction]) -> None:
        run = found[4]
        assert isinstance(run, Run)
        assert run.command == Command(("echo 1\n  echo 2\n",), False)

    def test_heredocs_beside_a_command_follow_it(self, found: list[Instruction]) -> None:
        run = found[5]
        assert isinstance(run, Run)
        assert run.command.words == ("<<-'X' cat && cat <<Y\n\tone $V\nX\ntwo\nY",)

    def test_a_heredoc_with_an_interpreter_is_a_program(self, found: list[Instruction]) -> None:
        run = found[6]
        assert isinstance(run, Run)
        assert run.command == Command((SCRIPT,), True)
        assert run.script == "#!/usr/bin/env python3\nprint(1)\n"

    def test_copy(self, found: list[Instruction]) -> None:
        copy = found[7]
        assert isinstance(copy, Copy)
        assert not copy.is_add
        assert copy.link
        assert (copy.owner, copy.mode, copy.target) == ("1:2", "644", "/dst/")
        assert copy.sources == ("a", '"b c"')

    def test_heredocs_as_sources(self, found: list[Instruction]) -> None:
        copy = found[8]
        assert isinstance(copy, Copy)
        assert copy.sources == (
            Heredoc("one.txt", "hello $NAME\n", True),
            Heredoc("two.txt", "literal $NAME\n", False),
        )

    def test_add(self, found: list[Instruction]) -> None:
        add = found[9]
        assert isinstance(add, Copy)
        assert add.is_add
        assert add.checksum == "sha256:aa"


class TestEachInstruction:
    def test_arg(self) -> None:
        found = only("ARG a b= c='x y'")
        assert isinstance(found, Arg)
        assert found.pairs == (("a", None), ("b", ""), ("c", "'x y'"))

    @pytest.mark.parametrize(
        ("text", "pairs"),
        [
            ('ENV a=1 b="x y"', (("a", "1"), ("b", '"x y"'))),
            ("ENV a the rest of it", (("a", "the rest of it"),)),
        ],
    )
    def test_env(self, text: str, pairs: tuple[tuple[str, str], ...]) -> None:
        found = only(text)
        assert isinstance(found, Env)
        assert found.pairs == pairs

    def test_label(self) -> None:
        found = only('LABEL "a.b"="c d" e=f')
        assert isinstance(found, Label)
        assert found.pairs == (('"a.b"', '"c d"'), ("e", "f"))

    def test_commands(self) -> None:
        shell, execution = parsed('CMD a b\nENTRYPOINT ["a", "b"]')
        assert isinstance(shell, Cmd)
        assert shell.command == Command(("a b",), False)
        assert isinstance(execution, Entrypoint)
        assert execution.command == Command(("a", "b"), True)

    def test_an_empty_list_is_a_command(self) -> None:
        found = only("ENTRYPOINT []")
        assert isinstance(found, Entrypoint)
        assert found.command == Command((), True)

    def test_json_that_is_none_is_a_shells_command(self) -> None:
        found = only("CMD ['a']")
        assert isinstance(found, Cmd)
        assert found.command == Command(("['a']",), False)

    def test_small_ones(self) -> None:
        found = parsed(
            "WORKDIR /a b\nUSER 1:2\nSTOPSIGNAL 9\nEXPOSE 80 443/udp\nVOLUME /a /b\n"
            'VOLUME ["/c d"]\nSHELL ["/bin/bash", "-c"]\nMAINTAINER me <a@b>\nONBUILD RUN  x y\n'
        )
        workdir, user, stop, expose, volumes, volume, shell, maintainer, onbuild = found
        assert isinstance(workdir, Workdir)
        assert workdir.path == "/a b"
        assert isinstance(user, User)
        assert user.user == "1:2"
        assert isinstance(stop, Stopsignal)
        assert stop.signal == "9"
        assert isinstance(expose, Expose)
        assert expose.ports == ("80", "443/udp")
        assert isinstance(volumes, Volume)
        assert volumes.paths == ("/a", "/b")
        assert isinstance(volume, Volume)
        assert volume.paths == ("/c d",)
        assert isinstance(shell, Shell)
        assert shell.words == ("/bin/bash", "-c")
        assert isinstance(maintainer, Maintainer)
        assert maintainer.author == "me <a@b>"
        assert isinstance(onbuild, Onbuild)
        assert onbuild.trigger == "RUN  x y"

    def test_healthcheck(self) -> None:
        found = only('HEALTHCHECK --interval=1m30s --timeout=500ms --retries=4 CMD ["true"]')
        assert isinstance(found, Healthcheck)
        assert found.command == Command(("true",), True)
        assert found.durations == {"interval": 90 * 10**9, "timeout": 500 * 10**6}
        assert found.retries == 4

    def test_no_healthcheck(self) -> None:
        found = only("HEALTHCHECK NONE")
        assert isinstance(found, Healthcheck)
        assert found.command is None

    def test_a_backtick_escapes(self) -> None:
        dockerfile = parse_dockerfile(b"# escape=`\nFROM a\nRUN a `\n  b\nCOPY a c:\\\\\n")
        assert dockerfile.escape == "`"
        run = dockerfile.instructions[1]
        assert isinstance(run, Run)
        assert run.command.words == ("a   b",)

    def test_a_byte_order_mark_and_carriage_returns(self) -> None:
        found = parsed("\ufeffFROM a\r\nRUN b \\\r\n c\r\n")
        assert [type(each) for each in found] == [From, Run]

    def test_a_trigger_has_no_line(self) -> None:
        trigger = parse_trigger("COPY a b", "\\")
        assert isinstance(trigger, Copy)
        assert trigger.line == 0


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "no instructions"),
        ("# nothing\n", "no instructions"),
        ("FROM a\nFOO bar", "line 2: unknown instruction: FOO"),
        ("FROM a b", "line 1: FROM"),
        ("FROM a AS 1x", "invalid name"),
        ("FROM a AS b/c", "invalid name"),
        ("FROM a\nCOPY a", "line 2: COPY: requires at least 2 arguments"),
        ("FROM a\n\nRUN", "line 3: RUN: requires at least 1 argument"),
        ("FROM a\nRUN --foo=1 x", "unknown flag: --foo"),
        ("FROM a\nCOPY --from a b", "missing a value on flag: --from"),
        ("FROM a\nCOPY --link=maybe a b", "--link is true or false"),
        ("FROM a\nCOPY --chown=1 --chown=2 a b", "duplicate flag"),
        ("FROM a\nRUN <<EOF\nx\n", "unterminated heredoc"),
        ("FROM a\nENV a", "line 2"),
        ("FROM a\nENV a=1 b", "can't find = in"),
        ("FROM a\nLABEL =b", "blank"),
        ("FROM a\nSHELL /bin/sh", "JSON form"),
        ("FROM a\nONBUILD ONBUILD RUN x", "chaining ONBUILD"),
        ("FROM a\nONBUILD FROM x", "isn't allowed as an ONBUILD trigger"),
        ("FROM a\nONBUILD", "at least one argument"),
        ("FROM a\nHEALTHCHECK CMD", "unknown type"),
        ("FROM a\nHEALTHCHECK --interval=soon CMD x", "not a duration"),
        ("FROM a\nHEALTHCHECK --retries=0 CMD x", "at least 1"),
        ("FROM a\nWORKDIR", "exactly one argument"),
        ("FROM a\nRUN --security=insecure x", "--security"),
        ("FROM a\nADD --keep-git-dir=true a b", "git"),
        ("# escape=x\nFROM a", "escape"),
        ("FROM a\nCMD [1]", "Only strings"),
    ],
)
def test_what_is_wrong_is_refused_with_its_line(text: str, words: str) -> None:
    with pytest.raises(BadRequest) as caught:
        parse_dockerfile(text.encode())
    assert words in caught.value.message


def test_bytes_that_are_no_text_are_refused() -> None:
    with pytest.raises(BadRequest, match="not UTF-8"):
        parse_dockerfile(b"FROM \xff")
    with pytest.raises(BadRequest, match="longer than"):
        parse_dockerfile(b"#" * (5 << 20))


@pytest.mark.parametrize("text", ["FROM x", "ONBUILD RUN x", "RUN a\nRUN b", "NOPE", ""])
def test_what_no_trigger_can_be(text: str) -> None:
    with pytest.raises(BadRequest, match="ONBUILD"):
        parse_trigger(text, "\\")
