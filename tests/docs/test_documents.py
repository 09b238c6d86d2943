"""The documents keep their word: every block of code in them is run, or says why it need not be.

What a block is, its info string says; an HTML comment on the line before may say more:

- `sh`: run by bash, stopping at the first failure;
- `console`: lines after `$ ` are run, the lines below each are what it must print (`...` for any);
- `python`: with a first line `# NAME.py` it becomes that file, and a `test_*.py` is then run by
  pytest; without one it is run as a script;
- `toml`, `ini`: with a first line `# NAME` it becomes that file;
- `text`: shown, never run.

`<!-- file: PATH -->`: the block is that file of the repository, word for word, and run where it
lives. `<!-- run by PATH -->`: that file of the repository runs it. `<!-- fails -->`: the tests in
the block fail, as the text says. `<!-- needs: NAME -->`: a capability of tests/conftest.py.

The blocks of one document share a directory and run in order, with a service of their own.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[2]
DOCUMENTS = sorted(
    [
        *REPOSITORY.glob("*.md"),
        *(REPOSITORY / "docs").rglob("*.md"),
        REPOSITORY / "service" / "deploy" / "README.md",
    ]
)
LANGUAGES = {"sh", "console", "python", "toml", "ini", "text"}
RUN_BY_CI = "run by .ci/run"

_BLOCK = re.compile(
    r"(?:^<!-- (?P<mark>[^\n]*) -->\n)?^```(?P<language>[^\n]*)\n(?P<code>.*?)^```$",
    re.MULTILINE | re.DOTALL,
)
_REMOVE = """
import shutil, sys
from sandboxd.linux import idmap

