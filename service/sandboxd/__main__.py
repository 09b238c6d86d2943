"""`python -m sandboxd serve|doctor`: the service's own entry points."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence


def main(argv: Sequence[str] | None = None) -> int:
    """Parse the command line and run; returns the exit status."""
    arguments = _parser().parse_args(argv)
    if arguments.command == "doctor":
        from sandboxd import doctor

        return doctor.main(json=arguments.json)
    from sandboxd import service

    options = service.Options(arguments.ready_fd, arguments.idle, arguments.idmap)
    return service.serve(options)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="sandboxd", description="The local sandbox service")
    commands = parser.add_subparsers(dest="command", required=True)
    serve = commands.add_parser("serve", help="answer on the socket until stopped or idle")
    serve.add_argument("--ready-fd", type=int, help="descriptor that is told when clients may come")
    idle = float(os.environ.get("SANDBOX_IDLE", "300"))
    serve.add_argument("--idle", type=float, default=idle, help="seconds; 0 never ends")
    forced = os.environ.get("SANDBOX_IDMAP") or None
    serve.add_argument("--idmap", choices=["single"], default=forced, help="no subordinate ids")
    doctor = commands.add_parser("doctor", help="say what this machine lacks to run containers")
    doctor.add_argument("--json", action="store_true")
    return parser


if __name__ == "__main__":
    sys.exit(main())
