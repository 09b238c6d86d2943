"""The images of a test run: pinned by `sandbox.lock`, fetched before the first test, or missed.

What the tests need is known once they are collected. Then, in this order: `--sandbox-lock` writes
the file and ends the run; an image that the file does not pin, or, with `--sandbox-offline`, one
that is not here, ends it with the whole list; and what is missing is fetched.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

import pytest

from pytest_sandbox import lock_file
from pytest_sandbox.cost.events import recorder_of
from pytest_sandbox.lock_file import BadLock, Lock
from pytest_sandbox.needs import Needs, is_host
from pytest_sandbox.options import options_of

if TYPE_CHECKING:
    from pytest_sandbox.client.session import Client
    from pytest_sandbox.errors import SandboxError

_SUITE = pytest.StashKey["Suite"]()


class Suite:
    """What one pytest process knows of its images."""

    def __init__(self, config: pytest.Config) -> None:
        """Raises UsageError for a damaged `sandbox.lock`."""
        self._config = config
        self.path = (config.inipath.parent if config.inipath else config.rootpath) / lock_file.NAME
        self._failures: dict[str, SandboxError] = {}
        try:
            self._lock = lock_file.read(self.path)
        except (BadLock, OSError) as error:
            raise pytest.UsageError(f"{self.path}: {error}\n{_RENEW}") from None

    @classmethod
    def of(cls, config: pytest.Config) -> Suite:
        if _SUITE not in config.stash:
            config.stash[_SUITE] = cls(config)
        return config.stash[_SUITE]

    def named(self, image: str) -> str:
        """What to ask the service for: `image` by the digest that it is pinned to, if it is."""
        if self._lock is None or is_host(image):
            return image
        return self._lock.named(image) or image

    def use(self, image: str) -> str:
        """What `named` says. Raises why the image could not be fetched, if that was tried."""
        name = self.named(image)
        if name in self._failures:
            raise self._failures[name]
        return name

    def collected(self, needs: Needs) -> str:
        """Get ready for the tests that need these images; why they cannot run, if they cannot."""
        if not needs:
            return ""
        if self._lock is not None and (refusal := self._unpinned(needs)):
            return refusal
        options = options_of(self._config)
        if not options.offline and not options.prefetch:
            return ""
        with _client(self._config) as client:
            return self._brought(client, needs, options.offline)

    def write_lock(self, needs: Needs, *, whole: bool) -> str:
        """Pin the images in `sandbox.lock`; a line about it. Unless the tests are the `whole`
        suite, pins of images that they do not need stay. Raises UsageError."""
        offline = options_of(self._config).offline
        before = Lock() if whole or self._lock is None else self._lock
        lock, refusals = Lock(dict(before.images), dict(before.local)), list[str]()
        if needs:
            with _client(self._config) as client:
                for image, purposes in needs.items():
                    refusals += _pin(client, lock, image, purposes, offline)
        if refusals:
            raise pytest.UsageError(_listed("these images cannot be pinned:", refusals))
        lock_file.write(self.path, lock)
        count = len(lock.images) + len(lock.local)
        return f"{self.path}: {count} image{'' if count == 1 else 's'} pinned"

    def _unpinned(self, needs: Needs) -> str:
        assert self._lock is not None
        unpinned = [image for image in needs if not self._lock.named(image)]
        lines = [_line(image, needs[image]) for image in unpinned]
        return _listed(f"{self.path} does not pin:", [*lines, _RENEW]) if lines else ""

    def _brought(self, client: Client, needs: Needs, offline: bool) -> str:
        from pytest_sandbox.prefetch import fetch, missing

        names = {self.named(image): image for image in needs}
        absent = missing(client, names)
        stuck = [name for name in absent if offline or name.startswith("sha256:")]
        if stuck:
            lines = [_line(names[name], needs[names[name]], name) for name in stuck]
            return _listed(_OFFLINE if offline else _UNLOADED, lines)
        recorder = recorder_of(self._config)
        self._failures = fetch(client, absent, recorder) if absent else {}
        return ""


_RENEW = f"to mend it: {lock_file.COMMAND}"
_OFFLINE = "--sandbox-offline, and these images are missing (sandboxctl pull brings them):"
_UNLOADED = (
    f"these images are pinned by id and missing here (sandboxctl image load, or "
    f"{lock_file.COMMAND} if they have changed):"
)


_SHOWN = 3
"""Purposes of one image in a list."""


def _client(config: pytest.Config) -> Client:
    from pytest_sandbox.client.session import connect

    return connect(options_of(config).host, lease=False)


def _pin(
    client: Client, lock: Lock, image: str, purposes: list[str], offline: bool
) -> Iterable[str]:
    """Enter one image into the tables of `lock`; a line for one that cannot be."""
    if lock_file.says_itself(image):
        return
    from pytest_sandbox.errors import SandboxError

    name = lock_file.tagged(image)
    try:
        digest, image_id = _digests(client, name, offline)
    except SandboxError as error:
        yield f"{_line(image, purposes)}: {error}"
        return
    for table, value in ((lock.images, digest), (lock.local, "" if digest else image_id)):
        assert isinstance(table, dict)
        table.pop(name, None)
        if value:
            table[name] = value


def _digests(client: Client, name: str, offline: bool) -> tuple[str, str]:
    """Digest in the registry, and id here; the one that does not count is empty.

    An image that is here and has no digest came from no registry, and is what the tests run in;
    one of that name in a registry would be another. Raises what asking the registry raises.
    """
    from pytest_sandbox.errors import NoSuchImage, SandboxError

    try:
        found = client.image_inspect(name)
    except NoSuchImage:
        if offline:
            raise
        return client.image_digest(name), ""
    repository = name.rpartition(":")[0]
    known = [entry.partition("@") for entry in found["RepoDigests"] or ()]
    digests = [digest for named, _, digest in known if lock_file.tagged(named)[:-7] == repository]
    if not digests:
        return "", str(found["Id"])
    if offline:
        return digests[-1], ""
    try:
        return client.image_digest(name), ""
    except SandboxError:
        return digests[-1], ""


def _line(image: str, purposes: list[str], name: str = "") -> str:
    shown = image if name in ("", image) else f"{image} ({name})"
    more = f" and {len(purposes) - _SHOWN} more" if len(purposes) > _SHOWN else ""
    return f"{shown}: for {', '.join(purposes[:_SHOWN])}{more}"


def _listed(head: str, lines: list[str]) -> str:
    return "\n  ".join([f"sandbox: {head}", *lines])


def collection_finished(session: pytest.Session) -> None:
    """See the module's docstring. Raises UsageError; a worker of pytest-xdist stops instead."""
    from pytest_sandbox.errors import SandboxError
    from pytest_sandbox.needs import needs_of

    suite = Suite.of(session.config)
    try:
        refusal = suite.collected(needs_of(session))
    except SandboxError:
        return  # the tests will meet it again: each reports it, or is skipped for it
    if not refusal:
        return
    if not hasattr(session.config, "workerinput"):
        raise pytest.UsageError(refusal)
    session.shouldfail = refusal
    session.config.pluginmanager.register(_RunNothing(), "sandbox-run-nothing")


class _RunNothing:
    """A worker hears of `shouldfail` after a test; there must be none."""

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_protocol(self) -> bool:
        return True


def write_lock(session: pytest.Session) -> None:
    """Carry out `--sandbox-lock` for the collected tests. Raises UsageError."""
    from pytest_sandbox.errors import SandboxError
    from pytest_sandbox.needs import needs_of

    try:
        done = Suite.of(session.config).write_lock(
            needs_of(session), whole=_is_whole(session.config)
        )
    except (SandboxError, OSError) as error:
        raise pytest.UsageError(f"sandbox: {error}") from None
    if reporter := session.config.pluginmanager.get_plugin("terminalreporter"):
        reporter.write_line(f"sandbox: {done}")


def _is_whole(config: pytest.Config) -> bool:
    """Whether nothing was selected: neither by paths nor by -k, -m, --deselect or --lf."""
    selections = ("keyword", "markexpr", "deselect", "lf", "stepwise")
    by_path = config.args_source is pytest.Config.ArgsSource.ARGS
    return not by_path and not any(config.getoption(name, None) for name in selections)
