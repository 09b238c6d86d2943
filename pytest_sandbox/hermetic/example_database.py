"""The examples that hypothesis keeps for the next run: shared with pytest, not copy-on-write.

PYTEST_DONT_REWRITE
"""

from __future__ import annotations

import os
import sys


def directories() -> list[str]:
    """Where they are, as absolute paths; made if tests that were collected use hypothesis."""
    place = os.path.abspath(os.environ.get("HYPOTHESIS_STORAGE_DIRECTORY", ".hypothesis"))
    if "hypothesis" in sys.modules:
        try:
            os.makedirs(place, exist_ok=True)
        except OSError:
            return []  # as in a plain run, nothing can be kept
    return [place] if os.path.isdir(place) else []
