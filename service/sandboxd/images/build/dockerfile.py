"""Dockerfiles as typed instructions: https://docs.docker.com/reference/dockerfile/.

The splitting into instructions, flags, words and heredocs is `e2b-dockerfile-utils`, a port of
BuildKit's parser; nothing outside this module and `expansion` knows of it. Words are as written:
variables are expanded when the stage that they belong to has got that far.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from typing import Final

import e2b_dockerfile_utils as syntax

from sandboxd.errors import BadRequest
from sandboxd.images.build.instructions import (
    SCRIPT,
    Arg,
    Cmd,
    Command,
    Copy,
    Dockerfile,
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

_SIZE_MAX: Final = 4 << 20
_FLAGS: Final = {
    "ADD": ("chown", "chmod", "checksum", "link", "exclude", "unpack", "keep-git-dir"),
    "COPY": ("from", "chown", "chmod", "link", "parents", "exclude"),
    "FROM": ("platform",),
    "HEALTHCHECK": ("interval", "timeout", "start-period", "start-interval", "retries"),
    "RUN": ("mount", "network", "security", "device"),
}
_SWITCHES: Final = frozenset(("link", "parents", "unpack", "keep-git-dir"))
_REPEATED: Final = frozenset(("mount", "exclude"))
_NEVER_TRIGGERS: Final = ("ONBUILD", "FROM", "MAINTAINER")


@lru_cache(maxsize=32)
def parse_dockerfile(data: bytes) -> Dockerfile:
    """Raises BadRequest that names the line."""
    if len(data) > _SIZE_MAX:
        raise BadRequest("Dockerfile", f"longer than {_SIZE_MAX} bytes")
    try:
        ast = syntax.parse_dockerfile_ast(data.decode())
    except UnicodeDecodeError as error:
        raise BadRequest("Dockerfile", f"it is not UTF-8: {error}") from error
    except (ValueError, RecursionError) as error:
        raise BadRequest(_lowered(str(error))) from error
    if not ast.instructions:
        raise BadRequest("the Dockerfile has no instructions")
    found = tuple(_typed(each) for each in ast.instructions)
    warnings = tuple(f"line {each.line}: {each.message}" for each in ast.warnings)
    return Dockerfile(found, ast.escape_token, warnings)


def parse_trigger(text: str, escape: str) -> Instruction:
    """The instruction that an ONBUILD of the base image adds; its line is 0.

    Raises BadRequest.
    """
    try:
        ast = syntax.parse_dockerfile_ast(f"# escape={escape}\n{text}\n")
    except (ValueError, RecursionError) as error:
        raise BadRequest(f"ONBUILD {text}", _lowered(str(error))) from error
    if len(ast.instructions) != 1 or ast.instructions[0].name in _NEVER_TRIGGERS:
        raise BadRequest(f"ONBUILD {text}", "it is not one instruction that may be a trigger")
    ast.instructions[0].start_line = 0
    return _typed(ast.instructions[0])


def _lowered(message: str) -> str:
    return message[:1].lower() + message[1:]


class _Flags:
    """The flags of one instruction, checked against those that it has."""

    def __init__(self, source: syntax.DockerfileInstruction) -> None:
        self._found: dict[str, list[str]] = {}
        for flag in source.flags:
            name, equals, value = flag.removeprefix("--").partition("=")
            if name not in _FLAGS.get(source.name, ()):
                raise _error(source, f"unknown flag: --{name}")
            if name in _SWITCHES:
                value = value if equals else "true"
                if value not in ("true", "false"):
                    raise _error(source, f"--{name} is true or false, not {value!r}")
            elif not equals:
                raise _error(source, f"missing a value on flag: --{name}")
            if name in self._found and name not in _REPEATED:
                raise _error(source, f"duplicate flag specified: --{name}")
            self._found.setdefault(name, []).append(value)

    def text(self, name: str) -> str:
        return self._found.get(name, [""])[0]

    def texts(self, name: str) -> tuple[str, ...]:
        return tuple(self._found.get(name, ()))

    def switch(self, name: str, otherwise: bool = False) -> bool:
        return self._found[name][0] == "true" if name in self._found else otherwise


def _typed(source: syntax.DockerfileInstruction) -> Instruction:
    make = _MAKERS[source.name]
    return make(source, _Flags(source))


def _error(source: syntax.DockerfileInstruction, why: str) -> BadRequest:
    where = f"on line {source.start_line}" if source.start_line else "in an ONBUILD trigger"
    return BadRequest(f"dockerfile parse error {where}: {source.name}", why)


def _at_least(source: syntax.DockerfileInstruction, count: int = 1) -> Sequence[str]:
    if len(source.args) < count or not any(source.args):
        plural = "argument" if count == 1 else "arguments"
        raise _error(source, f"requires at least {count} {plural}")
    return source.args


def _one(source: syntax.DockerfileInstruction) -> str:
    if len(source.args) != 1 or not source.args[0]:
        raise _error(source, "requires exactly one argument")
    return source.args[0]


def _base(source: syntax.DockerfileInstruction) -> tuple[int, str]:
    return source.start_line, source.original.strip()


def _from(source: syntax.DockerfileInstruction, flags: _Flags) -> From:
    args = source.args
    if len(args) not in (1, 3) or (len(args) == 3 and args[1].upper() != "AS"):
        raise _error(source, "requires either one or three arguments: IMAGE [AS NAME]")
    name = args[2].lower() if len(args) == 3 else ""
    plain = name.replace("-", "").replace("_", "").replace(".", "")
    if name and not (name[0].isalpha() and name.isascii() and plain.isalnum()):
        raise _error(source, f"invalid name for a build stage: {name!r}")
    return From(*_base(source), args[0], name, flags.text("platform"))


def _arg(source: syntax.DockerfileInstruction, _: _Flags) -> Arg:
    pairs = []
    for word in _at_least(source):
        name, equals, value = word.partition("=")
        if not name:
            raise _error(source, "ARG names can not be blank")
        pairs.append((name, value if equals else None))
    return Arg(*_base(source), tuple(pairs))


def _pairs(source: syntax.DockerfileInstruction) -> tuple[tuple[str, str], ...]:
    args = _at_least(source)
    pairs = tuple(zip(args[0::3], args[1::3], strict=True))
    if not all(key for key, _ in pairs):
        raise _error(source, "names can not be blank")
    return pairs


def _command(source: syntax.DockerfileInstruction, args: Sequence[str]) -> Command:
    if source.json and not args:
        return Command((), True)
    return Command(tuple(args), source.json)


def _heredocs(source: syntax.DockerfileInstruction) -> tuple[Heredoc, ...]:
    return tuple(
        Heredoc(
            each.name,
            syntax.chomp_heredoc_content(each.content) if each.chomp else each.content,
            each.expand,
        )
        for each in source.heredocs
    )


def _run(source: syntax.DockerfileInstruction, flags: _Flags) -> Run:
    _at_least(source)
    if flags.text("security") not in ("", "sandbox"):
        raise _error(source, "--security: a build step never gets more than its user has")
    if flags.text("device"):
        raise _error(source, "--device: a user namespace gives no access to devices")
    command, script = _run_command(source)
    return Run(*_base(source), command, script, flags.texts("mount"), flags.text("network"))


def _run_command(source: syntax.DockerfileInstruction) -> tuple[Command, str]:
    """The command, and the program for it to execute where a heredoc with `#!` is one."""
    if not source.heredocs:
        return _command(source, source.args), ""
    (line,) = source.args
    if len(source.heredocs) == 1 and syntax.parse_heredoc(line.strip()) is not None:
        content = _heredocs(source)[0].content
        if content.startswith("#!"):
            return Command((SCRIPT,), True), content
        return Command((content,), False), ""
    # The shell reads them from the lines that follow, as it would in a file.
    documents = "".join(f"\n{each.content}{each.name}" for each in source.heredocs)
    return Command((line + documents,), False), ""


def _copy(source: syntax.DockerfileInstruction, flags: _Flags) -> Copy:
    args = _at_least(source, 2)
    if flags.switch("keep-git-dir"):
        raise _error(source, "--keep-git-dir: git repositories cannot be added")
    heredocs = {each.name: each for each in _heredocs(source)}
    sources: list[str | Heredoc] = []
    for word in args[:-1]:
        marker = None if source.json else syntax.parse_heredoc(word)
        sources.append(heredocs[marker.name] if marker and marker.name in heredocs else word)
    return Copy(
        *_base(source),
        is_add=source.name == "ADD",
        sources=tuple(sources),
        target=args[-1],
        origin=flags.text("from"),
        owner=flags.text("chown"),
        mode=flags.text("chmod"),
        link=flags.switch("link"),
        parents=flags.switch("parents"),
        excludes=flags.texts("exclude"),
        checksum=flags.text("checksum"),
        unpack=flags.switch("unpack", True),
    )


def _healthcheck(source: syntax.DockerfileInstruction, flags: _Flags) -> Healthcheck:
    kind, *args = _at_least(source)
    if kind.upper() == "NONE":
        if args and any(args):
            raise _error(source, "HEALTHCHECK NONE takes no arguments")
        return Healthcheck(*_base(source), None)
    if kind.upper() != "CMD" or not any(args):
        raise _error(source, f"unknown type {kind!r}: NONE, or CMD with a command")
    retries = flags.text("retries")
    if retries and not (retries.isdigit() and int(retries) > 0):
        raise _error(source, "--retries must be at least 1")
    durations = {}
    for name in ("interval", "timeout", "start-period", "start-interval"):
        if text := flags.text(name):
            durations[name] = _nanoseconds(source, name, text)
    return Healthcheck(
        *_base(source), Command(tuple(args), source.json), durations, int(retries or 0)
    )


_UNITS: Final = {"ns": 1, "us": 1000, "µs": 1000, "ms": 10**6, "s": 10**9, "m": 60 * 10**9,
                 "h": 3600 * 10**9}  # fmt: skip


def _nanoseconds(source: syntax.DockerfileInstruction, name: str, text: str) -> int:
    """Go's time.ParseDuration, for durations that are not negative: `1m30s`."""
    total, rest = 0.0, text
    while rest:
        digits = rest[: len(rest) - len(rest.lstrip("0123456789."))]
        rest = rest[len(digits) :]
        unit = rest[: len(rest) - len(rest.lstrip("nuµmsh"))]
        # "m" and "s" of one duration stand apart by digits, so the letters are one unit.
        rest = rest[len(unit) :]
        if not digits or digits.count(".") > 1 or digits == "." or unit not in _UNITS:
            raise _error(source, f"--{name}: {text!r} is not a duration such as 30s or 1m30s")
        total += float(digits) * _UNITS[unit]
    return int(total)


