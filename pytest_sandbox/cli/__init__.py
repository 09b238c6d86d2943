"""`sandboxctl` (also installed as `pytest-sandbox`): the service from a shell.

Commands and options are Docker's where Docker has them. A command's module is imported when the
command is used, and the modules of the client by the commands that need them, so that
`sandboxctl --help` and `ps` start at once.
"""

from __future__ import annotations

import sys
from importlib import import_module
from typing import Any, NoReturn

import click

from pytest_sandbox.cli import hangup

_COMMANDS = {
    "run": ("running:run", "Run a command in a new container."),
    "exec": ("running:exec_", "Run a command in a running container."),
    "ps": ("containers:ps", "List containers."),
    "logs": ("containers:logs", "Print what a container has written."),
    "stop": ("containers:stop", "Ask containers to end, and kill them after a while."),
    "kill": ("containers:kill", "Send a signal to containers."),
    "wait": ("containers:wait", "Wait until containers have ended."),
    "rm": ("containers:rm", "Remove containers."),
    "rename": ("containers:rename", "Give a container another name."),
    "inspect": ("containers:inspect", "Print containers, images, volumes or snapshots."),
    "commit": ("transfer:commit", "Make an image of what a container has written."),
    "diff": ("transfer:diff", "List what a container has changed."),
    "export": ("transfer:export", "Write a container's files to a tar archive."),
    "pull": ("pulling:pull", "Fetch an image from its registry."),
    "push": ("transfer:push", "Send an image to its registry."),
    "save": ("transfer:save", "Write images to a tar archive."),
    "load": ("images:load", "Load images from a tar archive."),
    "tag": ("images:tag", "Give an image another name."),
    "history": ("transfer:history", "List the steps that made an image."),
    "rmi": ("images:rm", "Remove images."),
    "build": ("building:build", "Build an image from a Dockerfile."),
    "images": ("images:images", "List images."),
    "image": ("images:image", "Make, list and remove images."),
    "volume": ("volumes:volume", "Make, list and remove volumes."),
    "snapshot": ("volumes:snapshot", "List, share and remove snapshots."),
    "shell": ("post_mortem:shell", "Enter the state that a failed test left."),
    "rerun": ("post_mortem:rerun", "Run a failed test again, on a clone of its state."),
    "registry": ("registry:registry", "Serve this machine's images as a registry."),
    "service": ("service:service", "Start, stop and look at the sandbox service."),
    "doctor": ("service:doctor", "Say whether this machine can run containers."),
    "env": ("environment:env", "Let Docker's clients in this shell use the service."),
    "context": ("environment:context", "Register the service with the docker command."),
    "version": ("service:version", "Print versions."),
}
"""Name: where the command is, and its line in the list of commands."""

_INTERRUPTED = 130


class _Commands(click.Group):
    """A group whose commands are imported one at a time."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in _COMMANDS:
            return None
        module, _, attribute = _COMMANDS[cmd_name][0].partition(":")
        found = getattr(import_module(f"pytest_sandbox.cli.{module}"), attribute)
        assert isinstance(found, click.Command)
        return found

    def make_context(
        self,
        info_name: str | None,
        args: list[str],
        parent: click.Context | None = None,
        **extra: Any,
    ) -> click.Context:
        with hangup.noticed():  # --help prints in here
            return super().make_context(info_name, args, parent, **extra)

    def invoke(self, ctx: click.Context) -> Any:
        with hangup.noticed():
            return super().invoke(ctx)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, line) for name, (_, line) in _COMMANDS.items()])


@click.command(cls=_Commands)
def root() -> None:
    """Throwaway containers with pre-populated volumes, without Docker or root.

    The service starts by itself when a command needs it. Its socket: $SANDBOX_HOST, else
    $XDG_RUNTIME_DIR/sandboxd/docker.sock, else /tmp/sandboxd-UID/docker.sock.
    """


def main() -> NoReturn:
    """Run the command line and exit: 1 for a failure, 2 for wrong usage, else the command's own."""
    try:
        status = root.main(standalone_mode=False)
    except hangup.HungUp:
        hangup.end()
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
