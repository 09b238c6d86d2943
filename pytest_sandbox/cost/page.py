"""The page of `--sandbox-report`: one HTML file that needs no other, and no network.

What tests have written is escaped here, as HTML text or as JSON inside a script element. Failures,
escapes, costs and logs are plain HTML, so that they can be read without scripts; the script draws
the timeline and sorts the tests. However large the run, the texts on the page have a limit.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator
from datetime import datetime
from html import escape
from importlib.resources import files

from pytest_sandbox.cost import ansi, page_data
from pytest_sandbox.cost.durations import named
from pytest_sandbox.cost.events import Phase
from pytest_sandbox.cost.page_data import FAILURES_MAX
from pytest_sandbox.cost.run import OUTCOMES, PHASES, Case, Failure, Resource, Run, resources

TEXT_MAX = 2_000_000
"""Characters of all failures, and of all logs."""
_ONE_TEXT_MAX = 40_000
_SLOWEST = 25
"""Tests that a page without scripts lists."""
_OPEN = 5
"""Failures that are unfolded at first."""
_HEADS = ("outcome", "test", "worker", "start", "setup", "call", "teardown", "total")


def page(run: Run, project: str) -> str:
    """The whole page."""
    outcomes = Counter(case.outcome for case in run.tests)
    words = ", ".join(f"{outcomes[kind]} {kind}" for kind in OUTCOMES if outcomes[kind])
    texts = _Texts()
    anchors = page_data.Anchors(run)
    parts = {
        "title": escape(f"{project}: {words}"),
        "project": escape(project),
        "when": _when(run),
        "outcomes": escape(words),
        "bar": "".join(
            f'<span class="k-{kind}" style="flex:{outcomes[kind]}"></span>'
            for kind in OUTCOMES
            if outcomes[kind]
        ),
        "chips": "".join(_chips(run, outcomes)),
        "legend": "".join(
            f'<span><i class="k-{kind}"></i>{kind}</span>'
            for kind in (*(k for k in OUTCOMES if outcomes[k]), *_phases(run))
        ),
        "failures": _failures(run, anchors, texts),
        "escapes": _escapes(run),
        "costs": _costs(resources(run)),
        "containers": _containers(run, anchors, _Texts()),
        "test_count": str(len(run.tests)),
        "test_head": "".join(
            f'<th scope="col"{" class=n" if number > 2 else ""}>{head}</th>'
            for number, head in enumerate(_HEADS)
        ),
        "slowest": "".join(_rows(run)),
        "some": f"The {_SLOWEST} slowest." if len(run.tests) > _SLOWEST else "",
        "footer": "Written by pytest-sandbox. The file is complete in itself.",
        "data": page_data.as_json(run, anchors),
    }
    parts["nav"] = _nav(parts, run)
    return _filled(parts)


def _filled(parts: dict[str, str]) -> str:
    here = files(__package__)
    parts["style"] = (here / "page.css").read_text("utf-8")
    parts["script"] = "".join(
        (here / name).read_text("utf-8") for name in ("timeline.js", "page.js")
    )
    template = (here / "page.html").read_text("utf-8")
    return re.sub(r"\{\{(\w+)\}\}", lambda found: parts[found[1]], template)


class _Texts:
    """Turns texts of tests into HTML until there is too much of it."""

    def __init__(self) -> None:
        self._left = TEXT_MAX

    def pre(self, text: str) -> str:
        """A block of it; of a long text the end."""
        shown = text[-min(_ONE_TEXT_MAX, self._left) :] if self._left > 0 else ""
        self._left -= len(shown)
        if not shown and text:
            return '<p class="note">Left out: the page has reached its size.</p>'
        cut = '<p class="note">The beginning is left out.</p>' if len(shown) < len(text) else ""
        return f"{cut}<pre tabindex=0>{ansi.html(shown)}</pre>"


def _when(run: Run) -> str:
    began = datetime.fromtimestamp(run.began).astimezone()
    stamp = began.isoformat(timespec="seconds")
    return f'<time datetime="{stamp}">{began:%Y-%m-%d %H:%M:%S %Z}</time>'


def _chips(run: Run, outcomes: Counter[str]) -> Iterator[str]:
    for kind in OUTCOMES:
        if outcomes[kind]:
            yield f'<li class="o k-{kind}"><b>{outcomes[kind]}</b> {kind}</li>'
    yield f"<li><b>{_seconds(run.ended - run.began)}</b> in all</li>"
    workers = len(run.workers())
    if workers > 1:
        yield f"<li><b>{workers}</b> workers</li>"
    if run.lives:
        yield f"<li><b>{len(run.lives)}</b> containers</li>"
    if count := sum(len(case.escapes) for case in run.tests):
        yield f"<li><b>{count}</b> escapes</li>"


def _nav(parts: dict[str, str], run: Run) -> str:
    sections = {
        "failures": sum(bool(case.failures) for case in run.tests),
        "escapes": sum(bool(case.escapes) for case in run.tests),
        "costs": len(resources(run)),
        "containers": len(run.lives),
        "tests": len(run.tests),
    }
    links = [
        f'<li><a href="#{name}">{name.capitalize()} <span class="count">{count}</span></a></li>'
        for name, count in sections.items()
        if count
    ]
    return '<li><a href="#timeline">Timeline</a></li>' + "".join(links)


def _phases(run: Run) -> list[str]:
    seen = {span.phase for _, span in run.spans}
    phases = [phase for phase in (*PHASES, "setup") if phase in seen]
    return [*phases, "container"] if run.lives else [*phases]


def _section(name: str, count: int, body: Iterable[str]) -> str:
    title = f'{name.capitalize()} <span class="count">{count}</span>'
    return (
        f'<section id="{name}" aria-labelledby="h-{name}"><h2 id="h-{name}">{title}</h2>'
        f"{''.join(body)}</section>\n"
    )


def _failures(run: Run, anchors: page_data.Anchors, texts: _Texts) -> str:
    failed = [case for case in run.tests if case.failures]
    if not failed:
        return ""
    told = failed[:FAILURES_MAX]
    body = [_failed(run, case, anchors.of_case[id(case)], n, texts) for n, case in enumerate(told)]
    if len(failed) > len(told):
        body.append(f'<p class="note">And {len(failed) - len(told)} more: see the tests.</p>')
    return _section("failures", len(failed), body)


def _failed(run: Run, case: Case, anchor: str, number: int, texts: _Texts) -> str:
    """One test's failures; folded when there are many."""
    head = f'<span class="id">{_text(case.nodeid)}</span> {_tag(case.outcome)}'
    body = [
        f'<p class="note">on {_text(run.label(case.worker))}, after {_seconds(case.seconds)}</p>'
    ]
    body += map(_command, case.post_mortem)
    if case.escapes:
        items = "".join(f"<li>{_text(str(escape))}</li>" for escape in case.escapes)
        body.append(f"<h3>escapes</h3><ul>{items}</ul>")
    for failure in case.failures:
        body.append(f"<h3>{_text(failure.when)}</h3>{texts.pre(failure.text)}")
        body += [_folded(_text(title), texts.pre(text)) for title, text in failure.sections]
    why = f'<span class="why">{_text(_reason(case.failures[0]))}</span>'
    unfolded = " open" if number < _OPEN else ""
    return _folded(f"{head}{why}", "".join(body), f' id="{anchor}"{unfolded}')


