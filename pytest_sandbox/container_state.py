"""A container's state in a few words."""

from __future__ import annotations

from typing import Any

from pytest_sandbox.service_process import signal_name


def state_phrase(state: dict[str, Any]) -> str:
    """Docker's `State` in a few words: `running`, `exit code 3`, `exit code 137, SIGKILL`…"""
    if state["Status"] not in ("exited", "dead"):
        return str(state["Status"])
    words = [f"exit code {state['ExitCode']}"]
    if state["ExitCode"] > 128 and (name := signal_name(state["ExitCode"] - 128)):
        words.append(name)
    if state.get("OOMKilled"):
        words.append("out of memory")
    return ", ".join(words)
