"""Throwaway containers with pre-populated volumes for every pytest test.

In a test or a script::

    from pytest_sandbox import connect

    with connect() as c:
        result = c.run("host", ["sh", "-c", "echo hello"])
        assert result.stdout == b"hello\\n"

In a conftest::

    from pytest_sandbox import container, volume

    seeded = volume(files={"greeting": "hello"})

Everything public is listed here and loaded when it is first used (PEP 562): this package is
imported in every pytest run of every project that has it installed, mostly to do nothing.
PYTEST_DONT_REWRITE
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pytest_sandbox.client.bind import Bind as Bind
    from pytest_sandbox.client.container import Container as Container
    from pytest_sandbox.client.options import ContainerOptions as ContainerOptions
    from pytest_sandbox.client.results import Image as Image
    from pytest_sandbox.client.results import RunResult as RunResult
    from pytest_sandbox.client.session import Client as Client
    from pytest_sandbox.client.session import connect as connect
    from pytest_sandbox.client.snapshot import Claim as Claim
    from pytest_sandbox.client.snapshot import Recipe as Recipe
    from pytest_sandbox.client.snapshot import Snapshot as Snapshot
    from pytest_sandbox.client.snapshot import Step as Step
    from pytest_sandbox.client.snapshots import SnapshotSent as SnapshotSent
    from pytest_sandbox.client.volume import Volume as Volume
    from pytest_sandbox.errors import BadRequest as BadRequest
    from pytest_sandbox.errors import BuildFailed as BuildFailed
    from pytest_sandbox.errors import CannotEnforce as CannotEnforce
    from pytest_sandbox.errors import Conflict as Conflict
    from pytest_sandbox.errors import Forbidden as Forbidden
    from pytest_sandbox.errors import HostLacks as HostLacks
    from pytest_sandbox.errors import NoSpace as NoSpace
    from pytest_sandbox.errors import NoSuchContainer as NoSuchContainer
    from pytest_sandbox.errors import NoSuchExec as NoSuchExec
    from pytest_sandbox.errors import NoSuchImage as NoSuchImage
    from pytest_sandbox.errors import NoSuchSnapshot as NoSuchSnapshot
    from pytest_sandbox.errors import NoSuchVolume as NoSuchVolume
    from pytest_sandbox.errors import NotFound as NotFound
    from pytest_sandbox.errors import RegistryError as RegistryError
    from pytest_sandbox.errors import SandboxError as SandboxError
    from pytest_sandbox.errors import ServiceUnavailable as ServiceUnavailable
    from pytest_sandbox.errors import StartFailed as StartFailed
    from pytest_sandbox.errors import TimedOut as TimedOut
    from pytest_sandbox.errors import Unavailable as Unavailable
    from pytest_sandbox.factories import container as container
    from pytest_sandbox.factories import image as image
    from pytest_sandbox.factories import volume as volume
    from sandboxd import __version__ as __version__

_HOMES = {
    "pytest_sandbox.client.session": ("Client", "connect"),
    "pytest_sandbox.client.bind": ("Bind",),
    "pytest_sandbox.client.container": ("Container",),
    "pytest_sandbox.client.options": ("ContainerOptions",),
    "pytest_sandbox.client.results": ("Image", "RunResult"),
    "pytest_sandbox.client.snapshot": ("Claim", "Recipe", "Snapshot", "Step"),
    "pytest_sandbox.client.snapshots": ("SnapshotSent",),
    "pytest_sandbox.client.volume": ("Volume",),
    "pytest_sandbox.errors": (
        "BadRequest",
        "BuildFailed",
        "CannotEnforce",
        "Conflict",
        "Forbidden",
        "HostLacks",
        "NoSpace",
        "NoSuchContainer",
        "NoSuchExec",
        "NoSuchImage",
        "NoSuchSnapshot",
        "NoSuchVolume",
        "NotFound",
        "RegistryError",
        "SandboxError",
        "ServiceUnavailable",
        "StartFailed",
        "TimedOut",
        "Unavailable",
    ),
    "pytest_sandbox.factories": ("container", "image", "volume"),
    "sandboxd": ("__version__",),
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}

__all__ = sorted(_HOME_OF)


def __getattr__(name: str) -> object:
    home = _HOME_OF.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    value = globals()[name] = getattr(import_module(home), name)
    return value


def __dir__() -> list[str]:
    return __all__