idmap.enter_outer_namespace(idmap.choose())  # files in there may belong to subordinate ids
shutil.rmtree(sys.argv[1])
"""
_LINK = re.compile(r"\]\((?!https?:|#|mailto:)([^)#]+)")


@dataclass(frozen=True)
class Block:
    document: Path
    line: int
    language: str
    mark: str
    code: str

    def __str__(self) -> str:
        return f"{self.document.relative_to(REPOSITORY)}:{self.line}"

    def marked(self, keyword: str) -> str | None:
        """The rest of the mark when it begins with `keyword`."""
        return self.mark.removeprefix(keyword).strip() if self.mark.startswith(keyword) else None

    @property
    def file_name(self) -> str | None:
        first = self.code.partition("\n")[0]
        found = re.fullmatch(r"# ([\w.]+\.(?:py|toml|ini))", first)
        return found[1] if found else None


def blocks(document: Path) -> Iterator[Block]:
    text = document.read_text()
    for found in _BLOCK.finditer(text):
        line = text.count("\n", 0, found.start("language")) + 1
        mark = found["mark"] or ""
        yield Block(document, line, found["language"], mark, found["code"])


def _needs(document: Path) -> list[pytest.MarkDecorator]:
    names = {
        name
        for block in blocks(document)
        for name in (block.marked("needs:") or "").split()
        if block.language != "text"
    }
    return [getattr(pytest.mark, f"needs_{name}") for name in sorted(names | {"userns"})]


def _named(document: Path) -> str:
    return str(document.relative_to(REPOSITORY))


@pytest.mark.parametrize("document", DOCUMENTS, ids=_named)
def test_every_block_says_what_it_is(document: Path) -> None:
    fences = document.read_text().count("\n```")
    found = list(blocks(document))
    assert fences == 2 * len(found), f"{document}: an indented or unclosed block"
    unknown = [f"{block}: {block.language!r}" for block in found if block.language not in LANGUAGES]
    assert not unknown


@pytest.mark.parametrize("document", DOCUMENTS, ids=_named)
def test_links_lead_somewhere(document: Path) -> None:
    targets = _LINK.findall(document.read_text())
    missing = [target for target in targets if not (document.parent / target).exists()]
    assert not missing


@pytest.mark.parametrize("heading", ["Try it", "Test it"])
def test_readme_has_one_block_of_commands_that_ci_runs(heading: str) -> None:
    readme = REPOSITORY / "README.md"
    section = re.search(rf"^## {heading}\n(.*?)(?=^## |\Z)", readme.read_text(), re.M | re.S)
    assert section is not None
    commands = [found for found in _BLOCK.finditer(section[1]) if found["language"] == "sh"]
    assert [found["mark"] for found in commands] == [RUN_BY_CI]
    assert f'"{heading}"' in (REPOSITORY / ".ci" / "run").read_text()


@pytest.mark.parametrize(
    "document",
    [pytest.param(document, marks=_needs(document)) for document in DOCUMENTS],
    ids=_named,
)
@pytest.mark.timeout(300)
def test_blocks_do_what_they_show(
    document: Path, tmp_path: Path, environ: Mapping[str, str]
) -> None:
    (tmp_path / "pytest.ini").write_text("[pytest]\n")
    for block in blocks(document):
        _check(block, tmp_path, environ)


@pytest.fixture
def environ(tmp_path: Path) -> Iterator[dict[str, str]]:
    """As a newcomer has it: no service runs yet, the first command starts it."""
    base = Path(tempfile.mkdtemp(prefix="sbx-", dir="/tmp"))
    scripts = Path(sys.executable).parent
    yield os.environ | {
        "SANDBOX_HOST": f"unix://{base}/run/docker.sock",
        "SANDBOX_ROOT": str(base / "state"),
        "PATH": f"{scripts}:{os.environ['PATH']}",
        "HOME": str(tmp_path),
        "COLUMNS": "100",
        "NO_COLOR": "1",
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    stop = [str(scripts / "sandboxctl"), "service", "stop"]
    subprocess.run(stop, env={"SANDBOX_HOST": f"unix://{base}/run/docker.sock"}, timeout=60)
    subprocess.run([sys.executable, "-c", _REMOVE, str(base)], check=True, timeout=60)


def _check(block: Block, directory: Path, environ: Mapping[str, str]) -> None:
    if block.language == "text":
        return
    if (path := block.marked("run by")) is not None:
        assert (REPOSITORY / path).is_file(), f"{block}: there is no {path}"
        return
    if (path := block.marked("file:")) is not None:
        assert block.code == (REPOSITORY / path).read_text(), f"{block} is not {path}"
    elif block.language == "console":
        _check_console(block, directory, environ)
    elif block.language == "sh":
        _run(block, ["bash", "-euo", "pipefail", "-c", block.code], directory, environ)
    elif block.file_name is not None:
        (directory / block.file_name).write_text(block.code)
        if block.file_name.startswith("test_"):
            _run_tests(block, block.file_name, directory, environ)
    elif block.language == "python":
        _run(block, [sys.executable, "-c", block.code], directory, environ)
    else:
        pytest.fail(f"{block}: a {block.language} block that names no file proves nothing")


def _run(
    block: Block, argv: list[str], directory: Path, environ: Mapping[str, str], status: int = 0
) -> str:
    done = subprocess.run(
        argv,
        cwd=directory,
        env=environ,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=240,
    )
    assert done.returncode == status, f"{block} ended with {done.returncode}:\n{done.stdout}"
    return done.stdout


def _run_tests(block: Block, name: str, directory: Path, environ: Mapping[str, str]) -> None:
    argv = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", name]
    _run(block, argv, directory, environ, status=1 if block.mark == "fails" else 0)


def _check_console(block: Block, directory: Path, environ: Mapping[str, str]) -> None:
    for part in re.split(r"^\$ ", block.code, flags=re.MULTILINE)[1:]:
        command, _, shown = part.partition("\n")
        printed = _run(block, ["bash", "-euo", "pipefail", "-c", command], directory, environ)
        pattern = re.sub(r"([\[\]?])", r"[\1]", shown.rstrip("\n")).replace("...", "*")
        assert fnmatchcase(printed.rstrip("\n"), pattern), f"{block}: {command}\n{printed}"
