"""`sandboxctl env` and `context`: Docker's own clients on this service."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from pytest_sandbox.autostart import Service


def variables(service: Service) -> dict[str, str]:
    """What Docker clients and testcontainers need to use the service.

    Ryuk is testcontainers' own cleaner, a container that needs an image from a registry; the
    connection mode stops testcontainers from guessing an address where /.dockerenv exists.
    """
    return {
        "DOCKER_HOST": service.host,
        "TESTCONTAINERS_DOCKER_SOCKET_OVERRIDE": str(service.socket_path),
        "TESTCONTAINERS_CONNECTION_MODE": "docker_host",
        "TESTCONTAINERS_RYUK_DISABLED": "true",
    }


@click.command()
@click.option("-u", "--unset", is_flag=True, help="Print what takes it back.")
def env(unset: bool) -> None:
    """Print what makes Docker clients in this shell use the service, and start it.

    \b
        eval "$(sandboxctl env)"
    """
    from pytest_sandbox.autostart import Service

    service = Service()
    if unset:
        for name in variables(service):
            click.echo(f"unset {name}")
        return
    service.start()
    for name, value in variables(service).items():
        click.echo(f"export {name}={shlex.quote(value)}")


@click.command()
@click.option("--name", default="sandbox", show_default=True, help="Call it that.")
@click.option("--use", is_flag=True, help="Make it the current one.")
def context(name: str, use: bool) -> None:
    """Register the service as a context of the docker command."""
    import shutil
    import subprocess

    from pytest_sandbox.autostart import Service

    docker = shutil.which("docker")
    if docker is None:
        from pytest_sandbox.errors import HostLacks

        mend = "install the docker command, or: " + 'eval "$(sandboxctl env)"'
        raise HostLacks("registering a context", "there is no docker command", mend)

    def run(*words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run([docker, "context", *words], capture_output=True, text=True)

    service = Service()
    verb = "update" if run("inspect", name).returncode == 0 else "create"
    done = run(verb, name, "--docker", f"host={service.host}")
    if done.returncode == 0 and use:
        done = run("use", name)
    if done.returncode != 0:
        raise click.ClickException(done.stderr.strip())
    click.echo(f"{name}: {service.host}")
