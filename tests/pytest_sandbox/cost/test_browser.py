"""The page in a real browser: clicked through, walked through by keyboard, looked at."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path

import pytest

from pytest_sandbox.cost.page import page
from tests.pytest_sandbox.cost.browser import Browser
from tests.pytest_sandbox.cost.made_up import made_up
from tests.pytest_sandbox.cost.test_runs import SERVICES

pytestmark = pytest.mark.needs_chromium


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with Browser() as running:
        yield running


@pytest.fixture
def small(browser: Browser, tmp_path: Path) -> Iterator[Browser]:
    """The page of 160 tests; nothing may go wrong in it, and nothing may be asked for."""
    path = tmp_path / "report.html"
    path.write_text(page(made_up(160), "shop"))
    browser.errors.clear()
    browser.requests.clear()
    browser.dark(False)
    browser.open(path)
    yield browser
    assert browser.js("window.hacked") is None
    assert browser.errors == []
    assert browser.requests == [path.as_uri()]


def test_it_can_be_clicked_through(small: Browser, tmp_path: Path) -> None:
    assert "10 failed" not in small.text("header")
    assert "Failures 10" in small.text("nav")

    small.click("[data-step=failed]")
    chosen = small.text("#details h3")
    assert chosen == "tests/shop/test_orders_0.py::test_order[3-paid]"
    assert "error" in small.text("#details .tag")

    small.js("document.querySelectorAll('details').forEach(each => each.open = false)")
    small.click("#details a")
    assert small.js("location.hash") == "#failure-0"
    assert small.js("document.getElementById('failure-0').open")
    assert "sandboxctl shell" in small.text("#failure-0 .command")
    small.click("#failure-0 [data-copy]")
    assert small.text("#failure-0 [data-copy]").startswith("Cop")

    small.js("document.getElementById('filter').focus()")
    for key in "r[39":
        small.press(key)
    assert small.text("#matches") == "4 of 160"
    assert small.js("document.querySelectorAll('#table tbody tr').length") == 4
    small.click("#table tbody button")
    assert "[39-paid]" in small.text("#details h3")

    shot = small.screenshot(tmp_path / "report.png")
    width, height = struct.unpack(">II", shot[16:24])
    assert (width, height > 2000) == (1280, True)


def test_a_click_on_a_bar_chooses_it(small: Browser) -> None:
    """The widest container of the first worker: its database, in the lane below the tests."""
    box = small.js("document.getElementById('canvas').getBoundingClientRect().toJSON()")
    for down in range(40, 140, 6):
        small.click_at(box["x"] + box["width"] - 20, box["y"] + down)
        if small.text("#details").startswith("pg-gw0"):
            break
    assert "postgres:17" in small.text("#details")
    small.click("#details a")
    assert "LOG: ready" in small.text(small.js("location.hash"))


def test_the_keyboard_reaches_everything(small: Browser) -> None:
    small.press("Tab")
    assert small.js("document.activeElement.className") == "skip"
    seen = set()
    for _ in range(30):
        small.press("Tab")
        seen.add(small.js("document.activeElement.id || document.activeElement.textContent"))
    assert {"theme", "canvas", "Next failure", "Copy"} <= seen

    small.js("document.getElementById('canvas').focus()")
    small.press("ArrowRight")
    first = small.text("#details h3")
    small.press("ArrowRight")
    assert small.text("#details h3") != first
    small.press("ArrowDown")
    assert small.text("#details .tag") in ("pull", "snapshot", "start", "ready")
    for key in ("+", "-", "0", "Home", "End", "ArrowUp", "f"):
        small.press(key)
    assert "test_order[3-paid]" in small.text("#details h3")


def test_it_is_drawn_in_light_and_in_dark(small: Browser) -> None:
    pen = "document.getElementById('canvas').getContext('2d')"
    corner = f"Array.from({pen}.getImageData(2, 2, 1, 1).data)"
    colours = """(() => {
        const canvas = document.getElementById('canvas');
        const {data} = canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height);
        const seen = new Set();
        for (let at = 0; at < data.length; at += 4) seen.add(data.slice(at, at + 3).join());
        return seen.size;
    })()"""
    assert small.js(corner)[:3] == [255, 255, 255]
    assert small.js(colours) > 8
    small.dark(True)
    assert max(small.js(corner)[:3]) < 64
    small.click("#theme")
    assert small.js(corner)[:3] == [255, 255, 255]
    assert small.js("getComputedStyle(document.body).backgroundColor") == "rgb(246, 247, 249)"


@pytest.mark.needs_userns
@pytest.mark.needs_xdist
def test_a_real_run_of_two_workers(browser: Browser, live: pytest.Pytester, tmp_path: Path) -> None:
    live.makepyfile(SERVICES.replace("SEED", "browser"))
    live.runpytest_subprocess("-n2", "--sandbox-report=run.html").assert_outcomes(
        passed=3, failed=1
    )
    browser.errors.clear()
    browser.open(live.path / "run.html")
    browser.click("[data-step=failed]")
    assert "test_web[2]" in browser.text("#details h3")
    assert "start web" in browser.text("#details")
    browser.click("#details a")
    assert "assert 2 != 2" in browser.text("#failure-0 pre")
    assert "snapshot site" in browser.text("#costs")
    browser.click("#containers details summary")
    assert browser.js("document.querySelector('#containers details').open")
    assert browser.screenshot(tmp_path / "real.png")[:4] == b"\x89PNG"
    assert browser.errors == []


def test_5000_tests_are_few_nodes(browser: Browser, tmp_path: Path) -> None:
    path = tmp_path / "large.html"
    path.write_text(page(made_up(5000), "shop"))
    assert path.stat().st_size < 5_000_000
    browser.open(path)
    assert browser.js("document.querySelectorAll('*').length") < 25_000
    assert (
        browser.js("JSON.parse(document.getElementById('data').textContent).tests.length") == 5000
    )
    assert browser.js("document.querySelectorAll('#table tbody tr').length") == 100
    browser.click("#more")
    assert browser.js("document.querySelectorAll('#table tbody tr').length") == 600


def test_it_can_be_read_without_scripts(browser: Browser, tmp_path: Path) -> None:
    path = tmp_path / "report.html"
    path.write_text(page(made_up(160), "shop"))
    browser.open(path, scripts=False)
    text = browser.text("body")
    for word in (
        "139 passed",
        "The timeline is drawn by a script",
        "snapshot pg",
        "The 25 slowest",
    ):
        assert word in text
    assert "Next failure" not in text
