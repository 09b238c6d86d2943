"""What a run's spans amount to, and texts of tests as HTML."""

from __future__ import annotations

import os

import pytest

from pytest_sandbox.cost import ansi
from pytest_sandbox.cost.durations import lines
from pytest_sandbox.cost.events import SILENT, Recorder, Span
from pytest_sandbox.cost.page import page
from pytest_sandbox.cost.run import Case, Failure, Run, resources
from tests.pytest_sandbox.cost.made_up import made_up


def _waited(kind: str, phase: str, start: float, stop: float, own: float | None = None) -> Span:
    own = stop - start if own is None else own
    return Span(phase, kind, "it", "it", "module", start, stop, own, "")  # type: ignore[arg-type]


def test_what_is_waited_for_together_counts_once() -> None:
    waits = [(0.0, 2.0), (1.0, 2.5), (7.0, 8.0)]
    run = Run(0.0, spans=[("gw0", _waited("snapshot", "snapshot", *wait)) for wait in waits])
    (snapshot,) = resources(run)
    assert snapshot.seconds == {"snapshot": 3.5}
    assert (snapshot.times, snapshot.scope) == (1, "")


def test_containers_of_a_fixture_add_up_without_what_they_waited_for() -> None:
    run = Run(0.0)
    for begin in (0.0, 1.0):
        run.spans.append(("gw0", _waited("container", "start", begin, begin + 3, own=0.5)))
        run.spans.append(("gw1", _waited("container", "ready", begin + 3, begin + 4)))
    (container,) = resources(run)
    assert container.seconds == {"start": 1.0, "ready": 2.0}
    assert container.times == 2
    title, (head, row) = lines(run, 0)
    assert title == "sandbox durations: all"
    assert head.split() == [
        "total", "pull", "build", "snapshot", "start", "ready", "stop", "resource",
    ]  # fmt: skip
    assert row.split() == [
        "3.000s",
        "1.000s",
        "2.000s",
        *"container it (module scope, 2 times)".split(),
    ]


def test_fixtures_of_one_name_are_told_apart() -> None:
    run = Run(0.0)
    for home in ("", "a", "b.py"):
        span = Span("start", "container", f"{home}::web", "web", "module", 1.0, 2.0, 1.0, "")
        run.spans.append(("main", span))
    assert [each.label for each in resources(run)] == ["web", "web of a", "web of b.py"]


def test_a_span_knows_what_was_inside_it() -> None:
    recorder = Recorder(log_lines=0)
    with recorder.span("start", "container", "web"):
        with recorder.span("pull", "image", "x") as pull:
            pull.about("image:1")
        with recorder.span("setup", "fixture", "quick", at_least=10):
            pass
    (inner, outer), _ = recorder.drain()
    assert (inner.key, inner.label) == ("image:1", "x")
    assert outer.own == pytest.approx(outer.stop - outer.start - inner.own)
    assert recorder.drain() == ([], [])


def test_a_forked_process_hands_on_its_own_only() -> None:
    recorder = Recorder(log_lines=0)
    recorder.note("pull", "image", "a", "a", "", 1.0, 2.0)
    pid = os.fork()
    if pid == 0:
        recorder.note("pull", "image", "b", "b", "", 1.0, 2.0)
        os._exit([span.key for span in recorder.drain()[0]] != ["b"])
    assert os.waitpid(pid, 0)[1] == 0
    assert [span.key for span in recorder.drain()[0]] == ["a"]


def test_silence_notes_nothing() -> None:
    with SILENT.span("pull", "image", "a") as span:
        span.about("b")
    SILENT.note("pull", "image", "a", "a", "", 1.0, 2.0)
    assert SILENT.drain() == ([], [])


@pytest.mark.parametrize(
    ("text", "html"),
    [
        ("a < b & 'c'", "a &lt; b &amp; &#x27;c&#x27;"),
        ("\x1b[31mred\x1b[0m plain", '<span class="c-red">red</span> plain'),
        ("\x1b[1;92mbold\x1b[22m not\x1b[m", '<span class="c-bold c-green">bold</span>'
         '<span class="c-green"> not</span>'),
        ("\x1b[38;5;196mpalette\x1b[39m", "palette"),
        ("\x1b[38;2;1;31;3mtrue\x1b[K\x1b[2J", "true"),
        ("\x1b]8;;http://x\x07link\x1b]8;;\x1b\\", "link"),
        ("a\r\nb\rc\x00\x07\x9b\ud800", "a\nb\nc\u2400\u2407\ufffd\ufffd"),
        ("\x1b", ""),
        ("\x1b[", ""),
        ("\x1b[31", "31"),
    ],
)  # fmt: skip
def test_text_of_tests_is_text(text: str, html: str) -> None:
    assert ansi.html(text) == html
    assert "\x1b" not in ansi.plain(text)


def test_what_tests_write_ends_no_element_of_the_page() -> None:
    text = page(made_up(40), "<b>shop</b>")
    assert text.count("</script>") == 2
    assert "<img" not in text
    assert "<b>shop" not in text
    text.encode()  # also what was no character


def test_a_page_of_nothing_but_long_failures_has_a_limit() -> None:
    run = Run(0.0, 9.0)
    for number in range(3000):
        name = f"test_x.py::test_{number}"
        case = Case(name, "main", name, "failed", 1.0)
        case.failures.append(Failure("call", f"E   {number}\n" + "x" * 50_000, ()))
        run.tests.append(case)
    text = page(run, "long")
    assert len(text) < 5_000_000
    assert "the page has reached its size" in text
    assert "And 2500 more" in text
