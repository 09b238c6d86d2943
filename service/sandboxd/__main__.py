"""`python -m sandboxd serve|registry|reset|doctor`: the service's own entry points."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path


def main(argv: Sequence[str] | None = None) -> int:
    """Parse the command line and run; returns the exit status."""
    arguments = _parser().parse_args(argv)
    if arguments.command == "doctor":
        from sandboxd import doctor

        return doctor.main(json=arguments.json)
    if arguments.command == "registry":
        return _registry(arguments)
    if arguments.command == "reset":
        from sandboxd.reset import reset

        return reset(arguments.idmap)
    from sandboxd import service

    options = service.Options(arguments.ready_fd, arguments.idle, arguments.idmap)
    return service.serve(options)


def _registry(arguments: argparse.Namespace) -> int:
    from sandboxd import registry

    names = ("listen", "read_only", "token_file", "htpasswd", "tls_cert", "tls_key", "ready_fd")
    given = {name: getattr(arguments, name) for name in names}
    return registry.serve(registry.Options(**given, idmap=arguments.idmap))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="sandboxd", description="The local sandbox service")
    commands = parser.add_subparsers(dest="command", required=True)
    serve = commands.add_parser("serve", help="answer on the socket until stopped or idle")
    serve.add_argument("--ready-fd", type=int, help="descriptor that is told when clients may come")
    idle = float(os.environ.get("SANDBOX_IDLE", "300"))
    serve.add_argument("--idle", type=float, default=idle, help="seconds; 0 never ends")
    forced = os.environ.get("SANDBOX_IDMAP") or None
    serve.add_argument("--idmap", choices=["single"], default=forced, help="no subordinate ids")
    registry = commands.add_parser("registry", help="serve the state's images as an OCI registry")
    registry.add_argument("--listen", default="127.0.0.1:5000", help="HOST:PORT or unix:///PATH")
    registry.add_argument("--read-only", action="store_true")
    for name in ("--token-file", "--htpasswd", "--tls-cert", "--tls-key"):
        registry.add_argument(name, type=Path)
    registry.add_argument("--ready-fd", type=int, help="descriptor that is told the address")
    registry.add_argument("--idmap", choices=["single"], default=forced, help="no subordinate ids")
    reset = commands.add_parser("reset", help="delete images, volumes, snapshots and containers")
    reset.add_argument("--idmap", choices=["single"], default=forced, help="no subordinate ids")
    doctor = commands.add_parser("doctor", help="say what this machine lacks to run containers")
    doctor.add_argument("--json", action="store_true")
    return parser


if __name__ == "__main__":
    sys.exit(main())
