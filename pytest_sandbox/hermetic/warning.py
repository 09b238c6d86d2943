"""The warnings of hermetic runs. PYTEST_DONT_REWRITE"""

from __future__ import annotations

import pytest


class HermeticWarning(pytest.PytestWarning):
    """Something about a hermetic test that did not change its outcome."""
