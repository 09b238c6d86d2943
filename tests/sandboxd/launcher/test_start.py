"""What a container's first process finds: its namespaces, its root, its rights, its end."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sandboxd.errors import StartFailed
from sandboxd.launcher.spec import Mount

pytestmark = [pytest.mark.needs_userns, pytest.mark.needs_busybox]

Run = Callable[[Callable[..., Any]], Any]


def test_output_and_exit_code_come_back(bench: Run) -> None:
    async def scenario(b: Any) -> Any:
        return await b.sh("echo out; echo err >&2; exit 3")

    assert bench(scenario) == (3, "out\nerr\n")


def test_the_command_itself_is_pid_1_in_its_own_session(bench: Run) -> None:
    async def scenario(b: Any) -> Any:
        return await b.sh("echo $$; ls /proc | grep -c '^[0-9]'; cut -d' ' -f6 /proc/1/stat")

    code, output = bench(scenario)
    assert code == 0
    assert output.split()[0] == "1"
    assert output.split()[2] == "1"


def test_the_seven_namespaces_are_its_own(bench: Run) -> None:
    kinds = ("user", "mnt", "pid", "net", "ipc", "uts", "cgroup")

    async def scenario(b: Any) -> Any:
        code, output = await b.sh(
            "for n in user mnt pid net ipc uts cgroup; do readlink /proc/self/ns/$n; done"
        )
        return code, output, [os.readlink(f"/proc/self/ns/{kind}") for kind in kinds]

    code, output, ours = bench(scenario)
    assert code == 0
    assert len(output.split()) == len(kinds)
    assert not set(output.split()) & set(ours)


def test_hostname_and_service_files(bench: Run) -> None:
    async def scenario(b: Any) -> Any:
        return await b.sh("hostname; cat /etc/hostname /etc/hosts")

    assert bench(scenario) == (0, "bench\nbench\n127.0.0.1 bench\n")


def test_writes_land_in_the_upper_and_the_layer_stays_as_it_was(bench: Run) -> None:
    async def scenario(b: Any) -> Any:
        wrote = await b.sh("echo x > /etc/passwd; echo new > /new; cat /etc/passwd /new")
        return (
            wrote,
            await b.sh("head -c 4 /etc/passwd; test -e /new || echo gone"),
            os.path.exists(b.tree / "new"),
        )

    wrote, after, leaked = bench(scenario)
    assert wrote == (0, "x\nnew\n")
    assert after == (0, "rootgone\n")
    assert not leaked


def test_read_only_root_keeps_volumes_writable(bench: Run) -> None:
    async def scenario(b: Any) -> Any:
        spec = b.spec(
            "sh", "-c", "touch /x || echo refused; touch /v/x && echo ok", mounts=(Mount("/v"),)
        )
        return await b.run(spec._replace(rootfs=spec.rootfs._replace(readonly=True)))

    code, output = bench(scenario)
    assert code == 0
    assert output.endswith("refused\nok\n")


@pytest.mark.parametrize(
    ("args", "code", "text"),
    [
        (("nosuch",), 127, "executable file not found in $PATH"),
        (("/bin/nosuch",), 127, "no such file or directory"),
        (("/etc/passwd",), 126, "permission denied"),
        (("/etc",), 126, "permission denied"),
    ],
)
def test_a_command_that_cannot_run(bench: Run, args: tuple[str, ...], code: int, text: str) -> None:
    async def scenario(b: Any) -> Any:
        try:
            await b.run(b.spec(*args))
        except StartFailed as error:
            return error.exit_code, error.message, await b.sh("true")
        return None

    exit_code, message, after = bench(scenario)
    assert exit_code == code
    assert text in message
    assert after == (0, "")


@pytest.mark.parametrize("target", ["relative", "/a/../b", "/", "/proc/../../x"])
def test_a_mount_target_that_climbs_is_refused(bench: Run, target: str) -> None:
    async def scenario(b: Any) -> Any:
        try:
            await b.run(b.spec("true", mounts=(Mount(target),)))
        except StartFailed as error:
            return error.message
        return ""

    assert "mount target" in bench(scenario)


def test_a_user_by_name_and_number(bench: Run) -> None:
    async def scenario(b: Any) -> Any:
        by_name = await b.sh("id -u; id -g; echo $HOME", user="user")
        by_number = await b.sh("id -u; id -g", user="1234:55")
        return by_name, by_number

    by_name, by_number = bench(scenario)
    assert by_name == (0, "1000\n1000\n/home\n")
    assert by_number == (0, "1234\n55\n")


def test_an_unknown_user_is_an_error(bench: Run) -> None:
    async def scenario(b: Any) -> Any:
        try:
            await b.sh("true", user="nobodyhere")
        except StartFailed as error:
            return error.message
        return ""

    assert "unable to find user nobodyhere" in bench(scenario)


def test_killed_by_pidfd(bench: Run) -> None:
    async def scenario(b: Any) -> Any:
        null = os.open("/dev/null", os.O_RDWR)
        running = await b.launcher.start(b.spec("sleep", "1000"), (null, null, null))
        running.kill(signal.SIGKILL)
        return await running.exited, running.exit_signal

    assert bench(scenario) == (137, 9)


def test_exec_joins_the_container(bench: Run) -> None:
    async def scenario(b: Any) -> Any:
        null = os.open("/dev/null", os.O_RDWR)
        running = await b.launcher.start(
            b.spec("sh", "-c", "echo here > /mark; sleep 1000"), (null, null, null)
        )
        reader, writer = os.pipe()
        process = b.spec(
            "sh",
            "-c",
            "until test -e /mark; do :; done; cat /mark; hostname; tr '\\0' ' ' < /proc/1/cmdline",
        ).process
        entered = await b.launcher.exec(running, process, (null, writer, writer))
        os.close(writer)
        result = await b.finish(entered, reader)
        running.kill(9)
        await running.exited
        return result

    code, output = bench(scenario)
    assert code == 0
    assert output.startswith("here\nbench\nsleep 1000 ")


def test_exec_of_a_missing_command(bench: Run) -> None:
    async def scenario(b: Any) -> Any:
        null = os.open("/dev/null", os.O_RDWR)
        running = await b.launcher.start(b.spec("sleep", "1000"), (null, null, null))
        try:
            await b.launcher.exec(running, b.spec("nosuch").process, (null, null, null))
        except StartFailed as error:
            return error.exit_code
        return 0

    assert bench(scenario) == 127


def test_a_missing_directory_is_made_for_a_start_and_an_error_for_an_exec(bench: Run) -> None:
    async def scenario(b: Any) -> Any:
        null = os.open("/dev/null", os.O_RDWR)
        running = await b.launcher.start(b.spec("sleep", "1000", cwd="/made"), (null, null, null))
        there = os.path.isdir(f"/proc/{running.pid}/cwd")
        try:
            await b.launcher.exec(running, b.spec("true", cwd="/gone").process, (null, null, null))
        except StartFailed as error:
            return there, error.exit_code, error.message
        return None

    there, code, message = bench(scenario)
    assert (there, code) == (True, 126)
    assert "/gone" in message


def test_a_reaper_can_do_little_but_signal(bench: Run) -> None:
    def status_of(pid: int | str) -> dict[str, str]:
        with open(f"/proc/{pid}/status") as status:
            return dict(line.rstrip("\n").split(":\t", 1) for line in status)

    async def scenario(b: Any) -> Any:
        null = os.open("/dev/null", os.O_RDWR)
        running = await b.launcher.start(b.spec("sleep", "1000", init=True), (null, null, null))
        inherited = int(status_of("self")["Seccomp_filters"])
        while True:
            fields = status_of(running.pid)
            if int(fields["Seccomp_filters"]) > inherited:
                return fields
            await asyncio.sleep(0.001)

    fields = bench(scenario)
    assert fields["Name"] == "sandbox-init"
    assert [int(fields[f"Cap{kind}"], 16) for kind in ("Eff", "Prm", "Bnd")] == [1 << 5] * 3


def test_set_uid_programs_work_only_where_no_new_privs_is_off(bench: Run) -> None:
    async def scenario(b: Any) -> Any:
        script = "grep NoNewPrivs /proc/self/status; grep Seccomp: /proc/self/status"
        return await b.sh(script), await b.sh(script, no_new_privs=False)

    on, off = bench(scenario)
    assert on == (0, "NoNewPrivs:\t1\nSeccomp:\t2\n")
    assert off == (0, "NoNewPrivs:\t0\nSeccomp:\t2\n")


def test_a_terminal_has_its_size_at_birth(bench: Run) -> None:
    async def scenario(b: Any) -> Any:
        null = os.open("/dev/null", os.O_RDWR)
        spec = b.spec(
            "sh",
            "-c",
            "tty; stty size; test -t 0 && test -c /dev/console && echo yes",
            tty=True,
            rows=33,
            cols=77,
        )
        running = await b.launcher.start(spec, (null, null, null))
        seen = b""
        while True:
            try:
                seen += os.read(running.pty, 1000)
            except OSError:
                break
        return await running.exited, seen.decode()

    assert bench(scenario) == (0, "/dev/pts/0\r\n33 77\r\nyes\r\n")


def test_init_reaps_orphans_and_forwards_signals(bench: Run) -> None:
    async def scenario(b: Any) -> Any:
        reader, writer = os.pipe()
        null = os.open("/dev/null", os.O_RDWR)
        script = "trap 'exit 7' TERM; (sleep 0.01 &); echo $$; while :; do sleep 0.01; done"
        running = await b.launcher.start(
            b.spec("sh", "-c", script, init=True), (null, writer, writer)
        )
        os.close(writer)
        first = os.read(reader, 100)
        running.kill(signal.SIGTERM)
        return first, await running.exited

    assert bench(scenario) == (b"2\n", 7)


def test_a_socket_made_in_the_containers_network(bench: Run) -> None:
    async def scenario(b: Any) -> Any:
        import socket

        null = os.open("/dev/null", os.O_RDWR)
        running = await b.launcher.start(
            b.spec("sh", "-c", "nc -l -p 7000 -e /bin/echo hello; sleep 100"), (null, null, null)
        )
        tables = [Path(f"/proc/{running.pid}/net/{name}") for name in ("tcp", "tcp6")]
        while not any(f":{7000:04X}" in table.read_text() for table in tables):
            await asyncio.sleep(0.002)
        inside = await b.launcher.net_socket(running, socket.AF_INET, socket.SOCK_STREAM)
        with inside:
            await asyncio.to_thread(inside.connect, ("127.0.0.1", 7000))
            return await asyncio.to_thread(inside.recv, 100)

    assert bench(scenario) == b"hello\n"
