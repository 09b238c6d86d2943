"""`sandboxctl shell` and `rerun`: the state of a failed test, entered and run again."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import click

from pytest_sandbox.cli.tables import ago, echo_table, megabytes

if TYPE_CHECKING:
    from pytest_sandbox.post_mortem.shelf import Kept

_COMMAND_LINE = {"allow_interspersed_args": False}


@click.command(context_settings=_COMMAND_LINE)
@click.option("-c", "--container", metavar="FIXTURE", help="This fixture's container.")
@click.argument("nodeid", required=False)
@click.argument("command", nargs=-1, type=click.UNPROCESSED, metavar="[-- COMMAND]...")
def shell(nodeid: str | None, command: tuple[str, ...], container: str | None) -> int:
    """Enter the state that a failed test left, or run a command in it.

    NODEID is the test's id, or its end; without one, the tests whose state is kept are listed. What
    happens inside changes nothing of what is kept. The exit code is the command's own.
    """
    command = _behind_dashes(command)
    if nodeid is None:
        _list()
        return 0
    kept = _kept(nodeid)
    if container is not None or not kept.state.hermetic:
        from pytest_sandbox.post_mortem.revival import run_in_container

        return run_in_container(kept, command, container)
    from pytest_sandbox.post_mortem.entering import run_inside

    return run_inside(kept, command or [_shell_of(kept)], kept.state.directory)


@click.command(context_settings=_COMMAND_LINE)
@click.argument("nodeid")
@click.argument("options", nargs=-1, type=click.UNPROCESSED, metavar="[-- OPTION]...")
def rerun(nodeid: str, options: tuple[str, ...]) -> int:
    """Run a failed test again, on a clone of the state that it left.

    NODEID is the test's id, or its end; the rest goes to pytest, such as --pdb. The exit code is
    pytest's own.
    """
    from pytest_sandbox.post_mortem import rerun

    kept, options = _kept(nodeid), _behind_dashes(options)
    if not kept.state.hermetic:
        from pytest_sandbox.post_mortem.revival import run_again

        return run_again(kept, options)
    from pytest_sandbox.post_mortem.entering import run_inside

    return run_inside(kept, rerun.command(kept.state, options), kept.state.directory)


def _behind_dashes(words: tuple[str, ...]) -> tuple[str, ...]:
    """The first `--` ends our own arguments and is none of the command's."""
    return words[1:] if words[:1] == ("--",) else words


def _kept(nodeid: str) -> Kept:
    from pytest_sandbox.post_mortem.finding import find
    from pytest_sandbox.post_mortem.shelf import Shelf

    return find(Shelf().kept(), nodeid, os.getcwd())


def _list() -> None:
    from pytest_sandbox.post_mortem.shelf import Shelf

    rows = [
        (kept.state.nodeid, ago(kept.state.when), megabytes(kept.state.size), kept.state.rootdir)
        for kept in Shelf().kept()
    ]
    echo_table(("TEST", "FAILED", "SIZE", "PROJECT"), rows)


def _shell_of(kept: Kept) -> str:
    return kept.state.environ.get("SHELL") or "sh"
