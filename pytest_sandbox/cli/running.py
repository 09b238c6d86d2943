"""`sandboxctl run` and `exec`: a command whose streams and exit code are the container's."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, cast

import click

from pytest_sandbox.cli import terminal
from pytest_sandbox.cli.failures import CommandFailed

if TYPE_CHECKING:
    from pytest_sandbox import Client, Container, ContainerOptions

_OWN_FAILURE = 125
_COMMAND_LINE = {"allow_interspersed_args": False}
_SAME_AS_KEYWORDS = (
    *("workdir", "user", "entrypoint", "hostname", "show", "read_only", "tty"),
    *("memory", "cpus", "pids_limit", "cap_add", "cap_drop", "network"),
)


def _process_options(command: Callable[..., int]) -> Callable[..., int]:
    """The options that `run` and `exec` share."""
    options = (
        click.option("-i", "--interactive", is_flag=True, help="Give it this standard input."),
        click.option("-t", "--tty", is_flag=True, help="Give it a terminal."),
        click.option("-e", "--env", multiple=True, metavar="NAME[=VALUE]", help="Set NAME in it."),
        click.option("-w", "--workdir", metavar="PATH", help="Start it there."),
        click.option("-u", "--user", metavar="USER[:GROUP]", help="Run it as this user."),
    )
    for option in reversed(options):
        command = option(command)
    return command


@click.command(context_settings=_COMMAND_LINE)
@_process_options
@click.option("-d", "--detach", is_flag=True, help="Print the id and leave it running.")
@click.option("--rm", is_flag=True, help="Remove it once it has ended.")
@click.option("--name", help="Name it.")
@click.option("-v", "--volume", "volumes", multiple=True, metavar="SOURCE:PATH[:ro]",
              help="Mount a host path or a volume.")  # fmt: skip
@click.option("--tmpfs", multiple=True, metavar="PATH[:OPTIONS]", help="Mount an empty tmpfs.")
@click.option("--show", multiple=True, metavar="PATH",
              help="Image host: show this path, which it hides.")  # fmt: skip
@click.option("--read-only", is_flag=True, help="Mount its root read-only.")
@click.option("--entrypoint", metavar="COMMAND", help="Replace the image's entrypoint.")
@click.option("--init", is_flag=True, help="Run a reaper as process 1.")
@click.option("-h", "--hostname", help="Its host name.")
@click.option("--network", metavar="MODE",
              help="Join the network of container:NAME or pid:PID.")  # fmt: skip
@click.option("-l", "--label", "labels", multiple=True, metavar="NAME=VALUE", help="Label it.")
@click.option("-m", "--memory", metavar="BYTES", help="Limit its memory: 64m, 1g.")
@click.option("--cpus", type=float, metavar="NUMBER", help="Limit its CPU time: 0.5.")
@click.option("--pids-limit", type=int, metavar="NUMBER", help="Limit its processes.")
@click.option("--cap-add", multiple=True, metavar="NAME", help="Add a capability.")
@click.option("--cap-drop", multiple=True, metavar="NAME", help="Drop a capability.")
@click.option("--pull", type=click.Choice(("missing", "always", "never")), default="missing",
              help="When to ask the image's registry.")  # fmt: skip
@click.argument("image")
@click.argument("args", nargs=-1, type=click.UNPROCESSED, metavar="[COMMAND]...")
def run(image: str, args: tuple[str, ...], **options: Any) -> int:
    """Run a command in a new container.

    IMAGE is `host`, the machine's own root, read-only below a private layer, or any other image,
    pulled when it is missing. The exit code is the command's own; 127 when it was not found, 126
    when it could not be executed, 125 when there was another failure.
    """
    with _failing_with(_OWN_FAILURE):
        return _run(image, args, options)


def _run(image: str, args: tuple[str, ...], options: dict[str, Any]) -> int:
    from pytest_sandbox import connect

    foreground = not options["detach"]
    if options["tty"] and options["interactive"] and foreground:
        terminal.require_terminal()
    body = container_body(image, args, options)
    with connect(lease=foreground and options["rm"]) as client:
        _settle_pulls(client, image, options["pull"])
        _keep_named_volumes(client, body)
        container = client.create_container(body, name=options["name"])
        if foreground:
            return run_in_foreground(client, container, options)
        container.start()
        click.echo(container.id)
        return 0


def _settle_pulls(client: Client, image: str, policy: str) -> None:
    """When the image is pulled, and that whoever waits for it sees how far it is."""
    from pytest_sandbox.cli.pulling import pull_progress

    def fetch(reference: str) -> None:
        with pull_progress() as progress:
            client.pull(reference, progress=progress)

    client.pulls_missing = policy != "never"
    client.fetch_image = fetch
    if policy == "always":
        fetch(image)


def _keep_named_volumes(client: Client, body: dict[str, Any]) -> None:
    """Make the volumes that `-v NAME:…` names, so that the lease of this run does not own them."""
    from pytest_sandbox.errors import Conflict

    for bind in body["HostConfig"]["Binds"]:
        name = bind.partition(":")[0]
        if not name.startswith("/"):
            # A conflict: it is there, and of another driver.
            with suppress(Conflict):
                client.call("POST", "/volumes/create", body={"Name": name})


def container_body(image: str, args: tuple[str, ...], options: dict[str, Any]) -> dict[str, Any]:
    """The Engine API's body for the command line of `run`; decides everything, calls nothing."""
    from pytest_sandbox.client.options import create_body

    wished: dict[str, Any] = {
        "env": _environment(options["env"]),
        "labels": dict(_pair(each, "=") for each in options["labels"]),
        "tmpfs": dict(_pair(each, ":") for each in options["tmpfs"]),
        "open_stdin": options["interactive"],
        "auto_remove": options["rm"],
        "init": options["init"] or None,
        **{name: options[name] for name in _SAME_AS_KEYWORDS},
    }
    body = create_body(image, args or None, cast("ContainerOptions", wished))
    attached = not options["detach"]
    body |= {
        "AttachStdin": options["interactive"] and attached,
        "AttachStdout": attached,
        "AttachStderr": attached,
        "StdinOnce": options["interactive"] and attached,
        "Volumes": {volume: {} for volume in options["volumes"] if ":" not in volume},
    }
    body["HostConfig"]["Binds"] = [_bind(each) for each in options["volumes"] if ":" in each]
    if options["tty"] and (size := terminal.size()):
        body["HostConfig"]["ConsoleSize"] = size
    return body


