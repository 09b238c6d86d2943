"""Images that try to lead mounts, files and the working directory out of their root.

Either the start is refused or everything stays inside; the canary on the host never changes.
"""

from __future__ import annotations

import sys
import sysconfig
import tarfile
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

import pytest

import sandboxd
from pytest_sandbox import Client, RunResult
from pytest_sandbox.errors import SandboxError, StartFailed

pytestmark = [pytest.mark.needs_userns, pytest.mark.needs_busybox]

Hostile = Callable[..., str]


def _link(name: str, target: str | Path) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname, info.mode = tarfile.SYMTYPE, str(target), 0o777
    return info


def _entry(name: str, kind: bytes = tarfile.REGTYPE, mode: int = 0o644) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.mode = kind, mode
    return info


Attempt = Callable[..., RunResult | SandboxError]


@pytest.fixture(params=["run", "create"])
def attempt(request: pytest.FixtureRequest, client: Client) -> Attempt:
    """Start a container with `sh -c`: its result, or the service's refusal."""

    def run(script: str, image: str = "busybox:latest", **options: Any) -> RunResult | SandboxError:
        args = ["sh", "-c", script]
        try:
            if request.param == "run":
                return client.run(image, args, **options)
            with client.container(image, args, **options) as container:
                container.start()
                return RunResult(container.wait(), container.logs(stderr=False), b"")
        except SandboxError as error:
            return error

    return run


@pytest.mark.parametrize("name", ["proc", "sys", "dev"])
@pytest.mark.parametrize("target", ["/etc", "/", ".", "canary", "/proc/self/root"])
def test_a_kernel_mount_point_that_is_a_link(
    attempt: Attempt, hostile: Hostile, canary: Path, name: str, target: str
) -> None:
    """CVE-2019-19921, CVE-2023-27561: /proc as a link would put procfs, and what masks it, away."""
    image = hostile(f"{name}-link", _link(name, canary if target == "canary" else target))
    found = attempt("cat /proc/self/status", image=image)
    assert isinstance(found, StartFailed), found
    assert found.exit_code == 125


@pytest.mark.parametrize("name", ["proc", "sys", "dev"])
def test_a_kernel_mount_point_that_is_a_file(attempt: Attempt, hostile: Hostile, name: str) -> None:
    found = attempt("true", image=hostile(f"{name}-file", _entry(name)))
    assert isinstance(found, StartFailed), found


@pytest.mark.parametrize("name", ["hosts", "hostname", "resolv.conf"])
@pytest.mark.parametrize(
    "target", ["{canary}/secret", "{canary}/new", "../../../../../..{canary}/secret", "hosts2"]
)
def test_a_file_of_the_service_that_is_a_link(
    attempt: Attempt, hostile: Hostile, canary: Path, name: str, target: str
) -> None:
    image = hostile(f"etc-{name}", _link(f"etc/{name}", target.format(canary=canary)))
    found = attempt(f"cat /etc/{name}; echo written > /etc/{name}; true", image=image)
    if isinstance(found, RunResult):
        assert b"of the host" not in found.stdout


@pytest.mark.parametrize("name", ["etc", "etc/hosts"])
def test_the_directory_of_the_services_files_is_a_link(
    attempt: Attempt, hostile: Hostile, canary: Path, name: str
) -> None:
    found = attempt("ls -A /etc/", image=hostile("etc-link", _link(name, canary)))
    if isinstance(found, RunResult):
        assert b"secret" not in found.stdout


@pytest.mark.parametrize("target", ["{canary}", "/../../../../..{canary}", "/proc/1/root", "/proc"])
def test_a_volumes_mount_point_is_a_link(
    attempt: Attempt, hostile: Hostile, canary: Path, target: str
) -> None:
    image = hostile("volume-link", _link("data", target.format(canary=canary)))
    found = attempt("touch /data/new; echo done", image=image, tmpfs=["/data"])
    if isinstance(found, RunResult):
        assert found.stdout == b"done\n"


def test_a_bind_mounts_parent_is_a_link(
    attempt: Attempt, hostile: Hostile, canary: Path, tmp_path: Path
) -> None:
    given = tmp_path / "given"
    given.mkdir(mode=0o777)
    (given / "file").write_text("given")
    image = hostile("bind-link", _link("parent", canary))
    found = attempt(
        "cat /parent/below/it/file", image=image, volumes={str(given): "/parent/below/it:ro"}
    )
    assert isinstance(found, RunResult), found
    assert found.stdout == b"given"


_MAGIC = (
    *(f"/proc/self/fd/{number}" for number in range(16)),
    "/proc/self/cwd",
    "/proc/1/cwd",
    "/proc/self/root",
    "/proc/self/fd/7/../../..",
    "/a/../../..",
)


def test_a_working_directory_behind_a_magic_link(client: Client, canary: Path) -> None:
    """CVE-2024-21626: /proc/self/fd/N of the runtime as the working directory.

    Either it is refused, or it lies below the container's own root, where the way up ends.
    """
    script = ["sh", "-c", f"pwd -P; ls -d ../../../../../../bin/busybox; ls -d ../../../..{canary}"]
    with client.container("busybox:latest", ["sleep", "1000"]) as running:
        running.start()
        for directory in _MAGIC:
            for start in (partial(client.run, "busybox:latest"), running.exec):
                try:
                    found = start(script, workdir=directory)
                except StartFailed as error:
                    found = RunResult(error.exit_code, b"", b"")
                if found.exit_code == 126:
                    continue
                place, *listed = found.stdout.decode().splitlines()
                assert place.startswith("/")
                assert listed == ["../../../../../../bin/busybox"]


