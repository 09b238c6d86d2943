"""Which of the kept states is meant by a test's id."""

from __future__ import annotations

import os
from collections.abc import Sequence

from pytest_sandbox.errors import NotFound
from pytest_sandbox.post_mortem.shelf import Kept


def find(kept: Sequence[Kept], nodeid: str, directory: str) -> Kept:
    """The newest of that test in the project around `directory`, else of any project.

    `nodeid` may be the end of one, such as `test_x.py::test_y` or `test_y`. Raises NotFound.
    """
    exact = [each for each in kept if each.state.nodeid == nodeid]
    ending = [each for each in kept if _ends_with(each.state.nodeid, nodeid)]
    found = exact or ending
    if not found:
        what = f"nothing is kept of {nodeid}"
        raise NotFound(what, "it has not failed of late", "sandboxctl shell lists what is kept")
    here = [each for each in found if is_below(directory, each.state.rootdir)]
    return (here or found)[0]


def _ends_with(nodeid: str, end: str) -> bool:
    return nodeid.endswith(end) and nodeid[: -len(end)].endswith(("/", "::"))


def is_below(path: str, directory: str) -> bool:
    """Whether an absolute path is the directory or lies in it."""
    return os.path.commonpath((path, directory)) == directory
