"""Report of an evaluation: tables, figures and a page."""

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from hpsearch.evaluation import KINDS, LEVELS, Scores
from hpsearch.evaluation.bootstrap import Comparison, compare, headlines_of, intervals
from hpsearch.patch_views import TASKS
from hpsearch.reporting.html_tables import HtmlTable, render
from hpsearch.reporting.plot_style import (
    GROUPS,
    INK,
    LINE,
    MUTED,
    NORMAL,
    SMALL,
    blank,
    dress,
    entitle,
    panels,
)
from hpsearch.reporting.text_tables import MISSING, Table
from hpsearch.shapes import UInt8

KIND_LABELS = {"i_": "illum.", "v_": "viewp."}
MEAN = "mean of the three"
POOLED = "retrieval, over pools"
HEADER = ("", *LEVELS, "mean", *KIND_LABELS.values(), "95 % interval")
RETRIEVAL = (
    "retrieval is over the whole pool of distractors and enters the mean; "
    f"“{POOLED}” is the mean over the seven pool sizes, as the N-HPatches coursework printed it"
)


def score_tables(found: Mapping[str, Scores]) -> dict[str, Table]:
    """One table a task; a row for everything that was scored."""
    lines = {name: _lines(scores) for name, scores in found.items()}
    return {
        task: Table(
            (task, *HEADER[1:]),
            tuple((name, *cells[task]) for name, cells in lines.items()),
            frozenset({task}),
        )
        for task in (*TASKS, POOLED, MEAN)
    }


def comparison_table(scores: Scores, other: Scores) -> Table:
    """Difference of each headline, its interval, the share of sequences won, and what it means."""
    found = compare(scores, other)
    rows = tuple((MEAN if name == "mAP" else name, *_difference(c)) for name, c in found.items())
    header = ("", "difference", "95 % interval", "sequences won", "says")
    return Table(header, rows, frozenset({"", "says"}))


def about(scores: Scores) -> Iterator[str]:
    """What the numbers are of, in sentences."""
    yield (
        f"{len(scores.names)} sequences, {sum(scores.points):,} points; "
        "intervals by bootstrap over sequences"
    )
    yield RETRIEVAL


def _lines(scores: Scores) -> dict[str, tuple[str, ...]]:
    flat, bounds = scores.flat(), intervals(scores)
    kinds = _by_kind(scores)
    lines = {}
    for task, name in [*((task, task) for task in TASKS), (MEAN, "mAP")]:
        if task == MEAN:
            levels = [sum(flat[f"{one}/{level}"] for one in TASKS) / 3 for level in LEVELS]
        else:
            levels = [flat[f"{task}/{level}"] for level in LEVELS]
        values = [*levels, flat[name]]
        interval = f"{bounds[name].low:.3f} … {bounds[name].high:.3f}"
        cells = [f"{value:.4f}" for value in values]
        lines[task] = (*cells, *(_of(kind, name) for kind in kinds), interval)
    pooled = [*scores.retrieved.ap.mean(axis=(1, 2)), scores.retrieval_over_pools]
    lines[POOLED] = (*(f"{value:.4f}" for value in pooled), *[MISSING] * len(KIND_LABELS), MISSING)
    return lines


def _by_kind(scores: Scores) -> list[dict[str, float] | None]:
    """Headlines over the illumination and over the viewpoint sequences, where there are any."""
    chosen = [[name.startswith(prefix) for name in scores.names] for prefix in KIND_LABELS]
    return [headlines_of(scores, kind) if any(kind) else None for kind in chosen]


def _of(kind: dict[str, float] | None, name: str) -> str:
    value = float("nan") if kind is None else kind[name]
    return f"{value:.4f}" if value == value else MISSING


def _difference(found: Comparison) -> tuple[str, ...]:
    says = "better" if found.better else "worse" if found.high < 0 else "no difference shown"
    return (
        f"{found.difference:+.4f}",
        f"{found.low:+.3f} … {found.high:+.3f}",
        f"{100 * found.share_won:.0f} %",
        says,
    )


EXTREMES = 3
"""Sequences shown at either end."""
SHOWN = 4
"""Points of a sequence, each by its reference and one view of every level."""
SHOWN_VIEWS = (0, 3, 8, 13)
"""``ref``, ``e3``, ``h3`` and ``t3``: the middle one of the five target images."""
GAP, BETWEEN = 2, 10
"""Pixels between the patches of a point, and between points."""


def precision_recall(found: Mapping[str, Scores]) -> Figure:
    """Verification by level: solid against patches of other sequences, dashed of the same."""
    figure, every = panels(9.6, 3.6, columns=len(LEVELS))
    for level, axes in enumerate(every):
        entitle(axes, f"Verification, {LEVELS[level]}", x="recall", y="" if level else "precision")
        for (_, scores), colour in zip(found.items(), _colours(found), strict=True):
            for kind, dashes in enumerate(("-", (0, (3, 2)))):
                recall, precision = scores.verified.curve(level, kind)
                axes.plot(recall, precision, color=colour, linestyle=dashes, linewidth=1.6)
        axes.set_xlim(0, 1)
        axes.set_ylim(0, 1.02)
    kinds = [
        Line2D([], [], color=MUTED, linestyle=dashes, label=label)
        for dashes, label in zip(("-", (0, (3, 2))), _kind_labels(), strict=True)
    ]
    _key(figure, found, more=kinds)
    return figure


