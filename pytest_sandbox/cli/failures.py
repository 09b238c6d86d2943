"""How a command that failed says so: what, why, and on a line of its own what would mend it."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sandboxd.errors import SandboxError


class CommandFailed(Exception):
    """A failure with an exit code of its own: 125, 126 and 127 of `run` and `exec`."""

    def __init__(self, error: SandboxError, exit_code: int) -> None:
        super().__init__(error, exit_code)
        self.error, self.exit_code = error, exit_code


def render(error: SandboxError | OSError) -> str:
    """The lines for standard error."""
    if isinstance(error, OSError):
        parts = (error.filename, error.strerror or str(error))
        return "sandboxctl: " + ": ".join(str(part) for part in parts if part)
    text = f"sandboxctl: {error.what}: {error.why}" if error.why else f"sandboxctl: {error.what}"
    return f"{text}\n  to mend it: {error.mend}" if error.mend else text