def _folded(head: str, body: str, attributes: str = "") -> str:
    summary = f"<summary>{head}</summary>"
    return f'<details{attributes}>{summary}<div class="body">{body}</div></details>'


def _command(command: str) -> str:
    copy = '<button type="button" class="js" data-copy>Copy</button>'
    return f'<div class="command"><code>{_text(command)}</code>{copy}</div>'


def _reason(failure: Failure) -> str:
    """The line that says why: the first of those that pytest marks with an E."""
    lines = ansi.plain(failure.text).splitlines()
    marked = (line[1:].strip() for line in lines if line.startswith("E  "))
    return next(marked, lines[-1] if lines else "")[:300]


def _escapes(run: Run) -> str:
    escaped = [case for case in run.tests if case.escapes]
    if not escaped:
        return ""
    rows = (
        f'<tr><td><span class="id">{_text(case.nodeid)}</span></td><td>{_text(escape.kind)}</td>'
        f"<td>{_text(str(escape))}</td></tr>"
        for case in escaped[:FAILURES_MAX]
        for escape in case.escapes
    )
    head = "<thead><tr><th>test</th><th>kind</th><th>what it did outside of its tmp_path</th></tr>"
    table = f'<div class="scroll"><table>{head}</thead><tbody>{"".join(rows)}</tbody></table></div>'
    return _section("escapes", len(escaped), [table])


