"""The source of a pytest in a container that runs the tests which another pytest names, one by one.

It needs pytest there and nothing else, and Python 3.9. Lines of JSON go both ways: first what is to
be collected, then for each test its position, answered by its reports and an empty line.
"""

from __future__ import annotations

from typing import Final

SOURCE: Final = '''
import json, os, site, sys, types

commands = os.fdopen(os.dup(0), "rb")
told = json.loads(commands.readline())
for place in told["sites"]:
    site.addsitedir(place)
import pytest

answers = os.fdopen(os.dup(1), "wb", buffering=0)
null = os.open(os.devnull, os.O_RDWR)
os.dup2(null, 0)
os.dup2(2, 1)

def say(value):
    answers.write(json.dumps(value, default=repr).encode() + b"\\n")

class Remote:
    """Other options are those of the run outside, as far as both know them."""

    def pytest_addoption(self, parser):
        for key in told["keys"]:
            try:
                parser.addini(key, "of pytest-sandbox", default=None)
            except ValueError:
                pass  # the plugin is here too

    @pytest.hookimpl(tryfirst=True)
    def pytest_configure(self, config):
        self.config = config
        for line in told["markers"]:
            config.addinivalue_line("markers", line)
        for name, value in told["options"].items():
            if hasattr(config.option, name):
                setattr(config.option, name, value)

    def pytest_collectreport(self, report):
        if report.failed:
            say({"broken": str(report.longrepr)})

    @pytest.hookimpl(trylast=True)
    def pytest_collection_modifyitems(self, items):
        known = {item.nodeid: item for item in items}
        self.items = [known.get(name) for name in told["tests"]]
        items[:] = [item for item in self.items if item is not None]

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtestloop(self, session):
        if session.testsfailed:
            return True
        while True:
            line = commands.readline().strip()
            if not line:
                return True
            index, following = json.loads(line)
            item = self.items[index]
            if item is None:
                say({"broken": "the image's pytest collects no such test"})
            else:
                after = None if following is None else self.items[following]
                item.ihook.pytest_runtest_protocol(item=item, nextitem=after)
            answers.write(b"\\n")

    @pytest.hookimpl(trylast=True)
    def pytest_runtest_logreport(self, report):
        say(self.config.hook.pytest_report_to_serializable(config=self.config, report=report))

arguments = ["--rootdir", told["root"], "-o", "addopts=", "-p", "no:terminal"]
if told["ini"]:
    arguments += ["-c", told["ini"]]
sys.path[:] = [place for place in sys.path if place]
pytest.main([*arguments, *told["places"]], plugins=[Remote()])
'''
