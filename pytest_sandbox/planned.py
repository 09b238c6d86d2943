"""What a fixture will ask the service for, noted on the fixture's function by its factory.

So the images of a run are known once its tests are collected. PYTEST_DONT_REWRITE
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

if TYPE_CHECKING:
    from pytest_sandbox.marker import Marked
    from pytest_sandbox.options import Options

_ATTRIBUTE = "sandbox_plan"
_Function = TypeVar("_Function", bound=Callable[..., Any])


class Plan(Protocol):
    """What the plans of the factories have in common."""

    @property
    def purpose(self) -> str:
        """What its images are for: `container`, `recipe of volume`."""
        ...

    @property
    def fixtures(self) -> Iterable[str]:
        """Names of further fixtures that it will ask for."""
        ...

    def images(self, asked: Marked, options: Options) -> Iterable[str]:
        """Names of the images it will use for a test whose markers ask for `asked`."""
        ...


def planned(plan: Callable[[], Plan]) -> Callable[[_Function], _Function]:
    """Note on a fixture's function what plan it carries out; under the decorator of pytest."""

    def note(function: _Function) -> _Function:
        setattr(function, _ATTRIBUTE, plan)
        return function

    return note


def is_planned(function: object) -> bool:
    return hasattr(function, _ATTRIBUTE)


def plan_of(function: object) -> Plan | None:
    """The plan of a fixture's function; None for anybody else's fixture."""
    plan: Callable[[], Plan] | None = getattr(function, _ATTRIBUTE, None)
    return None if plan is None else plan()