def run_in_foreground(client: Client, container: Container, options: dict[str, Any]) -> int:
    """Attach, start, copy the streams until they end; the exit code. `options` are `run`'s.

    Attached and waited for before the start, so that neither output nor exit code is missed.
    """
    interactive, tty = options["interactive"], options["tty"]
    condition = {"condition": "removed" if options["rm"] else "next-exit"}
    with (
        container.attach(stdin=interactive) as attachment,
        client.stream("POST", f"/containers/{container.id}/wait", condition) as outcome,
    ):
        with terminal.session(interactive, tty, container.resize, container.kill):
            container.start()
            terminal.pump(attachment, interactive)
        return int(json.loads(b"".join(outcome))["StatusCode"])


@click.command("exec", context_settings=_COMMAND_LINE)
@_process_options
@click.option("-d", "--detach", is_flag=True, help="Leave it running.")
@click.argument("container")
@click.argument("args", nargs=-1, required=True, type=click.UNPROCESSED, metavar="COMMAND...")
def exec_(container: str, args: tuple[str, ...], **options: Any) -> int:
    """Run a command in a running container.

    The exit code is the command's own, 127 when it was not found, 126 when it could not be
    executed.
    """
    with _failing_with(1):
        return _exec(container, args, options)


def _exec(reference: str, args: tuple[str, ...], options: dict[str, Any]) -> int:
    from pytest_sandbox import connect

    interactive, tty, detach = options["interactive"], options["tty"], options["detach"]
    if interactive and tty and not detach:
        terminal.require_terminal()
    with connect(lease=False) as client:
        container = client.get_container(reference)
        exec_id = container.create_exec(
            args,
            env=_environment(options["env"]),
            user=options["user"] or "",
            workdir=options["workdir"] or "",
            stdin=interactive and not detach,
            tty=tty,
            size=terminal.size() if tty else None,
        )
        if detach:
            client.call("POST", f"/exec/{exec_id}/start", body={"Detach": True, "Tty": tty})
            return 0

        def resize(rows: int, columns: int) -> None:
            client.call("POST", f"/exec/{exec_id}/resize", {"h": rows, "w": columns})

        with (
            terminal.session(interactive, tty, resize),
            container.start_exec(exec_id, tty=tty) as attachment,
        ):
            terminal.pump(attachment, interactive)
        return int(client.call("GET", f"/exec/{exec_id}/json")["ExitCode"])


@contextmanager
def _failing_with(exit_code: int) -> Iterator[None]:
    """Errors end the command line with this exit code, or with the one that a start failed with."""
    from pytest_sandbox.errors import SandboxError, StartFailed

    try:
        yield
    except StartFailed as error:
        raise CommandFailed(error, error.exit_code) from error
    except SandboxError as error:
        raise CommandFailed(error, exit_code) from error


def _environment(words: tuple[str, ...]) -> dict[str, str]:
    """NAME=VALUE as it is, NAME alone with the value that it has here, if any."""
    pairs = (word.partition("=") for word in words)
    return {
        name: value if equals else os.environ[name]
        for name, equals, value in pairs
        if equals or name in os.environ
    }


def _pair(word: str, separator: str) -> tuple[str, str]:
    name, _, value = word.partition(separator)
    return name, value


def _bind(word: str) -> str:
    """`SOURCE:PATH[:OPTIONS]`; a source such as ./x is a path from here, a bare name a volume."""
    source, rest = _pair(word, ":")
    if source.startswith((".", "~")):
        source = os.path.abspath(os.path.expanduser(source))
    return f"{source}:{rest}"
