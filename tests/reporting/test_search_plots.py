"""Figures draw without warnings (pytest makes them errors), also from next to nothing."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.figure import Figure
from matplotlib.text import Annotation, Text

from hpsearch.reporting import plot_style, sample_plots, search_plots
from hpsearch.reporting.importance import Effect, Importance
from hpsearch.reporting.leaderboard import STATUS_ORDER, summarize
from hpsearch.reporting.plot_style import DPI, STATUS_COLORS, STATUS_MARKERS, spread_labels
from hpsearch.tracking.run_state import Run

MakeRun = Callable[..., Run]


def words(figure: Figure) -> str:
    figure.draw_without_rendering()
    return "\n".join(text.get_text() for text in figure.findobj(Text) if isinstance(text, Text))


@pytest.fixture(params=["mixed", "none", "one", "silent", "all collapsed", "only a yardstick"])
def runs(request: pytest.FixtureRequest, make_run: MakeRun, mixed: list[Run]) -> list[Run]:
    return {
        "mixed": mixed,
        "none": [],
        "one": [make_run(0, "completed", {1000: 0.5})],
        "silent": [make_run(0, "running")],
        "all collapsed": [make_run(n, "collapsed", {100: None}) for n in range(3)],
        "only a yardstick": [make_run(0, "completed", {1000: 0.5}, kind="baseline")],
    }[request.param]


def test_every_figure_of_a_search_draws(runs: list[Run]):
    figures = [
        search_plots.plot_intermediate_values(runs, direction="maximize"),
        search_plots.plot_optimization_history(runs, direction="minimize"),
        search_plots.plot_collapse_map(runs),
        search_plots.plot_compute_usage(summarize(runs, budget=1000)),
    ]
    assert all(plot_style.png(figure).startswith(b"\x89PNG") for figure in figures)


def test_every_figure_of_a_run_draws(mixed: list[Run]):
    for run in mixed:
        assert run.label in words(search_plots.plot_learning_curves(run))


def test_the_loss_is_shown_beside_its_collapse_value(make_run: MakeRun):
    run = make_run(0, "completed", {500: 0.5, 1000: 0.6}, alpha=0.25)
    drawn = words(search_plots.plot_learning_curves(run))
    assert "collapse value 0.25" in drawn
    assert "verification 0.600" in drawn
    assert "mean 0.600" in drawn
    assert "mean 0.000" in words(
        search_plots.plot_learning_curves(make_run(1, "completed", {9: 0.0}))
    )
    assert "no report yet" in words(search_plots.plot_learning_curves(make_run(1, "running")))


def test_the_guarded_report_of_a_collapsed_run_is_no_point_of_its_curve(make_run: MakeRun):
    run = make_run(0, "collapsed", {100: 0.5, 200: 0.4, 300: None})
    (axes,) = search_plots.plot_intermediate_values([run], direction="maximize").axes
    curve, mark = axes.lines
    assert np.asarray(curve.get_ydata()).tolist() == [0.5, 0.4]
    assert np.asarray(mark.get_xdata()).tolist() == [300]
    assert mark.get_color() == STATUS_COLORS["collapsed"]


def test_the_best_so_far_never_gets_worse(make_run: MakeRun):
    values = [0.3, 0.6, 0.5, 0.7, 0.1]
    runs = [make_run(n, "completed", {1000: v}) for n, v in enumerate(values)]
    (axes,) = search_plots.plot_optimization_history(runs, direction="maximize").axes
    assert np.asarray(axes.lines[-1].get_ydata()).tolist() == [0.3, 0.6, 0.6, 0.7, 0.7, 0.7]
    (axes,) = search_plots.plot_optimization_history(runs, direction="minimize").axes
    assert np.asarray(axes.lines[-1].get_ydata()).tolist() == [0.3, 0.3, 0.3, 0.3, 0.1, 0.1]


def test_the_map_of_collapse_marks_each_trial_where_it_stood(make_run: MakeRun):
    runs = [
        make_run(0, "collapsed", {100: None}, groups=16, rate=0.1),
        make_run(1, "completed", {1000: 0.5}, groups=64, rate=1e-3),
    ]
    (axes,) = search_plots.plot_collapse_map(runs).axes
    points = {
        (line.get_color(), *np.ravel(line.get_xydata()).tolist()) for line in axes.lines
    }  # fmt: skip
    assert points == {
        (STATUS_COLORS["collapsed"], 64, 0.1),
        (STATUS_COLORS["completed"], 256, 1e-3),
    }


def test_many_batch_sizes_and_optimizers_stay_readable(make_run: MakeRun):
    runs = [make_run(n, "pruned", {9: 0.1}, groups=8 * (n + 1)) for n in range(70)]
    figure = search_plots.plot_collapse_map(runs)
    assert len(figure.axes[0].get_xticks()) < 10
    assert "1e-3" in words(figure)


def test_importance_is_ranked_with_its_share_and_interval():
    effects = (
        Effect(setting="optimizer.lr", share=0.7, low=0.4, high=0.85, p_value=0.001),
        Effect(setting="loss", share=0.3, low=0.004, high=0.6, p_value=0.04),
        Effect(setting="sampler", share=0.05, low=0.0, high=0.3, p_value=0.6),
    )
    figure = search_plots.plot_importance(Importance(effects=effects, configurations=20))
    drawn = words(figure)
    for text in ("optimizer.lr", "70 % (40 … 85 %)", "30 % (0 … 60 %)"):
        assert text in drawn
    assert "sampler" not in drawn
    (axes,) = figure.axes
    assert [np.asarray(line.get_xdata()).tolist() for line in axes.lines] == [
        [0.004, 0.6],
        [0.4, 0.85],
    ]


def test_each_label_is_tied_to_the_end_of_its_own_curve(make_run: MakeRun):
    """Three ends lie closely together, and one trial ended before the others."""
    runs = [make_run(n, "completed", {500: 0.5, 1000: 0.8 + 0.001 * n}) for n in range(2)]
    runs.append(make_run(2, "running", {500: 0.8005}))
    runs.append(make_run(3, "pruned", {500: 0.6}))
    figure = search_plots.plot_intermediate_values(runs, direction="maximize")
    figure.draw_without_rendering()
    (axes,) = figure.axes
    labels = {a.get_text(): a for a in axes.texts if isinstance(a, Annotation)}
    assert set(labels) == {"000", "001", "002"}
    for run in runs[:3]:
        label = labels[run.label]
        assert label.xy == (run.seen, run.reports[-1]["objective"])
        if run.seen < axes.get_xlim()[1]:
            assert label.arrow_patch is not None, "a line leads to the end of the curve"
    heights = sorted(label.xyann[1] for label in labels.values())
    assert (np.diff(heights) > 0.005).all()


def test_the_front_is_marked_and_the_others_are_not(make_run: MakeRun):
    def tried(number: int, value: float, seconds: float) -> Run:
        return make_run(number, "completed", {9: value}, metrics={"train/seconds": seconds})

    runs = [tried(0, 0.8, 30), tried(1, 0.6, 10), tried(2, 0.5, 20), tried(3, 0.7, 20)]
    front = [runs[0], runs[3], runs[1]]
    figure = search_plots.plot_pareto_front(runs, front, ["val/mAP", "train/seconds"])
    (axes,) = figure.axes
    rest, best = (np.asarray(line.get_xydata()).tolist() for line in axes.lines)
    assert rest == [[0.5, 20]]
    assert best == [[0.8, 30], [0.7, 20], [0.6, 10]]
    assert {"000", "001", "003"} <= set(words(figure).splitlines())
    three = search_plots.plot_pareto_front(runs, front, ["val/mAP", "train/seconds", "train/loss"])
    assert len(three.axes) == 2


def test_compute_says_what_was_saved(mixed: list[Run]):
    drawn = words(search_plots.plot_compute_usage(summarize(mixed, budget=1000)))
    assert "6 % · 500" in drawn
    assert "14 % · 1.1k" in drawn


@pytest.mark.parametrize("count", [0, 1, 5, 20])
def test_a_triptych_states_the_error_of_each_patch(count: int):
    clean = np.full((count, 32, 32), 100, np.uint8)
    figure = sample_plots.plot_denoising_grid(clean + np.uint8(12), clean - np.uint8(3), clean)
    plot_style.png(figure)
    shown = [line for line in words(figure).splitlines() if line in ("12.0", "3.0")]
    assert shown == ["12.0"] * min(count, 12) + ["3.0"] * min(count, 12)


@pytest.mark.parametrize("shape", [(0, 8), (1, 8), (2, 8), (3, 1), (4, 8), (12, 128)])
def test_an_embedding_of_few_descriptors(shape: tuple[int, int]):
    descriptors = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    plot_style.png(sample_plots.plot_embedding(descriptors, np.arange(shape[0]) // 2))


@pytest.mark.parametrize("broken", [0.0, 1.0, np.nan])
def test_an_embedding_of_a_collapsed_encoder(broken: float):
    plot_style.png(sample_plots.plot_embedding(np.full((16, 8), broken), np.arange(16) // 4))


def test_the_embedding_keeps_clear_groups_together_and_repeats():
    rng = np.random.default_rng(1)
    labels = np.repeat(np.arange(6), 5)
    descriptors = 10 * rng.normal(size=(6, 16))[labels] + 0.1 * rng.normal(size=(30, 16))
    placed = sample_plots.project_tsne(descriptors, seed=3)
    distance = np.linalg.norm(placed[:, None] - placed[None], axis=2)
    np.fill_diagonal(distance, np.inf)
    assert (labels[distance.argmin(axis=1)] == labels).all()
    assert (placed == sample_plots.project_tsne(descriptors, seed=3)).all()


def test_every_status_has_its_own_color_and_marker():
    assert set(STATUS_COLORS) == set(STATUS_MARKERS) == set(STATUS_ORDER)
    assert (
        len(set(STATUS_COLORS.values())) == len(set(STATUS_MARKERS.values())) == len(STATUS_ORDER)
    )


@given(st.lists(st.floats(-10, 10), max_size=8).map(sorted))
def test_labels_are_moved_apart_and_no_further(heights: list[float]):
    moved = spread_labels(heights, apart=0.5)
    gaps = np.diff(moved)
    assert (gaps >= 0.5 - 1e-9).all()
    if (np.diff(heights) >= 0.5).all():
        assert moved == pytest.approx(heights)
    assert sum(moved) == pytest.approx(sum(heights), abs=1e-6)


def test_a_trial_without_map_shows_its_objective(make_run: MakeRun):
    run = make_run(1, curve={480: 0.2, 960: 0.1})
    reports = tuple({**r, "metrics": {"val/fpr95": r["objective"]}} for r in run.reports)
    figure = search_plots.plot_learning_curves(replace(run, reports=reports), metric="val/fpr95")
    right = figure.axes[1]
    assert right.get_title(loc="left") == "val/fpr95"
    assert [list(line.get_ydata()) for line in right.lines] == [[0.2, 0.1]]


def test_files(mixed: list[Run]):
    figure = search_plots.plot_learning_curves(mixed[0])
    width = int.from_bytes(plot_style.png(figure)[16:20], "big")
    assert width == round(9.6 * DPI)
    drawn = plot_style.svg(figure)
    assert "prefers-color-scheme:dark" in drawn
    assert plot_style.svg_uri(figure).startswith("data:image/svg+xml;base64,")