def _shell(source: syntax.DockerfileInstruction, _: _Flags) -> Shell:
    if not source.json or not source.args:
        raise _error(source, "requires the arguments to be in JSON form")
    return Shell(*_base(source), tuple(source.args))


def _onbuild(source: syntax.DockerfileInstruction, _: _Flags) -> Onbuild:
    text = source.original.strip()[len("ONBUILD") :].strip()
    name = text.split(None, 1)[0].upper() if text else ""
    if not name:
        raise _error(source, "requires at least one argument")
    if name == "ONBUILD":
        raise _error(source, "chaining ONBUILD via `ONBUILD ONBUILD` isn't allowed")
    if name in _NEVER_TRIGGERS:
        raise _error(source, f"{name} isn't allowed as an ONBUILD trigger")
    return Onbuild(*_base(source), text)


_Maker = Callable[[syntax.DockerfileInstruction, _Flags], Instruction]

_MAKERS: Final[Mapping[str, _Maker]] = {
    "ADD": _copy,
    "ARG": _arg,
    "CMD": lambda source, _: Cmd(*_base(source), _command(source, source.args)),
    "COPY": _copy,
    "ENTRYPOINT": lambda source, _: Entrypoint(*_base(source), _command(source, source.args)),
    "ENV": lambda source, _: Env(*_base(source), _pairs(source)),
    "EXPOSE": lambda source, _: Expose(*_base(source), tuple(_at_least(source))),
    "FROM": _from,
    "HEALTHCHECK": _healthcheck,
    "LABEL": lambda source, _: Label(*_base(source), _pairs(source)),
    "MAINTAINER": lambda source, _: Maintainer(*_base(source), _one(source)),
    "ONBUILD": _onbuild,
    "RUN": _run,
    "SHELL": _shell,
    "STOPSIGNAL": lambda source, _: Stopsignal(*_base(source), _one(source)),
    "USER": lambda source, _: User(*_base(source), _one(source)),
    "VOLUME": lambda source, _: Volume(*_base(source), tuple(_at_least(source))),
    "WORKDIR": lambda source, _: Workdir(*_base(source), _one(source)),
}
