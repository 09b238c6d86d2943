"""Warnings: each once, with its category, also where they are errors."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.pytest_sandbox.hermetic.compat.inner_runs import Project

pytestmark = pytest.mark.needs_userns

LIBRARY = """
    import warnings

    def old():
        warnings.warn("old is old", DeprecationWarning, stacklevel=2)

    class Unpicklable(UserWarning):
        def __init__(self, text, *, needed):
            super().__init__(text)

    def local():
        class Unknown(UserWarning):
            pass
        warnings.warn(Unknown("of a class that only the child knows"))

    def unpicklable():
        warnings.warn(Unpicklable("cannot be made again", needed=object()))

    def often():
        warnings.warn("said often", ResourceWarning)
"""

WARNED = """
    import library

    def test_old():
        library.old()

    def test_local():
        library.local()

    def test_unpicklable():
        library.unpicklable()

    def test_ignored():
        library.often()
"""


LATE = """
    import warnings

    warnings.warn("said at import", DeprecationWarning)
"""

IMPORTS = """
    import library

    def test_often():
        library.often()

    def test_import():
        import late
"""


def test_warnings_are_those_of_a_plain_run(project: Project) -> None:
    project.write(library=LIBRARY, test_a=WARNED, test_b=WARNED)
    run = project.same()
    assert len(run.warnings()) == 6
    assert "Unknown: of a class that only the child knows" in run.text


def test_a_warning_that_a_process_gives_once_is_shown_once(project: Project) -> None:
    project.write(library=LIBRARY, late=LATE, test_a=IMPORTS, test_b=IMPORTS)
    project.ini("filterwarnings = default")
    run = project.same()
    assert sorted(w["message"] for w in run.warnings()) == ["said at import"] + ["said often"] * 2


def test_warnings_that_are_errors_fail_their_test_only(project: Project) -> None:
    project.write(library=LIBRARY, test_a=WARNED)
    project.ini("filterwarnings = error")
    assert "4 failed" in project.same().summary
