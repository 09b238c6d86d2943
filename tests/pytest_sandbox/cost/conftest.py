"""Inner pytest runs without any setting of the outer run."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from tests.conftest import Service

INI = """
[pytest]
filterwarnings = error
asyncio_default_fixture_loop_scope = function
"""


@pytest.fixture
def inner(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> pytest.Pytester:
    for name in [each for each in os.environ if each.startswith("SANDBOX_")]:
        monkeypatch.delenv(name)
    monkeypatch.delenv("PYTEST_ADDOPTS", raising=False)
    pytester.makeini(INI)
    return pytester


@pytest.fixture
def live(
    inner: pytest.Pytester, service: Service, monkeypatch: pytest.MonkeyPatch
) -> pytest.Pytester:
    """Those that use the shared service."""
    monkeypatch.setenv("SANDBOX_HOST", service.host)
    return inner


def drawn(page: Path) -> Any:
    """What the page's script draws."""
    text = page.read_text()
    begin = text.index(">", text.index('<script id="data"')) + 1
    return json.loads(text[begin : text.index("</script>", begin)])
