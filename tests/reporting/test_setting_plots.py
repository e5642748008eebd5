"""Trials by their settings and by time: what is drawn, and what has nothing to show."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from hpsearch.reporting.plot_style import svg
from hpsearch.reporting.search_figures import PlottedObjective
from hpsearch.reporting.setting_figures import setting_pictures
from hpsearch.reporting.setting_plots import contour_settings, plot_edf, setting_columns
from hpsearch.tracking.run_state import Run

MakeRun = Callable[..., Run]
OBJECTIVE = PlottedObjective("val/mAP", "maximize")


@pytest.fixture(scope="module")
def many(make_run: MakeRun) -> list[Run]:
    """Twenty trials with different learning rates, groups and ends."""
    rng = np.random.default_rng(0)
    runs = [
        make_run(
            n, "collapsed" if n == 3 else "pruned" if n % 4 == 0 else "completed",
            {500: 0.3, 1000: None if n == 3 else float(rng.random())},
            rate=float(10 ** rng.uniform(-4, -1)), groups=int(rng.integers(8, 200)),
        )
        for n in range(20)
    ]  # fmt: skip
    return [replace(run, started=100.0 + n, ended=130.0 + 2 * n) for n, run in enumerate(runs)]


def test_settings_that_always_change_together_are_one_column(make_run: MakeRun) -> None:
    runs = [make_run(n, rate=10.0**-n, groups=8 * n) for n in range(1, 4)]
    assert [column.name for column in setting_columns(runs)] == ["sampler.groups"]
    runs.append(make_run(4, rate=0.1, groups=64))
    assert [column.name for column in setting_columns(runs)] == ["sampler.groups", "optimizer.lr"]
    assert [column.is_log for column in setting_columns(runs)] == [False, True]
    assert setting_columns([]) == []


@pytest.mark.parametrize("direction", ["maximize", "minimize"])
def test_all_are_drawn_of_many_trials_at_both_widths(many: list[Run], direction: str) -> None:
    objective = OBJECTIVE._replace(direction=direction)  # type: ignore[arg-type]
    drawn = setting_pictures(many, objective=objective, report_every=500)
    names = [figure.name for figure in drawn.figures]
    assert names == ["slices", "parallel-coordinates", "contour", "distribution", "timeline"]
    assert drawn.omitted == []
    for figure in drawn.figures if direction == "maximize" else drawn.figures[:1]:
        assert figure.further
        assert "<svg" in svg(figure.figure)
        assert "<svg" in svg(figure.narrow)
        assert figure.narrow.get_figwidth() <= 3.0


def test_few_trials_have_nothing_to_show(make_run: MakeRun) -> None:
    runs = [make_run(n, "completed", {1000: 0.5}, rate=10.0**-n) for n in range(1, 4)]
    for some in ([], runs[:1], runs):
        drawn = setting_pictures(some, objective=OBJECTIVE, report_every=500)
        assert [figure.name for figure in drawn.figures] == (["timeline"] if some == runs else [])
        assert len(drawn.figures) + len(drawn.omitted) == 2


def test_a_contour_shows_the_two_most_important_settings(many: list[Run]) -> None:
    found = contour_settings(many, ["optimizer.lr", "sampler.groups"])
    assert found is not None
    x, y, runs = found
    assert (x.name, y.name) == ("optimizer.lr", "sampler.groups")
    assert len(runs) == 19, "the collapsed one has no objective"
    assert contour_settings(many[:10]) is None


def test_a_distribution_function_counts_what_is_at_most_as_good() -> None:
    values = {"one": [0.1, 0.4, 0.2, 0.4]}
    (axes,) = plot_edf(values, direction="maximize", metric="val/mAP").axes
    assert np.asarray(axes.lines[0].get_xydata()).tolist() == [
        [0.1, 0.25], [0.2, 0.5], [0.4, 0.75], [0.4, 1.0],
    ]  # fmt: skip
    (axes,) = plot_edf(values, direction="minimize", metric="val/loss").axes
    assert np.asarray(axes.lines[0].get_ydata()).tolist() == [1.0, 0.75, 0.5, 0.25]
