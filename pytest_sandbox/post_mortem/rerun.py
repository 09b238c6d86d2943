"""The command line that runs a kept test again."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

from pytest_sandbox.post_mortem.state import State

_WITH_VALUE: Final = frozenset(
    ("-n", "--numprocesses", "--maxprocesses", "--dist", "--tx", "--px", "--basetemp")
    + ("--junitxml", "--junit-xml", "--report-log", "--sandbox-report", "--hermetic-require")
    + ("--hermetic-report", "--reruns")
)
"""Options that have no sense for one test in a sandbox, or would spoil what is kept; with a value
of their own or behind an equals sign."""
_ALONE: Final = frozenset(
    ("-d", "-f", "--looponfail", "--lf", "--last-failed", "--ff", "--failed-first")
    + ("--nf", "--new-first", "--sw", "--stepwise", "--sw-skip", "--stepwise-skip", "--hermetic")
)
_PLAIN: Final = "pytest_sandbox.post_mortem.plain"
"""The plugin that takes the marker `hermetic` away: the test is in its sandbox already."""

_RESUMED: Final = "pytest_sandbox.post_mortem.resumed"
"""The plugin that lets fixtures' containers go on from what is kept of them."""


def command(state: State, more: Sequence[str] = ()) -> list[str]:
    """For the directory that pytest was started in; `more` are further options of pytest."""
    test = f"{state.rootdir.rstrip('/')}/{state.nodeid}"
    pytest = [state.interpreter, "-m", "pytest", *_suitable(state.options)]
    resumed = ["-p", _RESUMED] if state.containers else []
    return [*pytest, "-p", _PLAIN, *resumed, "-p", "no:cacheprovider", *more, test]


def _suitable(options: Sequence[str]) -> Iterator[str]:
    words = iter(options)
    for word in words:
        name = word.partition("=")[0]
        if word in _WITH_VALUE:
            next(words, None)
        elif name not in _WITH_VALUE and name not in _ALONE and not _is_workers(word):
            yield word


def _is_workers(word: str) -> bool:
    """`-n2`, as pytest-xdist is told in one word."""
    return word.startswith("-n") and word[2:].isalnum() and not word.startswith("--")
