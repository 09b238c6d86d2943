"""One thing that a test did to the world outside its tmp_path."""

from __future__ import annotations

from typing import Final, NamedTuple, Protocol

KINDS: Final = ("writes", "connections", "names", "processes", "sockets", "environment")
"""In the order in which they are shown."""

ATTRIBUTE: Final = "hermetic_escapes"
"""Of the report of a test's teardown, or of its crash: a list of lists of strings, which travels
from xdist's workers as the report's own fields do."""


class Escape(NamedTuple):
    """`kind` is one of KINDS; `verb` and `subject` make a phrase: `created`, `/home/me/.netrc`."""

    kind: str
    verb: str
    subject: str
    detail: str = ""
    """More about it, in a few words."""
    since: str = ""
    """The test that it goes back to, where that is another one in the same sandbox."""

    def __str__(self) -> str:
        notes = [note for note in (self.detail, self.since and f"since {self.since}") if note]
        return f"{self.verb} {self.subject}" + (f" ({', '.join(notes)})" if notes else "")


class _Report(Protocol):
    nodeid: str


def attach(report: _Report, escapes: list[Escape]) -> None:
    """Let the report carry them."""
    setattr(report, ATTRIBUTE, [list(escape) for escape in escapes])


def found_in(report: object) -> list[Escape]:
    """Those that a report carries, here or after it came from another process."""
    return [Escape(*fields) for fields in getattr(report, ATTRIBUTE, ())]
