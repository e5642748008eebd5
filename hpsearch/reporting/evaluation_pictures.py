"""What an evaluation found, in pictures: curves, sequences, and the patches of the extremes."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from hpsearch.evaluation import KINDS, LEVELS, Scores
from hpsearch.reporting.style import (
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
from hpsearch.shapes import UInt8

EXTREMES = 3
"""Sequences shown at either end."""
SHOWN = 4
"""Points of a sequence, each by its reference and one view of every level."""
VIEWS = (0, 3, 8, 13)
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
        for view in VIEWS:
            canvas[:, left : left + 32] = points[point, view]
            left += 32 + GAP
        left += BETWEEN - GAP


def _width() -> int:
    return SHOWN * (len(VIEWS) * (32 + GAP) - GAP + BETWEEN) - BETWEEN


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
