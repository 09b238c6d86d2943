"""A test's process: it runs items with the whole protocol of pytest and sends what happens.

Its reports leave by pytest's own hooks for that, so that every kind of report arrives; whoever
shows or records reports does so in pytest's process only. PYTEST_DONT_REWRITE
"""

from __future__ import annotations

import os
import signal
import socket
import sys
from collections.abc import Sequence
from typing import Any, Final, NoReturn, cast

import pytest

from pytest_sandbox.hermetic import companions, stream
from pytest_sandbox.hermetic.import_warnings import is_of_import
from pytest_sandbox.hermetic.leftovers import leftover_processes
from pytest_sandbox.hermetic.settings import Asked
from pytest_sandbox.hermetic.traveling_reports import packed

_REPORTING: Final = (
    "pytest_runtest_logstart",
    "pytest_runtest_logreport",
    "pytest_runtest_logfinish",
    "pytest_warning_recorded",
)
_LISTENERS: Final = ("session", "logging-plugin")
"""Who hears of reports in the test's process too: the count of failures ends a run of several
tests, live logs are written where they arise."""
_SENDER: Final = "hermetic-sender"


class Sender:
    """The plugin that stands in for all that show or record reports."""

    def __init__(self, config: pytest.Config) -> None:
        self._config = config
        self.end: socket.socket | None = None
        self.incoming: stream.Incoming | None = None
        self.index = -1
        self.alone = True
        self.asks_for_leftovers = False
        self.failed = False
        """Whether the test has: then it stands still while witnesses look at its sandbox."""
        self.early_output: Sequence[str] = ()
        """What wider fixtures wrote to stdout and stderr: it belongs to the first setup."""
        self.synchronous = _shows_at_once(config)
        """Whether the terminal is the test's as well as pytest's: then each waits for the other."""

    def send(self, *message: Any) -> None:
        assert self.end is not None
        stream.send(self.end, message)

    def wait_for_pytest(self) -> None:
        """Until it has shown all that was sent."""
        assert self.incoming is not None
        self.send("sync")
        self.incoming.receive()

    @pytest.hookimpl
    def pytest_runtest_logstart(self) -> None:
        self.failed = False
        self.send("start", self.index)
        if self.synchronous:
            self.wait_for_pytest()

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_setup(self) -> None:
        for target, text in zip((sys.stdout, sys.stderr), self.early_output, strict=False):
            target.write(text)
        self.early_output = ()

    @pytest.hookimpl(trylast=True)
    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        self.failed |= report.failed
        if self.asks_for_leftovers and report.when == "teardown":
            self._look_for_leftovers(report)
        data = packed(self._config, report)
        try:
            self.send("report", self.index, data)
        except Exception:
            self.send("report", self.index, _plain(data))
        if self.synchronous:
            self.wait_for_pytest()

    @pytest.hookimpl
    def pytest_runtest_logfinish(self) -> None:
        self.send("finish", self.index)
        if self.failed:
            self.wait_for_pytest()

    @pytest.hookimpl
    def pytest_warning_recorded(
        self, warning_message: Any, when: str, nodeid: object, location: object
    ) -> None:
        if self.end is None:
            return  # the hook is historic: those of the collection come again
        shown = str(warning_message.message)
        category = warning_message.category
        found = (category.__module__, category.__qualname__, shown)
        place = warning_message.filename, warning_message.lineno
        once = is_of_import(warning_message)
        self.send("warning", found, place, when, str(nodeid), location, once)

    @pytest.hookimpl(tryfirst=True)
    def pytest_enter_pdb(self) -> None:
        self.wait_for_pytest()

    @pytest.hookimpl(tryfirst=True)
    def pytest_exception_interact(self) -> None:
        if self._config.getoption("usepdb"):
            self.wait_for_pytest()

    def _look_for_leftovers(self, report: pytest.TestReport) -> None:
        if left := leftover_processes():
            report.sections.append(("Leftover processes", "\n".join(left)))
            self.send("left", self.index, left)


def prepare_in_zygote(session: pytest.Session) -> None:
    """What all tests' processes have in common, done once, before they are forked."""
    config = session.config
    _silence(config)
    config.pluginmanager.register(Sender(config), _SENDER)
    for finalizers, _ in session._setupstate.stack.values():
        finalizers.clear()  # what pytest has set up, pytest takes down
    for companion in companions.of(config):
        companion.in_zygote()


