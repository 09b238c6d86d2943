"""This machine in the words of the OCI image specification (GOARCH)."""

from __future__ import annotations

import os
from typing import Final

_GOARCH: Final = {
    "x86_64": "amd64",
    "aarch64": "arm64",
    "armv7l": "arm",
    "ppc64le": "ppc64le",
    "s390x": "s390x",
    "riscv64": "riscv64",
    "i686": "386",
}


def architecture() -> str:
    """The machine's architecture, for example `amd64`."""
    machine = os.uname().machine
    return _GOARCH.get(machine, machine)
