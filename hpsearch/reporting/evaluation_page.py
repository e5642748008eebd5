"""Page of an evaluation: its figures, and the HTML around them."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from hpsearch.evaluation import LEVELS, PAIR_KINDS, Scores
from hpsearch.reporting.html_tables import HtmlTable, render
from hpsearch.reporting.plot_style import (
    GROUP_COLORS,
    INK,
    LINE_INCHES,
    MUTED,
    NORMAL,
    SMALL,
    is_narrow,
    new_axes,
    new_figure,
    set_title,
    style_axes,
)
from hpsearch.reporting.search_figures import ReportFigure
from hpsearch.reporting.text_tables import TextTable
from hpsearch.shapes import UInt8

NUM_EXTREMES = 3
"""Number of best and of worst sequences in the figure."""
POINTS_PER_SEQUENCE, NARROW_POINTS = 4, 2
"""Number of points of a sequence in the figure, with one view of every level each."""
SHOWN_VIEWS = (0, 3, 8, 13)
"""Views in the figure: ``ref``, ``e3``, ``h3`` and ``t3``, of the third of five targets."""
GAP_PIXELS, SEQUENCE_GAP_PIXELS, NARROW_GAP_PIXELS = 2, 10, 22
"""Gaps in pixels between the patches of a point, between points, and between rows with a label."""


def plot_precision_recall(found: Mapping[str, Scores]) -> Figure:
    """Precision-recall curves by level; negatives of other sequences solid, of the same dashed."""
    figure, every = new_axes(9.6, 3.6, columns=len(LEVELS))
    for level, axes in enumerate(every):
        set_title(
            axes, f"Verification, {LEVELS[level]}", x="recall", y="" if level else "precision"
        )
        for (_, scores), color in zip(found.items(), _colors(found), strict=True):
            for kind, dashes in enumerate(("-", (0, (3, 2)))):
                recall, precision = scores.verified.curve(level, kind)
                axes.plot(recall, precision, color=color, linestyle=dashes, linewidth=1.6)
        axes.set_xlim(0, 1)
        axes.set_ylim(0, 1.02)
    kinds = [
        Line2D([], [], color=MUTED, linestyle=dashes, label=label)
        for dashes, label in zip(("-", (0, (3, 2))), _view_labels(), strict=True)
    ]
    _legend(figure, found, more=kinds)
    return figure


def plot_matching_by_sequence(found: Mapping[str, Scores]) -> Figure:
    """Bar chart of matching mAP by sequence, sorted by the first of ``found``."""
    first = next(iter(found.values()))
    order = np.argsort(first.by_sequence()["matching"], kind="stable")
    legend = LINE_INCHES * len(found) if is_narrow() else 0
    figure = new_figure(9.6, 1.3 + 1.4 * LINE_INCHES * len(order) + legend)
    axes = figure.add_subplot()
    style_axes(axes)
    axes.grid(visible=True, axis="both", color=axes.spines["bottom"].get_edgecolor(), linewidth=0.8)
    set_title(axes, "Matching by sequence", x="mAP over 15 pairs of views")
    heights = np.arange(len(order))
    for (_, scores), color in zip(found.items(), _colors(found), strict=True):
        values = scores.by_sequence()["matching"][order]
        axes.plot(values, heights, "o", color=color, markersize=5, markeredgewidth=0, alpha=0.9)
    axes.set_yticks(heights, [first.names[i] for i in order], fontsize=SMALL)
    axes.set_ylim(-0.7, len(order) - 0.3)
    axes.set_xlim(0, 1)
    _legend(figure, found)
    return figure


def plot_best_and_worst(
    scores: Scores, patches: Mapping[str, UInt8[np.ndarray, "n 16 32 32"]]
) -> Figure:
    """Figure of the worst and best sequences by matching, with patches of every level.

    Args:
        patches: input patches of the sequences in ``best_and_worst``.
    """
    rows, narrow = best_and_worst(scores), is_narrow()
    points = NARROW_POINTS if narrow else POINTS_PER_SEQUENCE
    figure = new_figure(9.6, 0.75 + (0.45 if narrow else 0.62) * len(rows))
    axes = figure.add_subplot()
    set_title(
        axes,
        f"Worst and best sequences by matching: reference, easy, hard, tough of {points} points",
    )
    axes.set_axis_off()
    high = 32 + (NARROW_GAP_PIXELS if narrow else SEQUENCE_GAP_PIXELS)
    canvas = np.full((len(rows) * high, _row_width(points)), np.nan)
    matching = scores.by_sequence()["matching"]
    for row, name in enumerate(rows):
        top = row * high + (NARROW_GAP_PIXELS if narrow else 0)
        _draw_patch_row(canvas[top : top + 32], patches[name], points)
        label = f"{name}  {matching[scores.names.index(name)]:.3f}"
        if narrow:
            axes.text(0, top - 4, label, va="bottom", fontsize=SMALL, color=INK)
        else:
            axes.text(-6, top + 16, label, ha="right", va="center", fontsize=NORMAL, color=INK)
    axes.imshow(canvas, cmap="gray", vmin=0, vmax=255, interpolation="none")
    return figure


def best_and_worst(scores: Scores) -> list[str]:
    """Names of up to three worst and three best sequences by matching, the worst first."""
    order = np.argsort(scores.by_sequence()["matching"], kind="stable").tolist()
    chosen = (
        order if len(order) <= 2 * NUM_EXTREMES else [*order[:NUM_EXTREMES], *order[-NUM_EXTREMES:]]
    )
    return [scores.names[i] for i in chosen]


def _draw_patch_row(
    canvas: np.ndarray, patches: UInt8[np.ndarray, "n 16 32 32"], points: int
) -> None:
    left = 0
    for point in np.linspace(0, len(patches) - 1, points).astype(int):
        for view in SHOWN_VIEWS:
            canvas[:, left : left + 32] = patches[point, view]
            left += 32 + GAP_PIXELS
        left += SEQUENCE_GAP_PIXELS - GAP_PIXELS


def _row_width(points: int) -> int:
    return (
        points * (len(SHOWN_VIEWS) * (32 + GAP_PIXELS) - GAP_PIXELS + SEQUENCE_GAP_PIXELS)
        - SEQUENCE_GAP_PIXELS
    )


def _view_labels() -> list[str]:
    labels = {"inter": "negatives of other sequences", "intra": "of the same sequence"}
    return [labels[kind] for kind in PAIR_KINDS]


def _colors(found: Mapping[str, Scores]) -> list[str]:
    return [GROUP_COLORS[i % len(GROUP_COLORS)] for i in range(len(found))]


def _legend(figure: Figure, found: Mapping[str, Scores], *, more: Sequence[Line2D] = ()) -> None:
    marks = [
        Line2D([], [], color=color, marker="o", linestyle="none", markersize=5, label=name)
        for name, color in zip(found, _colors(found), strict=True)
    ]
    figure.legend(
        handles=[*marks, *more], loc="outside lower left", ncols=1 if is_narrow() else 4,
        frameon=False, fontsize=SMALL, labelcolor=MUTED,
    )  # fmt: skip


def render_evaluation_page(
    title: str,
    *,
    lead: Sequence[str],
    tables: Mapping[str, TextTable],
    figures: Sequence[ReportFigure],
) -> str:
    """HTML page of an evaluation, with all tables and figures.

    Args:
        title: heading of the page.
        lead: introductory sentences.
        tables: tables by name.
        figures: figures, drawn into the page at two widths.
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
        "evaluation_report.html.j2", title=title, lead=lead, tables=drawn, figures=figures
    )