def run_in_child(session: pytest.Session, end: socket.socket, *, alone: bool) -> NoReturn:
    """Run what pytest asks for, to the last; the caller's stack is pytest's. `alone`: whether all
    other processes that it sees are its own."""
    code = 1
    try:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        os.chdir(session.config.invocation_params.dir)
        sender = cast(Sender, session.config.pluginmanager.get_plugin(_SENDER))
        sender.end, sender.incoming, sender.alone = end, stream.Incoming(end), alone
        for companion in companions.of(session.config):
            companion.child_begins()
        _serve(session, sender)
        code = 0
    except BaseException as error:
        _tell_the_worst(end, error)
    finally:
        _flush()
        os._exit(code)


def _serve(session: pytest.Session, sender: Sender) -> None:
    assert sender.incoming is not None
    while (message := sender.incoming.receive()) is not None:
        if message[0] == "bye":
            _take_leave(session, sender)
            return
        if message[0] == "wrote":
            sender.early_output = message[1:]
            continue
        _, pairs, failed, asked, last, leaves = message
        session.testsfailed = failed
        _take_environment(Asked(*asked))
        if not _run(session, sender, pairs, last=last):
            return
        if leaves:
            _take_leave(session, sender)
            return
        sender.send("done")


def _run(
    session: pytest.Session,
    sender: Sender,
    pairs: Sequence[tuple[int, int | None]],
    *,
    last: bool,
) -> bool:
    """Each test of `pairs`, (index, index of the next one in this process); whether none of them
    has stopped all."""
    items = session.items
    for position, (index, following) in enumerate(pairs):
        item = items[index]
        sender.index = index
        sender.asks_for_leftovers = sender.alone and last and position == len(pairs) - 1
        _forget_foreign_nodes(session, item)
        nextitem = None if following is None else items[following]
        try:
            item.ihook.pytest_runtest_protocol(item=item, nextitem=nextitem)
        except pytest.exit.Exception as stop:
            sender.send("exit", stop.msg, stop.returncode)
            return False
        except KeyboardInterrupt:
            sender.send("interrupt", index)
            return False
        sender.send("ran", index)
        if session.shouldfail or session.shouldstop:
            sender.send("stop", session.shouldfail, session.shouldstop)
            return False
    return True


def _take_leave(session: pytest.Session, sender: Sender) -> None:
    told = [companion.child_ends() for companion in companions.of(session.config)]
    _flush()  # whoever has heard "bye" may end this sandbox
    sender.send("bye", told)


def _flush() -> None:
    for shown in (sys.stdout, sys.stderr, sys.__stdout__, sys.__stderr__):
        try:
            if shown is not None:
                shown.flush()
        except (OSError, ValueError):
            continue  # closed, or nobody reads it


def _forget_foreign_nodes(session: pytest.Session, item: pytest.Item) -> None:
    """Nodes that pytest had set up for other tests when the zygote was forked."""
    stack = session._setupstate.stack
    chain = item.listchain()
    for position, node in enumerate(list(stack)):
        if position >= len(chain) or node is not chain[position]:
            for foreign in list(stack)[position:]:
                del stack[foreign]
            return


def _silence(config: pytest.Config) -> None:
    """Take out of the reporting hooks all that is pytest's own business."""
    manager = config.pluginmanager
    heard = [manager.get_plugin(name) for name in _LISTENERS]
    for name in _REPORTING:
        caller: Any = getattr(config.hook, name)
        for implementation in list(caller.get_hookimpls()):
            if implementation.plugin not in heard:
                caller._remove_plugin(implementation.plugin)


def _take_environment(asked: Asked) -> None:
    if asked.env or asked.kept is not None:
        wanted = asked.environment(os.environ)
        for name in os.environ.keys() - wanted.keys():
            del os.environ[name]
        os.environ.update(wanted)


def _shows_at_once(config: pytest.Config) -> bool:
    option = config.option
    return bool(
        option.capture in ("no", "tee-sys")
        or option.setupshow
        or option.trace
        or config.getini("log_cli")
        or option.log_cli_level
    )


def _plain(data: dict[str, Any]) -> dict[str, Any]:
    """A report whose values cannot be pickled: what tests record about themselves, as text."""
    properties = [(str(name), repr(value)) for name, value in data.get("user_properties", ())]
    return {**data, "user_properties": properties}


def _tell_the_worst(end: socket.socket, error: BaseException) -> None:
    import traceback

    text = "".join(traceback.format_exception(error))
    try:
        stream.send(end, ("broken", text))
    except OSError:
        return  # nobody wants to know any more
