"""`python -m pytest_sandbox.matrix.stream SETTINGS COMMAND…`: a command in a running container.

Its standard streams are this process's, so that execnet takes it for a local interpreter. SETTINGS
is JSON: the service's address, the container, the directory and the environment.
"""

from __future__ import annotations

import json
import signal
import sys


def main(settings: str, command: list[str]) -> int:
    """Run the command and copy its streams to their end; its exit code, or 1 when it has none."""
    from pytest_sandbox.cli.terminal import pump
    from pytest_sandbox.client.session import connect
    from pytest_sandbox.errors import SandboxError

    # Ctrl-C reaches every process of the terminal; the controller ends its workers by itself.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    wanted = json.loads(settings)
    try:
        with connect(wanted["host"], autostart=False, lease=False) as client:
            container = client.get_container(wanted["container"])
            exec_id = container.create_exec(
                command, env=wanted["env"], workdir=wanted["directory"], stdin=True
            )
            with container.start_exec(exec_id) as attachment:
                pump(attachment, interactive=True)
            return int(client.call("GET", f"/exec/{exec_id}/json")["ExitCode"])
    except SandboxError as error:
        sys.stderr.write(f"sandbox: {error}\n")
        return 1
    except BrokenPipeError:
        return 1  # the controller has gone


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2:]))
