"""Inner pytest runs against the shared service."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.conftest import Service


@pytest.fixture
def live(
    pytester: pytest.Pytester, service: Service, monkeypatch: pytest.MonkeyPatch
) -> pytest.Pytester:
    """Inner runs that use the shared service, and no setting of the outer run."""
    monkeypatch.setenv("SANDBOX_HOST", service.host)
    monkeypatch.delenv("PYTEST_ADDOPTS", raising=False)
    pytester.makeini(
        "[pytest]\nfilterwarnings = error\nasyncio_default_fixture_loop_scope = function"
    )
    return pytester
