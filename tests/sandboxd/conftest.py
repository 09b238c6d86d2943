"""Tests whose body runs where the service's floors run: as user 0 of an outer user namespace.

A test marked `outer` runs in a forked child that has entered such a namespace, with the widest id
map that this user can have, or with the one that its fixture `ids` asks for. Fixtures are made in
the parent, outside; what the test made in its `tmp_path` is removed inside, where its owners exist.
"""

from __future__ import annotations

import faulthandler
import os
import pickle
import shutil
import signal
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import pytest
from hypothesis import settings

from sandboxd.linux import idmap
from sandboxd.linux.idmap import IdMap

# The default database lies in the checkout, which the tests' user may not be able to write.
settings.register_profile("sandboxd", database=None, deadline=None)
settings.load_profile("sandboxd")


_STUCK = 110
"""Seconds after which a child says where it hangs, before pytest-timeout ends its parent."""


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "outer: the body runs in an outer user namespace")


@pytest.fixture(params=["widest", "single"])
def ids(request: pytest.FixtureRequest) -> IdMap:
    """Both id maps that this user can have."""
    return idmap.single() if request.param == "single" else idmap.choose()


@pytest.fixture
def in_child() -> Callable[[Callable[[], Any]], Any]:
    """Call it with a function: it runs in a forked child, and its result comes back pickled."""
    return _result_of_forked_child


def _result_of_forked_child(work: Callable[[], Any]) -> Any:
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reader)
        faulthandler.register(signal.SIGALRM)
        signal.alarm(_STUCK)
        try:
            result = (True, work())
        except BaseException:
            result = (False, traceback.format_exc())
        with open(writer, "wb") as pipe:
            pickle.dump(result, pipe)
        os._exit(0)
    os.close(writer)
    with open(reader, "rb") as pipe:
        succeeded, value = pickle.load(pipe)
    os.waitpid(child, 0)
    if not succeeded:
        pytest.fail(value)
    return value


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> bool | None:
    if pyfuncitem.get_closest_marker("outer") is None:
        return None
    names = pyfuncitem._fixtureinfo.argnames
    arguments = {name: pyfuncitem.funcargs[name] for name in names}
    told, tell = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(told)
        _run_in_child(pyfuncitem, arguments, tell)
    os.close(tell)
    try:
        with open(told, errors="replace") as pipe:
            complaint = pipe.read()
    finally:
        os.kill(child, signal.SIGKILL)
        _, status = os.waitpid(child, 0)
    if complaint.startswith("skipped: "):
        pytest.skip(complaint.removeprefix("skipped: "))
    if complaint != "passed":
        pytest.fail(complaint or f"the child ended with status {status}", pytrace=False)
    return True


def _run_in_child(item: pytest.Function, arguments: dict[str, Any], tell: int) -> NoReturn:
    complaint = "passed"
    try:
        try:
            idmap.enter_outer_namespace(arguments.get("ids") or idmap.choose())
            os.umask(0o077)
            item.obj(**arguments)
        except pytest.skip.Exception as reason:
            complaint = f"skipped: {reason}"
        except BaseException:
            complaint = traceback.format_exc()
        path = item.funcargs.get("tmp_path")
        if isinstance(path, Path):
            for left in path.iterdir():
                shutil.rmtree(left, ignore_errors=True)
        os.write(tell, complaint.encode(errors="replace")[:60_000])
    finally:
        # Whatever goes wrong, the child must not go on as a second pytest.
        os._exit(0)
