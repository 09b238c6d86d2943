"""Delete the whole state: images, volumes, snapshots, containers.

In the state root lie files of subordinate ids, which their own user may not delete; in the outer
user namespace those ids are the user's.
"""

from __future__ import annotations

import logging
import shutil

from filelock import FileLock, Timeout

from sandboxd import paths
from sandboxd.errors import Conflict, SandboxError
from sandboxd.linux import idmap
from sandboxd.outer import enter, log_to_stderr

log = logging.getLogger("sandboxd")


def reset(kind: idmap.Kind | None = None) -> int:
    """Delete the state root, unless a service uses it; the exit status."""
    log_to_stderr()
    root = paths.state_root()
    if not root.exists():
        return 0
    lock = FileLock(root / "service.lock")
    try:
        lock.acquire(timeout=0)
        enter(kind)
        shutil.rmtree(root)
    except Timeout:
        conflict = Conflict(f"{root}", "a service uses this state", "sandboxctl service stop")
        log.error("%s", conflict)
        return 1
    except OSError as error:
        log.error("%s", SandboxError.from_os(f"delete {root}", error))
        return 1
    except SandboxError as error:
        log.error("%s", error)
        return 1
    finally:
        lock.release()
    return 0
