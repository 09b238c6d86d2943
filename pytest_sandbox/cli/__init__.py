"""`sandboxctl` (also installed as `pytest-sandbox`): the service from a shell.

Commands and options are Docker's where Docker has them. Modules of the client are imported by the
commands that need them, so that `sandboxctl --help` and `ps` start at once.
"""

from __future__ import annotations

import sys
from typing import NoReturn

import click

from pytest_sandbox.cli import containers, environment, images, running, service, volumes

_COMMANDS = (
    *(running.run, running.exec_, containers.ps, containers.logs, containers.stop),
    *(containers.kill, containers.wait, containers.rm, containers.rename, containers.inspect),
    *(images.images, images.image, volumes.volume, volumes.snapshot),
    *(service.service, service.doctor, environment.env, environment.context, service.version),
)
_INTERRUPTED = 130


class _InOrder(click.Group):
    """A group that lists its commands as they were added."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self.commands)


@click.group(cls=_InOrder)
def root() -> None:
    """Throwaway containers with pre-populated volumes, without Docker or root.

    The service starts by itself when a command needs it. Its socket: $SANDBOX_HOST, else
    $XDG_RUNTIME_DIR/sandboxd/docker.sock, else /tmp/sandboxd-UID/docker.sock.
    """


for _command in _COMMANDS:
    root.add_command(_command)


def main() -> NoReturn:
    """Run the command line and exit: 1 for a failure, 2 for wrong usage, else the command's own."""
    try:
        status = root.main(standalone_mode=False)
    except click.ClickException as error:
        error.show()
        status = error.exit_code
    except (click.Abort, KeyboardInterrupt):
        status = _INTERRUPTED
    except Exception as error:
        status = _report(error)
    sys.exit(status if isinstance(status, int) else 0)


def _report(error: Exception) -> int:
    """Print an error that a user can understand; raise any other again."""
    from pytest_sandbox.cli.failures import CommandFailed, render
    from pytest_sandbox.errors import SandboxError

    if isinstance(error, CommandFailed):
        click.echo(render(error.error), err=True)
        return error.exit_code
    if not isinstance(error, SandboxError | OSError):
        raise error
    click.echo(render(error), err=True)
    return 1
