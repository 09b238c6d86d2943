"""Uploads under way: files in staging that are hashed while they grow.

An upload outlives the connection that began it, so that a client can ask how much has arrived and
go on from there; it ends with its closing request, with an hour of silence, or with the process.
"""

from __future__ import annotations

import hashlib
import os
import time
import uuid
from contextlib import ExitStack
from pathlib import Path
from typing import Final

from sandboxd.errors import SandboxError
from sandboxd.registry_server.faults import Fault, upload_invalid, upload_unknown
from sandboxd.store import Store

_ATONCE_MAX: Final = 1000


class Upload:
    """One blob on its way. Only one request at a time writes to it: `begin`, writes, `end`."""

    def __init__(self, store: Store, repository: str) -> None:
        """Blocks. Raises NoSpace."""
        self.id = str(uuid.uuid4())
        self.repository = repository
        self.size = 0
        self.last = time.monotonic()
        """time.monotonic() when it was last heard of."""
        self.busy = False
        self._hash = hashlib.sha256()
        self._held = ExitStack()
        self.path: Path = self._held.enter_context(store.staging("upload")) / "data"
        self._fd = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        self._held.callback(os.close, self._fd)

    @property
    def digest(self) -> str:
        """The digest of what has arrived."""
        return f"sha256:{self._hash.hexdigest()}"

    def begin(self) -> None:
        """Raises Fault while another request writes."""
        if self.busy:
            raise upload_invalid("another request is writing to it")
        self.busy, self.last = True, time.monotonic()

    def end(self) -> None:
        self.busy, self.last = False, time.monotonic()

    def write(self, data: bytes) -> None:
        """Append. Blocks. Raises NoSpace; the upload is of no more use then."""
        rest = memoryview(data)
        try:
            while rest:
                rest = rest[os.write(self._fd, rest) :]
        except OSError as error:
            raise SandboxError.from_os("write an upload", error) from error
        self._hash.update(data)
        self.size += len(data)
        self.last = time.monotonic()

    def close(self) -> None:
        """Take away what is left in staging."""
        self._held.close()


class Uploads:
    """Those of one process, by id."""

    def __init__(self, store: Store, patience: float) -> None:
        """`patience` in seconds: the silence after which an upload is given up."""
        self._store, self._patience = store, patience
        self._uploads: dict[str, Upload] = {}

    def __len__(self) -> int:
        return len(self._uploads)

    def start(self, repository: str) -> Upload:
        """Blocks. Raises Fault when too many are under way, NoSpace."""
        if len(self._uploads) >= _ATONCE_MAX:
            why = f"{_ATONCE_MAX} uploads are under way"
            raise Fault(429, "TOOMANYREQUESTS", why, headers={"Retry-After": "60"})
        upload = Upload(self._store, repository)
        self._uploads[upload.id] = upload
        return upload

    def find(self, repository: str, id: str) -> Upload:
        """Raises Fault for one that is not this repository's."""
        found = self._uploads.get(id)
        if found is None or found.repository != repository:
            raise upload_unknown()
        return found

    def drop(self, upload: Upload) -> None:
        """End it, finished or not; once more is no error."""
        if self._uploads.pop(upload.id, None) is not None:
            upload.close()

    def drop_silent(self) -> int:
        """Give up those that nobody has written to for too long; how many."""
        latest = time.monotonic() - self._patience
        # Copied at once: another thread may start an upload.
        known = list(self._uploads.values())
        silent = [each for each in known if not each.busy and each.last <= latest]
        for upload in silent:
            self.drop(upload)
        return len(silent)

    def close(self) -> None:
        for upload in list(self._uploads.values()):
            self.drop(upload)
