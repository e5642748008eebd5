"""The report's page in a real browser: its script sorts, folds, hints and loads it again."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from hpsearch.reporting.leaderboard import leaderboard, summarize
from hpsearch.reporting.search_figures import PlottedObjective, search_pictures
from hpsearch.reporting.search_report import SearchReport, render_report
from hpsearch.tracking.run_state import Run

from ..reporting.conftest import _run as make_run
from .browser import Page, browser

pytestmark = [pytest.mark.slow, pytest.mark.browser]
TRIALS = 20
FIRST = "[...document.querySelectorAll('.sortable tbody th')].slice(0, 3).map(c => c.textContent)"
HEADS = "[...document.querySelectorAll('.sortable thead button')]"
SHOWN = (
    "[...document.querySelectorAll('.sortable tbody tr')].filter(r => r.offsetHeight > 0).length"
)


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    with browser(tmp_path_factory.mktemp("profile")) as opened:
        yield opened


@pytest.fixture
def show(page: Page, tmp_path: Path) -> Callable[..., Page]:
    """Function that opens a report in the browser, in a window of a width."""
    runs: list[Run] = [
        make_run(n, "completed", {500: 0.3, 1000: 0.9 - 0.01 * n}, rate=10 ** -(1 + n % 4),
                 groups=8 + n)
        for n in range(TRIALS)
    ]  # fmt: skip

    def opened(*, width: int = 1400, refresh_seconds: int = 0) -> Page:
        drawn = search_pictures(
            runs[:3], objectives=[PlottedObjective("val/mAP", "maximize")], budget=1000,
            report_every=500,
        )  # fmt: skip
        report = SearchReport(
            name="first", lead="", totals=summarize(runs, budget=1000),
            rows=leaderboard(runs, direction="maximize"), figures=drawn.figures,
            refresh_seconds=refresh_seconds,
        )  # fmt: skip
        path = tmp_path / "report.html"
        path.write_text(render_report(report))
        window = page.call("Browser.getWindowForTarget")["windowId"]
        page.call(
            "Browser.setWindowBounds", windowId=window, bounds={"width": width, "height": 900}
        )
        page.open(path.as_uri(), ready="document.readyState == 'complete'")
        return page

    return opened


def test_a_column_sorts_by_its_numbers_and_says_so(show: Callable[..., Page]) -> None:
    page = show()
    assert page.value(FIRST) == ["000", "001", "002"]
    page.value(f"{HEADS}.find(b => b.textContent == 'objective').click()")
    assert page.value(FIRST) == ["000", "001", "002"], "the largest first"
    page.value(f"{HEADS}.find(b => b.textContent == 'objective').click()")
    assert page.value(FIRST) == ["019", "018", "017"]
    assert page.value("document.querySelector('[aria-sort]').textContent") == "objective"
    page.value(f"{HEADS}.find(b => b.textContent == 'optimizer.lr').click()")
    assert page.value(FIRST) == ["019", "015", "011"], "1e-4 before 1e-3"


def test_the_first_rows_are_shown_until_the_box_is_ticked(show: Callable[..., Page]) -> None:
    page = show()
    assert page.value(SHOWN) == 15
    page.value("document.getElementById('all-trials').click()")
    assert page.value(SHOWN) == TRIALS


def test_a_narrow_page_keeps_the_trial_s_name_and_hints_at_more(show: Callable[..., Page]) -> None:
    page = show(width=400)
    assert page.value("innerWidth") <= 500
    assert page.value("document.documentElement.scrollWidth <= innerWidth"), "the page itself fits"
    assert page.value("document.querySelector('.keep2').classList.contains('more')")
    assert not page.value("document.querySelector('.hint').hidden")
    page.value("document.querySelector('.keep2').scrollLeft = 5000")
    place = "document.querySelector('.sortable tbody th').getBoundingClientRect()"
    assert 0 <= page.value(f"{place}.left") < 100, "the name stays"
    page.wait("!document.querySelector('.keep2').classList.contains('more')")
    natural = "[...document.images].map(i => [i.width, i.currentSrc.length])"
    assert all(width <= 368 for width, _ in page.value(natural))


def test_a_running_search_is_loaded_again_in_its_order(show: Callable[..., Page]) -> None:
    page = show(refresh_seconds=1)
    page.value("window.isFirst = true")
    page.value(f"{HEADS}.find(b => b.textContent == 'trial').click()")
    page.value(f"{HEADS}.find(b => b.textContent == 'trial').click()")
    page.wait("window.isFirst === undefined")
    page.wait("document.readyState == 'complete'")
    page.wait(f"{FIRST}[0] == '019'")
    page.value("document.getElementById('pause').click()")
    assert page.value("document.getElementById('pause').textContent") == "Reload again"


def test_the_keyboard_reaches_every_column(show: Callable[..., Page]) -> None:
    page = show()
    page.value(f"{HEADS}[3].focus()")
    assert page.value(f"document.activeElement === {HEADS}[3]")
    assert page.value(f"getComputedStyle({HEADS}[3]).cursor") == "pointer"
    for kind in ("keyDown", "keyUp"):
        page.call("Input.dispatchKeyEvent", type=kind, key="Enter", code="Enter", text="\r",
                  windowsVirtualKeyCode=13)  # fmt: skip
    assert page.value("document.querySelector('[aria-sort]').textContent") == "objective"
    style = f"getComputedStyle({HEADS}[3]).outlineStyle"
    assert page.value(style) == "solid", "focus is visible"