def _costs(found: list[Resource]) -> str:
    if not found:
        return ""
    seen = [phase for phase in PHASES if any(phase in each.seconds for each in found)]
    columns = "".join(f'<th class="n" scope="col">{phase}</th>' for phase in seen)
    head = f'<thead><tr><th scope="col">resource</th><th class="n" scope="col">total</th>{columns}'
    longest = max(each.total for each in found) or 1.0
    rows = "".join(_cost(each, seen, longest) for each in found[:FAILURES_MAX])
    note = (
        '<p class="note">What several tests or workers share is billed to itself, '
        "not to whoever asked first.</p>"
    )
    table = f"<table>{head}<th></th></tr></thead><tbody>{rows}</tbody></table>"
    return _section("costs", len(found), [note, f'<div class="scroll">{table}</div>'])


def _cost(resource: Resource, phases: list[Phase], longest: float) -> str:
    seconds = resource.seconds
    cells = "".join(
        f'<td class="n">{_seconds(seconds[phase]) if phase in seconds else ""}</td>'
        for phase in phases
    )
    split = "".join(
        f'<i class="k-{phase}" style="width:{100 * seconds[phase] / longest:.2f}%"></i>'
        for phase in phases
        if phase in seconds
    )
    name = f"<td>{_text(named(resource))}</td><td class=n>{_seconds(resource.total)}</td>"
    return f'<tr>{name}{cells}<td aria-hidden="true"><span class="split">{split}</span></td></tr>'


def _containers(run: Run, anchors: page_data.Anchors, texts: _Texts) -> str:
    if not run.lives:
        return ""
    shown = [(worker, life) for worker, life in run.lives if id(life) in anchors.of_life]
    body = []
    for worker, life in shown:
        what = (
            f"{_text(life.image)}, {_text(life.scope or 'by hand')}, on {_text(run.label(worker))}"
        )
        lasted = f", {_seconds(life.stop - life.start)}" if life.stop else ""
        first = f'<p class="note">first for {_text(life.test)}</p>' if life.test else ""
        log = texts.pre(life.log) if life.log else '<p class="note">It has written nothing.</p>'
        state = f'<span class="tag">{_text(life.state)}</span>'
        head = f'<span class="id">{_text(life.name)}</span> {state} '
        note = f'<span class="note">{what}{lasted}</span>'
        body.append(_folded(head + note, first + log, f' id="{anchors.of_life[id(life)]}"'))
    if len(run.lives) > len(shown):
        body.append(f'<p class="note">And {len(run.lives) - len(shown)} more.</p>')
    return _section("containers", len(run.lives), body)


def _rows(run: Run) -> Iterator[str]:
    """The slowest tests, for a page whose script does not run."""
    for case in sorted(run.tests, key=lambda case: -case.seconds)[:_SLOWEST]:
        times = (case.start - run.began, case.setup, case.call, case.teardown, case.seconds)
        cells = "".join(f'<td class="n">{_seconds(time)}</td>' for time in times)
        name = f'<td><span class="id">{_text(case.nodeid)}</span></td>'
        worker = _text(run.label(case.worker))
        yield f"<tr><td>{_tag(case.outcome)}</td>{name}<td>{worker}</td>{cells}</tr>"


def _tag(outcome: str) -> str:
    return f'<span class="tag k-{outcome}">{outcome}</span>'


def _text(text: str) -> str:
    return escape(ansi.plain(text))


def _seconds(seconds: float) -> str:
    return f"{seconds:.2f} s" if seconds >= 1 else f"{1000 * seconds:.1f} ms"
