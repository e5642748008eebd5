"""Figures of finished runs: what is drawn is what the rows say."""

import math

import numpy as np
import pytest
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from hpsearch.config import BatchHard, FixedSteps, TrialConfig
from hpsearch.reporting.run_figures import ArmsFigure, LossFigure, MapFigure
from tests.reporting.test_claims import row

TRACE = {"seen": [100.0, 200.0, 300.0], "loss": [2.0, None, 1.0], "stage": [0.0, 1.0, 0.0]}


def heights(line: Line2D) -> list[float]:
    return np.asarray(line.get_ydata(), float).tolist()


def legend_of(figure: Figure) -> list[str]:
    legend = figure.axes[0].get_legend()
    assert legend is not None
    return [text.get_text() for text in legend.get_texts()]


def test_losses_are_shares_of_the_collapse_value_with_stages_from_one() -> None:
    rows = [row("stepped · soft", seed, 0.5, trace=TRACE) for seed in (0, 1)]
    figure = LossFigure("f", "t", arms=("stepped · soft", "not run")).draw(rows)
    assert figure is not None
    loss, stage = figure.axes
    drawn = heights(loss.lines[1])
    assert drawn[::2] == [1.0, 0.5]  # of a collapse value of 2
    assert math.isnan(drawn[1])
    assert [heights(line) for line in stage.lines] == [[1, 2, 1]] * 2
    assert legend_of(figure) == ["seed 0", "seed 1"]


def test_a_failed_seed_is_named_in_the_legend() -> None:
    figure = LossFigure("f", "t", arms=("a",)).draw([row("a", 3, None, trace=TRACE)])
    assert figure is not None
    assert legend_of(figure) == ["seed 3, collapsed"]


def test_fixed_steps_rise_at_their_shares_of_the_budget() -> None:
    sampler = FixedSteps(milestones=(0.25,))
    config = TrialConfig(loss=BatchHard(), sampler=sampler, patches=600)
    rows = [row("a", 0, 0.5, trace=TRACE, config=config.model_dump(mode="json"))]
    figure = LossFigure("f", "t", arms=("a",)).draw(rows)
    assert figure is not None
    loss, stage = figure.axes
    assert heights(stage.lines[0]) == [1, 2, 2]  # seen 100, 200, 300
    assert loss.get_xlim()[1] >= 600


def test_arms_are_drawn_at_their_value_with_mean_and_range() -> None:
    rows = [row("q 0", 0, 0.6), row("q 0", 1, 0.8), row("q 5", 0, None)]
    figure = ArmsFigure("f", "t", x="q", arms={0: "q 0", 5: "q 5", 9: "not run"}).draw(rows)
    assert figure is not None
    means, span, *_ = figure.axes[0].lines
    assert np.asarray(means.get_xdata()).tolist() == [0, 5]
    assert heights(means) == pytest.approx([0.7, 0.0])
    assert heights(span) == [0.6, 0.8]


def test_a_map_has_a_cell_per_run_in_the_order_of_numbers() -> None:
    ends = {"SGD · 64 patches": 0.5, "SGD · 1024 patches": None, "Adam · 256 patches": 0.25}
    rows = [row(name, 0, value) for name, value in ends.items()]
    rows += [row("SGD · 64 patches", 1, None), row("another", 0, 0.9)]  # the first counts
    figure = MapFigure("f", "t", cells="* · * patches", rows=1).draw(rows)
    assert figure is not None
    axes = figure.axes[0]
    assert [tick.get_text() for tick in axes.get_xticklabels()] == ["64", "256", "1024"]
    assert [tick.get_text() for tick in axes.get_yticklabels()] == ["Adam", "SGD"]
    cells = {text.get_position(): text.get_text() for text in axes.texts}
    assert cells == {(0, 1): "0.50", (2, 1): "collapsed", (1, 0): "0.25"}


@pytest.mark.parametrize(
    "figure",
    [
        LossFigure("f", "t", arms=("a",)),
        ArmsFigure("f", "t", x="x", arms={0: "a"}),
        MapFigure("f", "t", cells="* · *", rows=1),
    ],
    ids=lambda figure: type(figure).__name__,
)
def test_without_rows_nothing_is_drawn(figure) -> None:
    assert figure.draw([row("another", 0, 0.5)]) is None
