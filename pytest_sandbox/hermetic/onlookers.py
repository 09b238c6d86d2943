"""Who looks at hermetic tests in this run: the escape report, if it is wanted, and the keeper of
what failed tests leave. PYTEST_DONT_REWRITE
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

import pytest

from pytest_sandbox.hermetic.escapes.settings import report_settings
from pytest_sandbox.hermetic.settings import Asked
from pytest_sandbox.hermetic.witness import witnesses
from pytest_sandbox.options import options_of
from pytest_sandbox.post_mortem.settings import bounds


def bring(session: pytest.Session, asked: Sequence[Asked | None]) -> None:
    """Register them, before the first test; `asked` goes with the session's items."""
    config = session.config
    if (wanted := report_settings(config)) is not None:
        from pytest_sandbox.hermetic.escapes.registration import watch_tests

        watch_tests(config, wanted, [_service(config)])
    if (kept := bounds(config)) is not None:
        from pytest_sandbox.post_mortem.keeper import Keeper

        by_id = {str(item.nodeid): each for item, each in zip(session.items, asked, strict=True)}
        witnesses(config).append(Keeper(config, kept, lambda nodeid: _of_test(by_id[nodeid])))


def _of_test(asked: Asked | None) -> tuple[Mapping[str, str], Mapping[str, Any]]:
    """A test's environment and what it asked for."""
    assert asked is not None
    return asked.environment(os.environ), asked._asdict()


def _service(config: pytest.Config) -> str:
    from pytest_sandbox.plugin import default_host

    return (options_of(config).host or default_host()).removeprefix("unix://")