def matching_by_sequence(found: Mapping[str, Scores]) -> Figure:
    """Matching mAP of every sequence, the best by the first of ``found`` on top."""
    first = next(iter(found.values()))
    order = np.argsort(first.by_sequence()["matching"], kind="stable")
    figure = blank(9.6, 1.3 + 1.4 * LINE * len(order))
    axes = figure.add_subplot()
    dress(axes)
    axes.grid(visible=True, axis="both", color=axes.spines["bottom"].get_edgecolor(), linewidth=0.8)
    entitle(axes, "Matching by sequence", x="mAP over 15 pairs of views")
    heights = np.arange(len(order))
    for (_, scores), colour in zip(found.items(), _colours(found), strict=True):
        values = scores.by_sequence()["matching"][order]
        axes.plot(values, heights, "o", color=colour, markersize=5, markeredgewidth=0, alpha=0.9)
    axes.set_yticks(heights, [first.names[i] for i in order], fontsize=SMALL)
    axes.set_ylim(-0.7, len(order) - 0.3)
    axes.set_xlim(0, 1)
    _key(figure, found)
    return figure


def extremes(scores: Scores, patches: Mapping[str, UInt8[np.ndarray, "n 16 32 32"]]) -> Figure:
    """Worst and best sequences by matching, with patches: reference, easy, hard, tough.

    Args:
        patches: as the model was given them, of the sequences that ``ends`` names.
    """
    rows = ends(scores)
    figure = blank(9.6, 0.75 + 0.62 * len(rows))
    axes = figure.add_subplot()
    entitle(axes, "Worst and best sequences by matching: reference, easy, hard, tough of 4 points")
    axes.set_axis_off()
    high = 32 + BETWEEN
    canvas = np.full((len(rows) * high - BETWEEN, _width()), np.nan)
    matching = scores.by_sequence()["matching"]
    for row, name in enumerate(rows):
        _draw_row(canvas[row * high : row * high + 32], patches[name])
        words = f"{name}  {matching[scores.names.index(name)]:.3f}"
        axes.text(-6, row * high + 16, words, ha="right", va="center", fontsize=NORMAL, color=INK)
    axes.imshow(canvas, cmap="gray", vmin=0, vmax=255, interpolation="nearest")
    return figure


def ends(scores: Scores) -> list[str]:
    """Up to three worst and three best sequences by matching, the worst first."""
    order = np.argsort(scores.by_sequence()["matching"], kind="stable").tolist()
    chosen = order if len(order) <= 2 * EXTREMES else [*order[:EXTREMES], *order[-EXTREMES:]]
    return [scores.names[i] for i in chosen]


def _draw_row(canvas: np.ndarray, points: UInt8[np.ndarray, "n 16 32 32"]) -> None:
    left = 0
    for point in np.linspace(0, len(points) - 1, SHOWN).astype(int):
        for view in SHOWN_VIEWS:
            canvas[:, left : left + 32] = points[point, view]
            left += 32 + GAP
        left += BETWEEN - GAP


def _width() -> int:
    return SHOWN * (len(SHOWN_VIEWS) * (32 + GAP) - GAP + BETWEEN) - BETWEEN


def _kind_labels() -> list[str]:
    words = {"inter": "negatives of other sequences", "intra": "of the same sequence"}
    return [words[kind] for kind in KINDS]


def _colours(found: Mapping[str, Scores]) -> list[str]:
    return [GROUPS[i % len(GROUPS)] for i in range(len(found))]


def _key(figure: Figure, found: Mapping[str, Scores], *, more: Sequence[Line2D] = ()) -> None:
    marks = [
        Line2D([], [], color=colour, marker="o", linestyle="none", markersize=5, label=name)
        for name, colour in zip(found, _colours(found), strict=True)
    ]
    figure.legend(
        handles=[*marks, *more], loc="outside lower left", ncols=4, frameon=False, fontsize=SMALL,
        labelcolor=MUTED,
    )  # fmt: skip


class Shown(NamedTuple):
    """A figure in a file beside the page."""

    file: str
    caption: str


def evaluation_page(
    title: str, *, lead: Sequence[str], tables: Mapping[str, Table], pictures: Sequence[Shown]
) -> str:
    """HTML with every table under its name, and the figures.

    Args:
        title: heading of the page.
        lead: sentences on what was evaluated.
        tables: tables by name.
        pictures: figures in files beside the page.
    """
    drawn = [
        HtmlTable.of(
            name,
            table._replace(header=("", *table.header[1:]))._replace(
                left=table.left | {""} if table.header[0] in table.left else table.left
            ),
        )
        for name, table in tables.items()
    ]
    return render(
        "evaluation_report.html.j2", title=title, lead=lead, tables=drawn, pictures=pictures
    )
