"""What an install command resolves to: asked beforehand, or told by the installation itself.

pip reports, with hashes (pip.pypa.io, "Installation Report"). uv says what it has installed, and is
asked for the hashes. Another tool says nothing.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from pytest_sandbox.tox.installing import Installation
from pytest_sandbox.tox.job import Job

if TYPE_CHECKING:
    from pytest_sandbox.client.container import Container

Resolved = tuple[int, tuple[str, ...]]
"""The command's exit code; where it is 0, a line for each package."""


def foretold(job: Job, container: Container, installation: Installation, staging: Path) -> Resolved:
    """What the command would install now; nothing is."""
    if installation.tool == "other":
        return 0, ()
    return _told(job, container, installation, staging, installation.foretelling)


def installed(
    job: Job, container: Container, installation: Installation, staging: Path
) -> Resolved:
    """Install, and say what."""
    return _told(job, container, installation, staging, installation.reporting)


def _told(
    job: Job,
    container: Container,
    installation: Installation,
    staging: Path,
    command: Callable[[str], tuple[str, ...]],
) -> Resolved:
    report = staging / f"report-{secrets.token_hex(4)}"
    environ, cwd = installation.environ, str(installation.cwd)
    said = bytearray()
    err, job.err = job.err, _both(job.err, said)
    try:
        code = job.run(container, command(str(report)), env=environ, cwd=cwd)
        if code or installation.tool == "other":
            return code, ()
        if installation.tool == "pip":
            return 0, installation.reported(report.read_bytes())
        lines = installation.said(bytes(said))
    finally:
        job.err = err
        report.unlink(missing_ok=True)
    if installation.direct or not lines:
        return 0, lines
    return 0, _hashed(job, container, installation, report, lines)


def _hashed(
    job: Job,
    container: Container,
    installation: Installation,
    listed: Path,
    lines: tuple[str, ...],
) -> tuple[str, ...]:
    """The lines with uv's hashes, and as they were where it knows none."""
    listed.write_text("\n".join(lines))
    hashed = bytearray()
    command, cwd = installation.hashing(str(listed)), str(installation.cwd)
    code = job.run(container, command, env=installation.environ, cwd=cwd, out=hashed.extend)
    listed.unlink()
    text = hashed.decode().replace("\\\n", " ")
    found = tuple(sorted(" ".join(line.split()) for line in text.splitlines() if line.strip()))
    return lines if code else found


def _both(handler: Callable[[bytes], int], kept: bytearray) -> Callable[[bytes], int]:
    def take(data: bytes) -> int:
        kept.extend(data)
        return handler(data)

    return take
