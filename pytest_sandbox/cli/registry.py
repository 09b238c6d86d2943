"""`sandboxctl registry serve`: this machine's images, and what others push, for other machines."""

from __future__ import annotations

import os
import sys

import click


@click.group()
def registry() -> None:
    """Share images and snapshots with other machines."""


@registry.command()
@click.option(
    "--listen",
    default="127.0.0.1:5000",
    show_default=True,
    metavar="ADDRESS",
    help="HOST:PORT or unix:///PATH.",
)
@click.option("--read-only", is_flag=True, help="Nobody may push or delete.")
@click.option(
    "--token-file",
    type=click.Path(exists=True, dir_okay=False),
    help="Let in who shows one of these tokens: lines TOKEN [read|write].",
)
@click.option(
    "--htpasswd",
    type=click.Path(exists=True, dir_okay=False),
    help="Let in these users, who may write: htpasswd -B.",
)
@click.option("--tls-cert", type=click.Path(exists=True, dir_okay=False), help="Speak https.")
@click.option("--tls-key", type=click.Path(exists=True, dir_okay=False), help="Its private key.")
def serve(
    listen: str,
    read_only: bool,
    token_file: str | None,
    htpasswd: str | None,
    tls_cert: str | None,
    tls_key: str | None,
) -> None:
    """Serve an OCI registry over this user's images until interrupted.

    It has the local images, by their names, and whatever docker, podman, skopeo or sandboxctl push
    to it. What is pushed becomes a local image by a pull only. Other machines reach it when it
    listens elsewhere than on loopback, which needs --token-file, --htpasswd or --read-only.
    """
    command = [sys.executable, "-m", "sandboxd", "registry", "--listen", listen]
    command += ["--read-only"] if read_only else []
    files = {
        "--token-file": token_file,
        "--htpasswd": htpasswd,
        "--tls-cert": tls_cert,
        "--tls-key": tls_key,
    }
    for option, path in files.items():
        command += [option, path] if path else []
    sys.stdout.flush()
    os.execv(sys.executable, command)
