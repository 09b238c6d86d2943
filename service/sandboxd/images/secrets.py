"""What of the machine's root the image `host` must not show.

Two rules. By name: keys, password hashes, mail, jobs, logs, and the state of container engines.
And, where the service is root and so could read everything: what other users may not read below
/etc, and in the first levels of /, /var and /opt. An ordinary user's containers read no more than
the user does.
"""

from __future__ import annotations

import glob
import os
import pwd
import stat
from collections.abc import Iterable, Iterator
from typing import Final

from sandboxd.store.trees import OVERFLOW_ID

EMPTY: Final = frozenset(
    ("boot", "home", "lost+found", "media", "mnt", "root", "run", "srv", "tmp")
)
"""Top-level directories that appear empty."""

_BY_NAME: Final = (
    "/etc/shadow*",
    "/etc/gshadow*",
    "/etc/sudoers*",
    "/etc/security/opasswd",
    "/etc/ssh/ssh_host_*_key",
    "/etc/ssl/private",
    "/etc/pki/tls/private",
    "/etc/krb5.keytab",
    "/etc/wireguard",
    "/etc/ipsec.secrets",
    "/etc/ppp/*-secrets",
    "/etc/NetworkManager/system-connections",
    "/etc/letsencrypt",
    "/etc/docker",
    "/etc/kubernetes",
    "/etc/rancher",
    "/var/tmp",
    "/var/run",
    "/var/lock",
    "/var/mail",
    "/var/spool/mail",
    "/var/spool/cron",
    "/var/spool/at",
    "/var/spool/cups",
    "/var/backups",
    "/var/crash",
    "/var/log",
    "/var/lib/cloud",
    "/var/lib/containerd",
    "/var/lib/containers",
    "/var/lib/docker",
    "/var/lib/etcd",
    "/var/lib/incus",
    "/var/lib/kubelet",
    "/var/lib/libvirt",
    "/var/lib/lxc",
    "/var/lib/lxd",
    "/var/lib/machines",
    "/var/lib/rancher",
    "/var/lib/samba/private",
    "/var/lib/sss",
    "/var/lib/systemd/coredump",
    "/var/lib/systemd/credential.secret",
    "/var/lib/systemd/random-seed",
)
_FIRST_PERSON: Final = 1000
"""Accounts from this uid on belong to people: login.defs(5), UID_MIN."""
_DEPTHS: Final = {"/": 1, "/etc": 64, "/opt": 2, "/var": 2}
"""How deep to look for what others may not read."""
_SYSTEM: Final = ("/bin", "/dev", "/etc", "/lib", "/proc", "/sbin", "/sys", "/usr")


def hidden_paths(extra: Iterable[str], *, privileged: bool) -> set[str]:
    """Existing absolute paths, reached without symbolic links, that must not be visible.

    `extra` are more of them, such as the service's own state; `privileged` says that the service
    could read what others cannot.
    """
    found = {path for pattern in _BY_NAME for path in glob.glob(pattern)}
    found |= (
        set(home_directories()) | set(socket_paths()) | {os.path.realpath(each) for each in extra}
    )
    if privileged:
        for directory, depth in _DEPTHS.items():
            found |= set(_closed_to_others(directory, depth))
    return {path for path in found if _is_plain(path)}


def home_directories() -> Iterator[str]:
    """Homes of people and of this user and root, where they are not system directories."""
    own = {0, os.getuid()}
    homes = [os.environ.get("HOME", "/")]
    for account in pwd.getpwall():
        if _FIRST_PERSON <= account.pw_uid < OVERFLOW_ID or account.pw_uid in own:
            homes.append(account.pw_dir)
    for home in map(os.path.normpath, homes):
        if home.startswith("/") and home != "/" and not is_below(home, _SYSTEM):
            yield home


def socket_paths() -> Iterator[str]:
    """Paths of the unix sockets that are bound on this machine: proc_net_unix(5)."""
    try:
        with open("/proc/net/unix", errors="surrogateescape") as lines:
            for line in lines:
                path = line.rstrip("\n").split(maxsplit=7)[7:]
                if path and path[0].startswith("/"):
                    yield path[0]
    except OSError:
        return


def is_below(path: str, tops: Iterable[str]) -> bool:
    """Whether `path` is one of `tops` or lies in one."""
    return any(path == top or path.startswith(f"{top.rstrip('/')}/") for top in tops)


def _closed_to_others(directory: str, depth: int) -> Iterator[str]:
    try:
        entries = list(os.scandir(directory))
    except OSError:
        return
    for entry in entries:
        try:
            mode = entry.stat(follow_symlinks=False).st_mode
        except OSError:
            continue
        needed = stat.S_IROTH | (stat.S_IXOTH if stat.S_ISDIR(mode) else 0)
        if stat.S_ISLNK(mode):
            continue
        if mode & needed != needed:
            yield entry.path
        elif stat.S_ISDIR(mode) and depth > 1:
            yield from _closed_to_others(entry.path, depth - 1)


def _is_plain(path: str) -> bool:
    """Whether the path exists, is no symbolic link and does not lead through one."""
    try:
        return os.path.realpath(path) == path and not stat.S_ISLNK(os.lstat(path).st_mode)
    except (OSError, ValueError):
        return False