@pytest.mark.parametrize("target", ["{canary}", "../../../../../../..{canary}", "/proc/1/root"])
def test_a_working_directory_that_is_a_link(
    attempt: Attempt, hostile: Hostile, canary: Path, target: str
) -> None:
    image = hostile("workdir", _link("work", target.format(canary=canary)))
    found = attempt("pwd -P; ls -A; touch new", image=image, workdir="/work")
    if isinstance(found, RunResult):
        assert b"secret" not in found.stdout


@pytest.mark.parametrize("name", ["etc/passwd", "etc/group"])
@pytest.mark.parametrize("kind", ["fifo", "device", "link", "directory", "huge", "binary"])
def test_an_account_file_that_is_no_file(
    attempt: Attempt, hostile: Hostile, canary: Path, name: str, kind: str
) -> None:
    """CVE-2024-9676: a FIFO would block the runtime, a link would read the host's file."""
    members: dict[str, Any] = {
        "fifo": _entry(name, tarfile.FIFOTYPE),
        "device": _entry(name, tarfile.CHRTYPE),
        "link": _link(name, canary / "secret"),
        "directory": _entry(name, tarfile.DIRTYPE, 0o755),
        "huge": (_entry(name), b"x" * (4 << 20)),
        "binary": (_entry(name), bytes(range(256)) * 16),
    }
    image = hostile(f"account-{kind}", members[kind])
    found = attempt("echo ran", image=image, user="0")
    assert isinstance(found, RunResult | StartFailed), found
    named = attempt("echo ran", image=image, user="nobody-knows")
    refused = named.exit_code if isinstance(named, StartFailed | RunResult) else 0
    assert refused in (125, 126), named


@pytest.mark.parametrize(
    "line",
    [
        "evil:x:4294967296:4294967296::/:/bin/sh",
        "evil:x:4294967295:4294967295::/:/bin/sh",
        "evil:x:-1:-1::/:/bin/sh",
        "evil:x:0x0:0::/:/bin/sh",
        "evil:x:\u0660:\u0660::/:/bin/sh",
        "evil:x::::/:/bin/sh",
    ],
)
def test_a_user_id_that_overflows_is_never_root(
    attempt: Attempt, hostile: Hostile, line: str
) -> None:
    """CVE-2024-40635: an id beyond 32 bits wraps around to 0."""
    image = hostile("overflow", (_entry("etc/passwd"), f"{line}\n".encode()))
    found = attempt("id -u", image=image, user="evil")
    assert not (isinstance(found, RunResult) and found.stdout == b"0\n"), found


@pytest.mark.parametrize("user", ["4294967296", "4294967295", "-1", "0x0", "18446744073709551616"])
def test_a_user_number_that_overflows_is_refused(attempt: Attempt, user: str) -> None:
    found = attempt("id -u", user=user)
    assert not (isinstance(found, RunResult) and found.exit_code == 0), found


def test_a_setuid_program_is_inert(attempt: Attempt, hostile: Hostile, busybox_tar: Path) -> None:
    with tarfile.open(busybox_tar) as tar:
        binary = tar.extractfile("bin/busybox")
        assert binary is not None
        image = hostile("setuid", (_entry("raised/busybox", mode=0o6755), binary.read()))
    script = "cd /raised; ./busybox id -u; ./busybox id -g; ./busybox grep CapEff /proc/self/status"
    found = attempt(script, image=image, user="1000:1000")
    assert isinstance(found, RunResult), found
    assert found.stdout.split() == [b"1000", b"1000", b"CapEff:", b"0000000000000000"]


def test_a_setuid_program_of_ones_own_making_is_inert(attempt: Attempt) -> None:
    script = "cp /bin/busybox /tmp && chmod 6755 /tmp/busybox && /tmp/busybox id -u"
    found = attempt(script, user="1000:1000")
    assert isinstance(found, RunResult), found
    assert found.stdout == b"1000\n"


def test_the_launcher_imports_nothing_from_an_image(client: Client, hostile: Hostile) -> None:
    """What enters a container is Python until it executes the command.

    At every place where the launcher's interpreter would look for a module, this image has one that
    leaves a mark. Commands, refusals and terminals must not import any.
    """
    trap = b"import os, sys\nos.close(os.open(f'/trapped-{__name__}', os.O_CREAT | os.O_WRONLY))\n"
    stdlib = sysconfig.get_path("stdlib")
    package = Path(sandboxd.__file__).parent
    places = [f"{place}/{name}.py" for place in (stdlib, package.parent) for name in _MODULES]
    places += [str(path) for path in package.rglob("*.py")]
    image = hostile("trap", *((_entry(place.lstrip("/")), trap) for place in places))
    with client.container(image, ["sleep", "1000"], tty=True) as running:
        running.start()
        for args, user, workdir in product(
            (["true"], ["missing"], ["/etc"]),
            ("", "1000", "unknown"),
            ("", "/bin/sh", "/proc/1/cwd"),
        ):
            with suppress(SandboxError):
                running.exec(args, user=user, workdir=workdir)
        exec_id = running.create_exec(["true"], tty=True)
        running.start_exec(exec_id, tty=True).close()
        found = running.exec(["sh", "-c", "ls -d /trapped* /bin/sh"])
    assert found.stdout == b"/bin/sh\n"


_MODULES = sorted(name for name in sys.stdlib_module_names if name != "sandboxd")
