"""An install command taken apart: what its outcome depends on, and what it resolves to.

Nothing is installed here. pip and uv resolve by themselves; another installer's command counts by
its text alone.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import tarfile
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Literal

from pytest_sandbox.python_images.requirements import pinned

Tool = Literal["pip", "uv", "other"]

_ENVIRONMENT: Final = re.compile(r"(PIP|UV|VIRTUALENV)_\w+|\w*FLAGS|CC|CXX|PKG_CONFIG\w*")
_VIRTUALENV: Final = re.compile(r"VIRTUALENV_\w+")
_LINKS: Final = ("PIP_FIND_LINKS", "UV_FIND_LINKS")
_LISTS: Final = ("PIP_CONSTRAINT", "PIP_REQUIREMENT", "UV_CONSTRAINT", "UV_OVERRIDE")
_CONFIGURATION: Final = (
    *("/etc/pip.conf", "/etc/xdg/pip/pip.conf", "~/.config/pip/pip.conf", "~/.pip/pip.conf"),
    *("/etc/uv/uv.toml", "~/.config/uv/uv.toml", "~/.netrc", "~/.config/pip/netrc"),
)
_NO_INDEX: Final = ("PIP_NO_INDEX", "UV_OFFLINE")
_FALSE: Final = ("", "0", "no", "false", "off")
_OPTION: Final = re.compile(r"(-r|--requirements?|-c|--constraints?|-e|--editable)=?(.*)", re.S)
_ADDED: Final = re.compile(r"^ [+~] ([^\s=]+)==(\S+)(?: \(from (.*)\))?$", re.M)
_ARCHIVES: Final = (".whl", ".tar.gz", ".tgz", ".zip", ".tar.bz2")


@dataclass
class Installation:
    """One install command; `text` and `files` are all that decides what it does, the index apart.

    With `local` it needs no index. `tree` is a source directory that it installs from: what comes
    of that is never kept. `paths` must be visible where it runs.
    """

    command: tuple[str, ...]
    environ: Mapping[str, str]
    cwd: Path
    tool: Tool = "other"
    at: int = 0
    files: dict[str, str] = field(default_factory=dict)
    tree: str = ""
    paths: set[str] = field(default_factory=set)
    direct: bool = False
    """A source is named by path or address: the pinned packages alone would not find it."""
    _texts: list[str] = field(default_factory=list)

    @classmethod
    def of(cls, command: Sequence[str], environ: Mapping[str, str], cwd: Path) -> Installation:
        """Read the command, and the files that it names. Raises OSError."""
        found = cls(tuple(command), environ, cwd)
        found.tool, found.at = _tool(command)
        found._read()
        return found

    @property
    def local(self) -> bool:
        """Whether all that it installs is in files."""
        return "--no-deps" in self.command and bool(self.files) and not self.tree

    @property
    def offline(self) -> bool:
        """Whether it would ask no index anyway."""
        asked = [self.environ.get(name, "").lower() for name in _NO_INDEX]
        return (
            any(value not in _FALSE for value in asked)
            or not {"--no-index", "--offline"}.isdisjoint(self.command)
            or (self.local and all(token.endswith(".whl") for token in self.files))
        )

    def described(self) -> list[object]:
        """For a key: equal where the command would do the same with one state of the index."""
        return [self.tool, self._texts, self._environ(_ENVIRONMENT), self.files]

    def described_alone(self) -> list[object]:
        """The same for a command that makes an environment and asks no index."""
        return [self._texts, self._environ(_VIRTUALENV)]

    def _environ(self, pattern: re.Pattern[str]) -> dict[str, str]:
        return {name: value for name, value in self.environ.items() if pattern.fullmatch(name)}

    def _read(self) -> None:
        option = ""
        for token in self.command:
            option = self._read_token(token, option)
        for name, value in self.environ.items():
            if _ENVIRONMENT.fullmatch(name):
                self._note_paths(value)
        for word in self.command[self.at :]:
            self._note_paths(word)
        for name in _LINKS:
            for place in self.environ.get(name, "").split():
                self._read_links(place)
        for name in _LISTS:
            for place in self.environ.get(name, "").split():
                self._read_list(place)
        named = (self.environ.get(name) for name in ("PIP_CONFIG_FILE", "UV_CONFIG_FILE", "NETRC"))
        for place in (*_CONFIGURATION, *filter(None, named)):
            path = os.path.expanduser(place)
            if os.path.isfile(path):
                self.files[path] = file_digest(Path(path))
                self.paths.add(path)
                self._note_paths(Path(path).read_text(errors="replace"))

    def _read_token(self, token: str, option: str) -> str:
        """Take in one word of the command; the option that the next word belongs to."""
        if token in ("-f", "--find-links"):
            self._texts.append(token)
            return "-f"
        found = _OPTION.fullmatch(token)
        if found and not found[2]:
            self._texts.append(token)
            return found[1]
        kind, value = (found[1], found[2]) if found else (option, token)
        if kind == "-f":
            self._read_links(value)
        elif kind.startswith(("-e", "--e")):
            self.tree = self.tree or value
            self.direct = True
        elif kind:
            self._read_list(value)
        elif not token.startswith("-"):
            token = self._read_requirement(token)
        self._texts.append(os.path.basename(value) if self._is_file(value) else token)
        return ""

    def _is_file(self, value: str) -> bool:
        return os.path.isfile(self._path(value))

    def _path(self, value: str) -> Path:
        return self.cwd / value.removeprefix("file://")

    def _read_requirement(self, text: str) -> str:
        """A package's file or source directory; of a file the name counts, else the words."""
        name, _, place = text.partition("@")
        place = place.strip() or text
        if "://" in place and not place.startswith("file://"):
            self.direct = True
            return text
        path = self._path(re.sub(r"\[[^]]*\]$", "", place))
        if place.endswith(_ARCHIVES) and path.is_file():
            self.files[path.name] = content_digest(path)
            self.paths.add(str(path))
            self.direct = True
            return f"{name if place != text else ''}@{path.name}"
        elif (os.sep in place or place.startswith(".")) and path.is_dir():
            self.tree = self.tree or str(path)
            self.direct = True
        return text

    def _read_list(self, value: str) -> None:
        """A file of requirements or constraints, with those that it includes."""
        path = self._path(value)
        if not path.is_file() or str(path) in self.paths:
            return
        self.paths.add(str(path))
        text = path.read_text(errors="replace")
        self._texts.append(text)
        for line in text.replace("\\\n", " ").splitlines():
            words = line.partition(" #")[0].split()
            if not words or words[0].startswith("#"):
                continue
            found = _OPTION.fullmatch(words[0])
            if found:
                named = found[2] or (words[1] if len(words) > 1 else "")
                if found[1].startswith(("-e", "--e")):
                    self.tree, self.direct = self.tree or named, True
                else:
                    self._read_list(str(path.parent / named))
            elif words[0] in ("-f", "--find-links") and len(words) > 1:
                self._read_links(words[1])
            elif not words[0].startswith("-"):
                self._read_requirement(line.partition(" #")[0].strip())

    def _read_links(self, value: str) -> None:
        """A directory of archives: what lies in it now counts, at once."""
        path = self._path(value)
        if not path.is_dir():
            return
        self.paths.add(str(path))
        entries = sorted(os.scandir(path), key=lambda entry: entry.name)
        stamps = [(e.name, e.stat().st_size, e.stat().st_mtime_ns) for e in entries]
        self.files[str(path)] = digest(stamps)

    def _note_paths(self, text: str) -> None:
        """Absolute paths in a tool's configuration, such as a local index."""
        for found in re.findall(r"(?:(?<![\w.:/])|(?<=file://))(/[\w./+-]+)", text):
            if os.path.exists(found):
                self.paths.add(found)

    # resolving

    def foretelling(self, report: str) -> tuple[str, ...]:
        """The command that tells what this one would install; pip writes a file."""
        before, after = self.command[: self.at], self.command[self.at :]
        if self.tool == "pip":
            return (*before, "--dry-run", "--quiet", "--report", report, *after)
        return (*before, "--dry-run", *after)

    def reporting(self, report: str) -> tuple[str, ...]:
        """This command, which tells what it installs."""
        if self.tool != "pip":
            return self.command
        return (*self.command[: self.at], "--report", report, *self.command[self.at :])

    def hashing(self, listed: str) -> tuple[str, ...]:
        """The command of uv that tells the hashes of the packages pinned in the file `listed`."""
        options = ("--no-deps", "--generate-hashes", "--no-header", "--no-annotate", "--quiet")
        return (*self.command[: self.at - 1], "compile", *options, *self._index_options(), listed)

    def reported(self, report: bytes) -> tuple[str, ...]:
        """Name, version and hash of each package in pip's report. Raises ValueError."""
        found = [self._entry(entry) for entry in json.loads(report)["install"]]
        return tuple(sorted(filter(None, found)))

    def said(self, errors: bytes) -> tuple[str, ...]:
        """Name and version of each package that uv says it installs."""
        lines = []
        for name, version, source in _ADDED.findall(errors.decode(errors="replace")):
            self.direct = self.direct or bool(source)
            lines.append(f"{name} @ {source}" if source else f"{name}=={version}")
        return tuple(sorted(lines))

    def _entry(self, entry: Mapping[str, Any]) -> str:
        source = entry["download_info"]
        if "dir_info" in source:
            self.tree = self.tree or source["url"]
            return ""
        if commit := source.get("vcs_info", {}).get("commit_id"):
            self.direct = True
            return f"{entry['metadata']['name']} @ {source['url']}@{commit}"
        return pinned(entry)

    def exactly(self, resolved: Sequence[str], listed: str) -> tuple[str, ...]:
        """The command that installs `resolved`, found in the file `listed`, and nothing else."""
        if self.direct or self.tool == "other" or not all("--hash" in line for line in resolved):
            return self.command
        kept = (*self.command[: self.at], *self._index_options())
        return (*kept, "--no-deps", "--require-hashes", "-r", listed)

    def _index_options(self) -> Iterator[str]:
        """Of the command's options those that say where packages come from, and which."""
        words = iter(self.command[self.at :])
        for word in words:
            name = word.partition("=")[0]
            if name in _VALUED:
                yield word
                if "=" not in word:
                    yield next(words, "")
            elif name in _FLAGS:
                yield word


