"""Charts of a whole search: where it collapsed, what mattered, where the compute went."""

import math
from collections.abc import Mapping, Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, LogLocator, NullLocator

from hpsearch.config.flat import flatten, readable
from hpsearch.reporting.style import (
    COLOURS,
    INK,
    MARKERS,
    MUTED,
    NORMAL,
    SMALL,
    blank,
    dress,
    entitle,
    panels,
    say,
    status_key,
)
from hpsearch.reporting.tables import Summary, outcome, trials_of
from hpsearch.reporting.text import patches, percent
from hpsearch.tracking.runs import Run

CROWDED = 60
"""With more trials than this, only those that failed are annotated."""


def collapse_map(runs: Sequence[Run]) -> Figure:
    """How every trial ended, over patches a batch and learning rate; one panel an optimiser.

    Learning rates of different optimisers cannot be compared, hence the panels. Where the sampler
    draws K views of each point, K stands beside the mark.
    """
    trials = trials_of(runs)
    kinds = sorted({run.config.optimiser.kind for run in trials}) or ["no trial yet"]
    figure, every = panels(4.8 * max(2, len(kinds)), 4.2, columns=len(kinds))
    for axes, kind in zip(every, kinds, strict=True):
        own = [run for run in trials if run.config.optimiser.kind == kind]
        entitle(axes, readable(kind), x="patches a batch (beside a mark: K)", y="learning rate")
        if own:
            _map(axes, own, crowded=len(trials) > CROWDED)
        else:
            say(axes, "nothing to show")
    return figure


def importance(shares: Mapping[str, float]) -> Figure:
    """How much of the spread of the objective each setting explains; shares in [0, 1]."""
    ranked = sorted(shares.items(), key=lambda item: item[1])[-12:]
    labels = [percent(share) for _, share in ranked]
    names = [name for name, _ in ranked]
    heading = "What mattered: share of the objective's spread"
    return _bars(
        heading, names, [s for _, s in ranked], labels, [COLOURS["completed"]] * len(ranked)
    )


def compute(totals: Summary) -> Figure:
    """Patches trained to use, lost to failures, saved by pruning and by detecting collapse.

    What did not happen has no bar.
    """
    parts = [
        ("trained", totals.trained - totals.lost_to_failures, COLOURS["completed"]),
        ("lost to failed trials", totals.lost_to_failures, COLOURS["failed"]),
        ("trained again after a crash", totals.trained_again, COLOURS["interrupted"]),
        ("saved by pruning", totals.saved_by_pruning, COLOURS["pruned"]),
        ("saved by stopping collapse", totals.saved_by_detection, COLOURS["collapsed"]),
    ]
    parts = [part for number, part in enumerate(parts) if number == 0 or part[1]][::-1]
    whole = totals.budget or 1
    labels = [f"{percent(count / whole)} · {patches(count)}" for _, count, _ in parts]
    heading = f"Compute: {patches(totals.budget)} patches if every trial ran to the end"
    sizes = [float(count) for _, count, _ in parts]
    return _bars(heading, [n for n, _, _ in parts], sizes, labels, [c for *_, c in parts])


def _map(axes: Axes, runs: list[Run], *, crowded: bool) -> None:
    for run in runs:
        flat, status = flatten(run.config), outcome(run)
        x, y = run.config.sampler.patches, run.config.optimiser.lr
        look = {"color": COLOURS[status], "markersize": 8, "markeredgewidth": 0, "alpha": 0.85}
        axes.plot(x, y, MARKERS[status], **look)
        if "sampler.views" in flat and (not crowded or status in ("collapsed", "diverged")):
            offset = {"xytext": (6, 0), "textcoords": "offset points", "va": "center"}
            axes.annotate(f"{flat['sampler.views']}", (x, y), color=MUTED, fontsize=7, **offset)
    axes.set_xscale("log", base=2)
    axes.set_yscale("log")
    axes.margins(y=0.08)
    axes.yaxis.set_major_locator(LogLocator(subs=(1.0, 3.0)))
    axes.yaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: readable(float(value))))
    _few_ticks(axes, sorted({run.config.sampler.patches for run in runs}))
    status_key(axes, [outcome(run) for run in runs])


def _few_ticks(axes: Axes, sizes: list[int]) -> None:
    """Ticks at the batch sizes that occur, or at powers of two if they are many."""
    if len(sizes) > 6:
        low, high = math.floor(math.log2(sizes[0])), math.ceil(math.log2(sizes[-1]))
        sizes = [2**power for power in range(low, high + 1)]
    axes.xaxis.set_major_locator(FixedLocator(sizes))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.set_xlim(sizes[0] / 1.5, sizes[-1] * 1.5)


def _bars(
    heading: str,
    names: Sequence[str],
    sizes: Sequence[float],
    labels: Sequence[str],
    colours: Sequence[str],
) -> Figure:
    figure = blank(9.6, 0.9 + 0.36 * max(2, len(names)))
    axes = figure.add_subplot()
    dress(axes)
    entitle(axes, heading)
    if not names:
        say(axes, "not enough completed trials yet")
        return figure
    axes.barh(range(len(names)), sizes, color=colours, height=0.62)
    axes.grid(visible=False)
    axes.spines["bottom"].set_visible(False)
    axes.set_xticks([])
    axes.set_yticks(range(len(names)), names, fontsize=NORMAL, color=INK)
    axes.set_xlim(0, max([*sizes, 1e-9]) * 1.18)
    for row, (size, label) in enumerate(zip(sizes, labels, strict=True)):
        axes.annotate(
            label, (size, row), xytext=(6, 0), textcoords="offset points", va="center",
            fontsize=SMALL, color=MUTED,
        )  # fmt: skip
    return figure
