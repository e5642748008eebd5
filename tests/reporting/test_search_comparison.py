"""Comparison of searches, against curves worked out by hand."""

import math
from pathlib import Path

import numpy as np
import pytest
from matplotlib.text import Text
from typer.testing import CliRunner

from hpsearch.cli import app
from hpsearch.config import SGD, TrialConfig
from hpsearch.errors import UserError
from hpsearch.reporting.plot_style import narrow_figures
from hpsearch.reporting.search_comparison import (
    ComparedSearch,
    check_comparable,
    grouped,
    mean_over_cost,
    plot_best_over_cost,
    result_table,
    small_group_remarks,
    terms_table,
)
from hpsearch.reporting.setting_plots import plot_edf
from hpsearch.tracking.run_state import Run, RunStatus
from hpsearch.workflows.compare_searches import compare_searches

from ..frozen.test_home import unpack


def run(number: int, *reports: tuple[float, int, float], status: RunStatus = "completed") -> Run:
    """A trial with reports of (time, patches seen, objective)."""
    events = tuple(
        {"time": time, "seen": seen, "objective": value, "metrics": {}}
        for time, seen, value in reports
    )
    config = TrialConfig(optimizer=SGD(lr=0.1 + number / 100))
    return Run(f"{number:03d}", number, config, started=0.0, status=status, reports=events)


def search(name: str, *runs: Run, **settings: object) -> ComparedSearch:
    given = {"metric": "val/mAP", "direction": "maximize", "report_every": 100,
             "terms": {}, **settings}  # fmt: skip
    return ComparedSearch(name=name, runs=runs, **given)  # type: ignore[arg-type]


TWO_AT_ONCE = search(
    "a",
    run(0, (1, 100, 0.9), (3, 200, 0.5)),
    run(1, (2, 100, 0.95), status="pruned"),
    run(2, (4, 100, 0.6), (6, 200, 0.7)),
    run(3, (5, 100, 0.6), (7, 200, 0.65)),
)


def test_only_the_ends_of_completed_trials_count_and_every_patch_is_paid() -> None:
    """0.5 once trials 0 and 1 have seen 300; 0.7 after the 500 of these and 200 of trial 2."""
    assert TWO_AT_ONCE.best_over_cost() == ([300, 600], [0.5, 0.7])
    assert TWO_AT_ONCE.cost == 700
    assert result_table([TWO_AT_ONCE]).rows == (("a", "4", "3", "700", "0.7000", "600", "0.6500"),)


def test_the_least_is_best_where_the_objective_is_minimized() -> None:
    costs = search("a", run(0, (1, 100, 5.0)), run(1, (2, 100, 3.0)), run(2, (3, 100, 4.0)),
                   direction="minimize")  # fmt: skip
    assert costs.best_over_cost() == ([100, 200], [5.0, 3.0])


def test_a_group_is_the_mean_of_its_searches_with_its_interval() -> None:
    """From where both have a value, at 200, to the end of the cheaper, at 400."""
    one = search("a", run(0, (1, 100, 0.4)), run(1, (2, 300, 0.8)))
    other = search("b", run(0, (1, 200, 0.6)), run(1, (2, 300, 0.5)))
    grid, mean, half = mean_over_cost([one, other])
    assert (grid[0], grid[-1]) == (200, 400)
    assert (mean[0], mean[-1]) == (pytest.approx(0.5), pytest.approx(0.7))
    assert not np.any(half), "two are too few"
    third = search("c", run(0, (1, 200, 0.5)), run(1, (2, 300, 0.5)))
    _, mean, half = mean_over_cost([one, other, third])
    # values 0.4, 0.6 and 0.5; t(97.5 %, 2) = 4.30265, standard deviation 0.1
    assert mean[0] == pytest.approx(0.5)
    assert half[0] == pytest.approx(4.30265 * 0.1 / math.sqrt(3), rel=1e-4)


def test_a_mean_without_an_interval_is_named() -> None:
    two, three = [search("a"), search("b")], [search(name, terms={"n": "1"}) for name in "cde"]
    (sentence,) = small_group_remarks([*two, *three, search("f", terms={"n": "2"})])
    assert sentence == "a and b have equal terms; an interval of their mean needs 3 searches."


def test_only_searches_with_equal_terms_are_one_group() -> None:
    """A mean over searches of other settings or patches would be of nothing."""
    terms = {"space": "q.py 1a2b", "settings replaced": "none", "patches": "tiny"}
    searches = [
        search("q", terms={**terms, "settings replaced": "budget=9"}),
        search("q-2", terms=terms),
        search("q-3", terms=terms),
        search("q-4", terms={**terms, "space": "q.py 3c4d"}),
        search("q-5", terms={**terms, "patches": "mini"}),
        search("q-6", terms=terms),
    ]
    names = {name: [one.name for one in group] for name, group in grouped(searches).items()}
    assert names == {
        "q": ["q"], "q-2 and 2 alike": ["q-2", "q-3", "q-6"], "q-4": ["q-4"], "q-5": ["q-5"],
    }  # fmt: skip


def test_every_group_has_a_line_also_past_the_last_color() -> None:
    searches = [search(f"s{i}", run(0, (1, 100, i / 20)), terms={"n": str(i)}) for i in range(12)]
    (axes,) = plot_best_over_cost(searches).axes
    drawn = {(line.get_color(), line.get_linestyle()) for line in axes.lines}
    assert len(drawn) == 12
    edf = plot_edf({one.name: one.values for one in searches}, direction="maximize", metric="m")
    assert edf.axes[0].get_legend_handles_labels()[1] == [one.name for one in searches]


def test_what_is_shared_is_said() -> None:
    searches = [search("a", terms={"split": "auto", "budget": "5"}),
                search("b", terms={"split": "auto", "budget": "6"})]  # fmt: skip
    assert [(row[0], row[-1]) for row in terms_table(searches).rows] == [
        ("split", "same"), ("budget", "differs"), ("median seconds a trial", ""),
    ]  # fmt: skip


def test_what_cannot_be_compared_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="'b'") as caught:
        check_comparable([TWO_AT_ONCE, search("b", metric="val/matching")])
    assert caught.value.code == "not-comparable"
    with pytest.raises(UserError) as caught:
        check_comparable([TWO_AT_ONCE, search("b", run(0, (1, 1, 0.1), status="pruned"))])
    assert caught.value.code == "no-completed-trial"
    for names in (["a"], ["a", "a"]):
        with pytest.raises(UserError) as caught:
            compare_searches(names, home=tmp_path)
        assert caught.value.code == "too-few-searches"


@pytest.mark.filterwarnings("ignore")
def test_two_searches_of_a_home_are_compared_on_one_page(tmp_path: Path) -> None:
    home, page = unpack(tmp_path), tmp_path / "page.html"
    words = ["compare", "finished", "stopped", "--home", str(home), "--output", str(page)]
    done = CliRunner().invoke(app, words)
    assert done.exit_code == 0, done.output
    assert "found after" in done.output
    assert "same" in done.output
    text = page.read_text()
    assert text.count("data:image/svg") == 4, "two figures, each wide and for a narrow page"
    assert text.count('media="(max-width: 700px)"') == 2
    assert 'src="http' not in text


def test_a_heading_stays_inside_a_narrow_figure() -> None:
    with narrow_figures():
        figure = plot_best_over_cost([TWO_AT_ONCE])
    figure.draw_without_rendering()
    heading = figure.axes[0].get_title(loc="left")
    (text,) = [one for one in figure.findobj(Text) if one.get_text() == heading]  # type: ignore[attr-defined]
    assert text.get_window_extent().x1 <= figure.bbox.x1