_VALUED: Final = frozenset(
    {
        *("-i", "--index-url", "--extra-index-url", "-f", "--find-links", "--trusted-host"),
        *("--index", "--default-index", "--index-strategy", "--prerelease", "--no-binary"),
        *("--only-binary", "--exclude-newer", "--keyring-provider"),
    }
)
_FLAGS: Final = frozenset({"--no-index", "--pre", "--prefer-binary", "--no-build-isolation"})


def _tool(command: Sequence[str]) -> tuple[Tool, int]:
    """Whose command it is, and where the words behind `install` begin."""
    for at, word in enumerate(command):
        if word == "install" and at:
            before = command[at - 1]
            if before == "pip" and os.path.basename(command[0]) == "uv":
                return "uv", at + 1
            if os.path.basename(before).startswith("pip"):
                return "pip", at + 1
    return "other", 0


def digest(value: object) -> str:
    """Of plain data."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, default=str).encode()).hexdigest()


def file_digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def content_digest(path: Path) -> str:
    """Of what an archive holds, whatever its own time stamps: two builds of one tree are equal."""
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            return digest(
                sorted(
                    (name, hashlib.sha256(archive.read(name)).hexdigest())
                    for name in archive.namelist()
                )
            )
    if tarfile.is_tarfile(path):
        with tarfile.open(path) as tar:
            return digest(sorted(_tar_member(tar, member) for member in tar))
    return file_digest(path)


def _tar_member(tar: tarfile.TarFile, member: tarfile.TarInfo) -> tuple[str, int, str]:
    file = tar.extractfile(member) if member.isfile() else None
    content = hashlib.sha256(file.read()).hexdigest() if file else member.linkname
    return member.name, member.mode, content
