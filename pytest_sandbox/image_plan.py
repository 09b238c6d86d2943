"""What the factory `image` was asked for, and the image's name that it amounts to."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from pytest_sandbox.call_site import CallSite
from pytest_sandbox.cost.events import recorder_of
from pytest_sandbox.marker import Marked
from pytest_sandbox.options import Options, options_of
from pytest_sandbox.suite import Suite

if TYPE_CHECKING:
    from pytest_sandbox.client.session import Client

_MADE = pytest.StashKey[dict["ImagePlan", str]]()


@dataclass(frozen=True, eq=False, slots=True)
class ImagePlan:
    """The arguments of one `image(…)`; `site` is where it was called."""

    reference: str | None
    python: str | None
    requirements: tuple[str, ...] | Path
    site: CallSite

    def __post_init__(self) -> None:
        """TypeError, at the line of the call, for arguments that cannot work."""
        if (self.reference is None) == (self.python is None):
            raise TypeError("image: a reference or python=VERSION, one of them")
        if self.requirements and self.python is None:
            raise TypeError("image: requirements need python=VERSION")

    @property
    def purpose(self) -> str:
        return "image"

    @property
    def fixtures(self) -> Iterable[str]:
        return ()

    def images(self, asked: Marked, options: Options) -> Iterable[str]:
        return [] if self.reference is None else [self.reference]

    def name(self, client: Client, config: pytest.Config) -> str:
        """What to ask the service for; made here, once per run, if it is to be made."""
        if self.python is None:
            return Suite.of(config).use(self.reference or "")
        known = config.stash.setdefault(_MADE, {})
        if self not in known:
            from pytest_sandbox.python_images import python_image

            offline, label = options_of(config).offline, f"python {self.python}"
            with recorder_of(config).span("build", "image", label) as span:
                made = python_image(client, self.python, self._lines(), offline=offline)
                span.about(made.reference, made.reference)
            known[self] = made.reference
        return known[self]

    def _lines(self) -> tuple[str, ...]:
        if isinstance(self.requirements, Path):
            from pytest_sandbox.python_images import read_requirements

            return read_requirements(self.site.resolve(self.requirements))
        return self.requirements
