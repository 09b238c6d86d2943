"""What runs in a container before xdist's worker: its import path, and options that it must know.

`source` is sent to the container's interpreter, which has pytest, and need not have this package.
Only that which Python 3.9 knows may stand in `_SETUP`.
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from types import ModuleType

_SETUP = '''
import importlib.metadata, os, site, sys, types

for place in SITES:
    site.addsitedir(place)
import pytest

class Channel:
    """The channel to the controller; the first message is about this interpreter."""

    def __init__(self, channel):
        self._channel = channel
        self._first = True

    def __getattr__(self, name):
        return getattr(self._channel, name)

    def receive(self, *args):
        message = self._channel.receive(*args)
        if not self._first:
            return message
        self._first = False
        workerinput, arguments, options, theirs = message
        if options.get("basetemp"):
            os.makedirs(os.path.dirname(options["basetemp"]), exist_ok=True)
        return workerinput, [*PLUGINS, *arguments], options, import_path(theirs or ())

def import_path(theirs):
    own = [place for place in sys.path if place]
    here = os.getcwd()
    return [here, *own] if "" in theirs or here in theirs else own

class InImage:
    def pytest_addoption(self, parser):
        """The options of the controller's plugin, where that is not installed: they say nothing."""
        if "sandbox" in INSTALLED:
            return
        group = parser.getgroup("sandbox")
        for flag, takes_value in FLAGS:
            if takes_value:
                group.addoption(flag, action="append", nargs="?", help="of pytest-sandbox")
            else:
                group.addoption(flag, action="store_true", help="of pytest-sandbox")
        for key in KEYS:
            parser.addini(key, "of pytest-sandbox", default=None)

    @pytest.hookimpl(tryfirst=True)
    def pytest_configure(self, config):
        if "sandbox" not in INSTALLED:
            for line in MARKERS:
                config.addinivalue_line("markers", line)
        reruns = sys.modules.get("pytest_rerunfailures")
        if hasattr(reruns, "ServerStatusDB"):
            # Its workers count in the controller, by TCP; here each counts for itself.
            reruns.ClientStatusDB = lambda *address: reruns.ServerStatusDB()

def installed():
    found = importlib.metadata.entry_points()
    known = found.select(group="pytest11") if hasattr(found, "select") else found["pytest11"]
    return {each.name for each in known}

INSTALLED = installed()
sys.modules[NAME] = types.ModuleType(NAME, "PYTEST_DONT_REWRITE")
in_image = InImage()
sys.modules[NAME].pytest_addoption = in_image.pytest_addoption
sys.modules[NAME].pytest_configure = in_image.pytest_configure
PLUGINS = ["-p", NAME] + ([] if "xdist" in INSTALLED else ["-p", "xdist.plugin"])
PLUGINS += ["--dist", "load"]  # pytest-cov looks at it, and no other
exec(compile(WORKER, FILE, "exec"), {"channel": Channel(channel), "__name__": "__channelexec__"})
'''


def source(
    worker: ModuleType,
    *,
    sites: Sequence[str],
    flags: Sequence[tuple[str, bool]],
    keys: Sequence[str],
    markers: Sequence[str],
) -> str:
    """The text that execnet runs in the container: this set-up, then the module `worker`.

    `sites` are directories of packages there; `flags` (with whether they take a value), ini `keys`
    and `markers` are those of this plugin, which need not be installed there.
    """
    constants = {
        "NAME": "_sandbox_in_image",
        "WORKER": inspect.getsource(worker),
        "FILE": worker.__file__,
        "SITES": list(sites),
        "FLAGS": list(flags),
        "KEYS": list(keys),
        "MARKERS": list(markers),
    }
    return "".join(f"{name} = {value!r}\n" for name, value in constants.items()) + _SETUP
