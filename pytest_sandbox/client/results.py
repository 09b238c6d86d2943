"""What calls of the client return."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from pytest_sandbox.client.transport import Answer

RUN_CONTENT_TYPE = "application/vnd.sandbox.run"
"""Accept it from POST /sandbox/run, and the output comes as it is, not as base64 in JSON."""


@dataclass(frozen=True, slots=True)
class RunResult:
    """How a command ended.

    `exit_code` is the command's own, or 128 + the number of the signal that ended it. `stdout` and
    `stderr` are bytes (with a terminal everything is in `stdout`). `timed_out`: it was killed
    because the time allowed was over. `truncated`: there was more output than the service keeps.
    """

    exit_code: int
    stdout: bytes
    stderr: bytes
    timed_out: bool = False
    oom_killed: bool = False
    truncated: bool = False

    @classmethod
    def from_answer(cls, answer: Answer) -> RunResult:
        """Take apart a binary answer (RUN_CONTENT_TYPE): stdout, then stderr."""
        headers, body = answer.headers, answer.body
        split = int(headers["x-stdout-length"])
        return cls(
            int(headers["x-exit-code"]),
            body[:split],
            body[split:],
            headers.get("x-timed-out") == "true",
            headers.get("x-oom-killed") == "true",
            headers.get("x-truncated") == "true",
        )


@dataclass(frozen=True, slots=True)
class Image:
    """One image of the service. `size` in bytes, `created` in seconds since 1970."""

    id: str
    tags: tuple[str, ...]
    size: int
    created: float
    labels: dict[str, str] = field(default_factory=dict)

    @classmethod
    def from_row(cls, row: dict[str, Any]) -> Image:
        """An element of GET /images/json."""
        return cls(
            row["Id"],
            tuple(row.get("RepoTags") or ()),
            int(row.get("Size", 0)),
            float(row.get("Created", 0)),
            row.get("Labels") or {},
        )
