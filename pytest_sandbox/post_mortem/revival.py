"""Containers over what was kept of a failed test's: images that they were made to, volumes filled
from their archives.
"""

from __future__ import annotations

import os
import posixpath
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pytest_sandbox.errors import NotFound
from pytest_sandbox.post_mortem import rerun
from pytest_sandbox.post_mortem.shelf import Kept
from pytest_sandbox.post_mortem.state import VOLUMES, ContainerState
from pytest_sandbox.post_mortem.variables import STATE

if TYPE_CHECKING:
    from pytest_sandbox.client.session import Client
    from pytest_sandbox.client.volume import Volume


def run_in_container(kept: Kept, command: Sequence[str], fixture: str | None) -> int:
    """Run a command, or a shell, in a new container over the kept state of a fixture's.

    Returns its exit code. Raises NotFound, and what making and starting a container raises.
    """
    from pytest_sandbox import connect
    from pytest_sandbox.cli.running import run_in_foreground

    chosen = _chosen(kept, fixture)
    terminal = sys.stdin.isatty() and sys.stdout.isatty()
    with connect() as client:
        body = revived(client, kept, chosen, chosen.body)
        body |= {
            "Entrypoint": list(command or ["sh"]),
            "Cmd": [],
            "Tty": terminal,
            "OpenStdin": True,
            "StdinOnce": True,
            "AttachStdin": True,
            "AttachStdout": True,
            "AttachStderr": True,
        }
        container = client.create_container(body)
        options = {"interactive": True, "tty": terminal, "rm": False}
        return run_in_foreground(client, container, options)


def run_again(kept: Kept, options: Sequence[str]) -> int:
    """Run the test with its fixtures' containers made from what is kept; pytest's exit code."""
    import subprocess

    words = rerun.command(kept.state, options)
    environ = {**kept.state.environ, STATE: str(kept.path)}
    for name in ("SANDBOX_HOST", "SANDBOX_ROOT"):
        if name in os.environ:
            environ[name] = os.environ[name]
    return subprocess.run(words, cwd=kept.state.directory, env=environ).returncode


def revived(
    client: Client, kept: Kept, state: ContainerState, body: Mapping[str, Any]
) -> dict[str, Any]:
    """The body of a creation, with the kept image and volumes in their places."""
    host = dict(body.get("HostConfig") or {})
    mounts = [mount for mount in host.get("Mounts") or () if mount["Target"] not in state.volumes]
    for place, archive in state.volumes.items():
        volume = _filled(client, place, kept.path / VOLUMES / archive)
        mounts.append({"Type": "volume", "Source": volume.name, "Target": place})
    return {**body, "Image": state.image, "HostConfig": {**host, "Mounts": mounts}}


def _filled(client: Client, place: str, archive: Path) -> Volume:
    """A new volume with what was mounted at `place`, whose last name all entries begin with."""
    volume = client.volume()
    beside = f"/mnt/{posixpath.basename(place.rstrip('/'))}"
    with client.container("host", ["sleep", "infinity"], volumes={volume: beside}) as helper:
        helper.start()
        with archive.open("rb") as file:
            helper.put_archive("/mnt", file)
        helper.kill()
    return volume


def _chosen(kept: Kept, fixture: str | None) -> ContainerState:
    found = [each for each in kept.state.containers if fixture in (None, each.fixture, each.name)]
    if found:
        return found[0]
    names = ", ".join(each.fixture for each in kept.state.containers) or "none"
    what = f"{kept.state.nodeid}: no container {fixture or ''}".rstrip()
    why = "; ".join(kept.state.left_out) or f"there are: {names}"
    raise NotFound(what, why, "sandboxctl rerun runs the test again")
