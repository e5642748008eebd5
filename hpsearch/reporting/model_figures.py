"""Figures of what a model does: nearest patches, confused pairs, denoised patches, descriptors.

Queries are reference patches; the pool is the five tough views of every point, so that exactly
five patches of the pool are right for each query.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from hpsearch.patch_views import SIDE, VIEW_NAMES, VIEWS
from hpsearch.reporting.plot_style import (
    INK,
    MUTED,
    SMALL,
    is_narrow,
    new_figure,
    set_title,
)
from hpsearch.reporting.sample_plots import plot_denoising_grid, plot_embedding
from hpsearch.reporting.search_figures import ReportFigure, SearchFigures
from hpsearch.shapes import Bool, Float, Int, UInt8

POOL_VIEWS = np.array([i for i, name in enumerate(VIEW_NAMES) if name.startswith("t")])
"""Views of the pool: t1 to t5."""
NUM_NEAREST = 5
NUM_QUERIES, NUM_CONFUSIONS = 6, 8
"""Most queries with their nearest patches, and most confused pairs, in a figure."""
NUM_MAPPED_POINTS = 16
"""Points of a map of descriptors."""
RIGHT_COLOR, WRONG_COLOR = "#2f9e77", "#dd5a2b"
RIGHT_MARK, WRONG_MARK = "✓", "✗"
GAP, BLOCK_GAP, MARK_HEIGHT = 5, 14, 13
"""Pixels of patches between two patches and two blocks of patches, and below a patch for a mark."""


@dataclass(frozen=True, eq=False)
class ModelSamples:
    """Patches of some points, and the descriptors of one or two models for them.

    Args:
        given: patches as the models receive them, point-major, 16 views a point.
        clean: the same patches without noise.
        descriptors: descriptors by name of the model, the winner first.
        denoised: patches after the winner's denoiser; None if it has none.
    """

    given: UInt8[np.ndarray, "rows 32 32"]
    clean: UInt8[np.ndarray, "rows 32 32"]
    descriptors: Mapping[str, Float[np.ndarray, "rows d"]]
    denoised: UInt8[np.ndarray, "rows 32 32"] | None = None

    @property
    def num_points(self) -> int:
        """Number of points."""
        return len(self.given) // VIEWS

    @cached_property
    def pool_rows(self) -> Int[np.ndarray, " pool"]:
        """Rows of the pool."""
        return (VIEWS * np.arange(self.num_points)[:, None] + POOL_VIEWS).ravel()

    def distances(self, model: str) -> Float[np.ndarray, "points pool"]:
        """Distances of every point's reference patch to the pool."""
        found = np.nan_to_num(np.asarray(self.descriptors[model], np.float64))
        queries, pool = found[::VIEWS], found[self.pool_rows]
        squared = (queries**2).sum(1)[:, None] + (pool**2).sum(1) - 2 * queries @ pool.T
        return np.sqrt(np.maximum(squared, 0.0))

    def nearest(self, model: str) -> Int[np.ndarray, "points 5"]:
        """Rows of the five nearest patches of the pool for each point, the nearest first."""
        order = np.argsort(self.distances(model), axis=1, kind="stable")[:, :NUM_NEAREST]
        return self.pool_rows[order]

    def is_right(self, model: str) -> Bool[np.ndarray, "points 5"]:
        """True where a nearest patch shows the point of its query."""
        return self.nearest(model) // VIEWS == np.arange(self.num_points)[:, None]


def chosen_queries(samples: ModelSamples) -> list[int]:
    """Points at equal steps from the worst to the best by right patches of the first model."""
    first = next(iter(samples.descriptors))
    order = np.argsort(samples.is_right(first).sum(axis=1), kind="stable")
    steps = np.linspace(0, len(order) - 1, min(NUM_QUERIES, len(order))).astype(int)
    return order[steps].tolist()


@dataclass(frozen=True)
class Confusion:
    """Query whose nearest patch is wrong: rows of query, wrong patch and nearest right patch."""

    query: int
    wrong: int
    right: int
    ratio: float
    """Distance to the wrong patch over that to the right one, below 1."""


def confusions(samples: ModelSamples, model: str) -> list[Confusion]:
    """Queries whose nearest patch is wrong, the surest mistake first."""
    distances, points = samples.distances(model), samples.pool_rows // VIEWS
    found = []
    for point, row in enumerate(distances):
        own = points == point
        wrong, right = np.where(own, np.inf, row).argmin(), np.where(own, row, np.inf).argmin()
        if row[wrong] < row[right]:
            rows = (VIEWS * point, *map(int, samples.pool_rows[[wrong, right]]))
            found.append(Confusion(*rows, ratio=float(row[wrong] / row[right])))
    return sorted(found, key=lambda one: one.ratio)


class PatchCanvas:
    """Patches, marks and texts at places counted in pixels of a patch."""

    def __init__(self, axes: Axes, *, width: int, height: int) -> None:
        self._axes = axes
        self._pixels = np.full((height, width), np.nan)
        axes.set_axis_off()

    def patch(
        self, image: UInt8[np.ndarray, "32 32"], x: int, y: int, *, right: bool | None = None
    ) -> None:
        """Place a patch; True or False for ``right`` frames and marks it."""
        self._pixels[y : y + SIDE, x : x + SIDE] = image
        if right is None:
            return
        color = RIGHT_COLOR if right else WRONG_COLOR
        corner = (x - 1.5, y - 1.5)
        self._axes.add_patch(
            Rectangle(corner, SIDE + 2, SIDE + 2, fill=False, edgecolor=color, linewidth=1.8)
        )
        self.text(
            RIGHT_MARK if right else WRONG_MARK,
            x + SIDE / 2,
            y + SIDE + 7,
            color=color,
            ha="center",
        )

    def text(self, text: str, x: float, y: float, **style: Any) -> None:
        """Place a text, its middle at the height ``y``."""
        self._axes.text(x, y, text, **{"fontsize": SMALL, "color": INK, "va": "center", **style})

    def finish(self) -> None:
        """Draw all patches."""
        self._axes.imshow(self._pixels, cmap="gray", vmin=0, vmax=255, interpolation="none")


def _canvas(heading: str, *, width: int, height: int) -> tuple[Figure, PatchCanvas]:
    inches = 3.0 if is_narrow() else 9.6
    figure = new_figure(inches, inches * height / width + 0.35)
    axes = figure.add_subplot()
    set_title(axes, heading)
    return figure, PatchCanvas(axes, width=width, height=height)


def plot_nearest_patches(samples: ModelSamples) -> Figure:
    """Figure of queries with their five nearest patches by each model, right and wrong marked."""
    points, models = chosen_queries(samples), list(samples.descriptors)
    step, narrow = SIDE + GAP, is_narrow()
    block = NUM_NEAREST * step - GAP
    lines = len(models) if narrow else 1
    high = SIDE + MARK_HEIGHT + 4 + (12 if narrow else 0)
    width = step + BLOCK_GAP + (block if narrow else len(models) * (block + BLOCK_GAP))
    top = 0 if narrow else 16
    height = top + len(points) * (lines * high + (3 if narrow else 0)) + 3
    figure, canvas = _canvas(
        "Queries and their five nearest patches", width=width + 3, height=height
    )
    for number, point in enumerate(points):
        y = top + number * (lines * high + (3 if narrow else 0)) + (12 if narrow else 0)
        canvas.patch(samples.given[VIEWS * point], 2, y)
        for place, model in enumerate(models):
            x = step + BLOCK_GAP + (0 if narrow else place * (block + BLOCK_GAP))
            line = y + (place * high if narrow else 0)
            right = samples.is_right(model)[point]
            for column, row in enumerate(samples.nearest(model)[point]):
                canvas.patch(samples.given[row], x + column * step, line, right=bool(right[column]))
            if narrow:
                canvas.text(f"{model}: {right.sum()} of 5", x, line - 8, color=MUTED)
            elif number == 0:
                canvas.text(model, x, 6, color=MUTED)
    if not narrow:
        canvas.text("query", 2, 6, color=MUTED)
    canvas.finish()
    return figure


def plot_confusions(samples: ModelSamples, found: Sequence[Confusion]) -> Figure:
    """Figure of confused pairs: query, the wrong patch taken for it, the nearest right patch."""
    shown = found[:NUM_CONFUSIONS]
    step, narrow = SIDE + GAP, is_narrow()
    across = 2 if narrow else 4
    block, high = 3 * step + BLOCK_GAP, SIDE + MARK_HEIGHT + 6
    rows = -(-len(shown) // across)
    figure, canvas = _canvas(
        "Pairs that it confuses", width=across * block - BLOCK_GAP + 3, height=rows * high
    )
    for number, one in enumerate(shown):
        x, y = 2 + number % across * block, 2 + number // across * high
        canvas.patch(samples.given[one.query], x, y)
        canvas.text(f"{one.ratio:.2f}", x + SIDE / 2, y + SIDE + 7, ha="center", color=MUTED)
        canvas.patch(samples.given[one.wrong], x + step, y, right=False)
        canvas.patch(samples.given[one.right], x + 2 * step, y, right=True)
    canvas.finish()
    return figure


def model_pictures(samples: ModelSamples) -> SearchFigures:
    """Figures of what the first model of the samples does, and the second if there is one."""
    winner = next(iter(samples.descriptors))
    wrong = confusions(samples, winner)
    figures = [_nearest_figure(samples)]
    omitted = []
    if wrong:
        figures.append(_confusion_figure(samples, wrong, winner))
    else:
        omitted.append(f"Pairs that it confuses: none of {samples.num_points} queries.")
    if samples.denoised is not None:
        figures.append(_denoiser_figure(samples))
    figures.append(_map_figure(samples))
    return SearchFigures(figures, omitted)


def _nearest_figure(samples: ModelSamples) -> ReportFigure:
    shares = ", ".join(
        f"{model} {100 * samples.is_right(model).mean():.0f} %" for model in samples.descriptors
    )
    return ReportFigure(
        "nearest-patches",
        partial(plot_nearest_patches, samples),
        f"Rows of patches: a query and the five patches nearest to it. Right of all: {shares}.",
        "Each row is a reference patch and its five nearest among the tough views of "
        f"{samples.num_points} points, five of which are right. {RIGHT_MARK} right, {WRONG_MARK} "
        f"wrong. The rows go from the worst query to the best. Right over all queries: {shares}.",
    )


def _confusion_figure(
    samples: ModelSamples, wrong: Sequence[Confusion], winner: str
) -> ReportFigure:
    return ReportFigure(
        "confused-pairs",
        partial(plot_confusions, samples, wrong),
        "Triples of patches: a query, the wrong patch nearest to it, and the right one, for "
        f"{len(wrong)} queries.",
        f"By {winner}: query, the wrong patch that is nearest ({WRONG_MARK}), and the nearest "
        f"right one ({RIGHT_MARK}). The number is the distance to the wrong one over that to the "
        f"right one; the surest mistakes of {len(wrong)} in {samples.num_points} queries.",
    )


def _denoiser_figure(samples: ModelSamples) -> ReportFigure:
    assert samples.denoised is not None
    rows = np.linspace(0, len(samples.given) - 1, 12).astype(int)
    return ReportFigure(
        "denoiser",
        partial(
            plot_denoising_grid, samples.given[rows], samples.denoised[rows], samples.clean[rows]
        ),
        "Patches before and after the denoiser, and without noise.",
        "Patches before and after the denoiser, and without noise. Numbers: mean absolute error in "
        "gray levels.",
    )


def _map_figure(samples: ModelSamples) -> ReportFigure:
    points = np.linspace(0, samples.num_points - 1, NUM_MAPPED_POINTS).astype(int)
    points = np.unique(points)
    rows = (VIEWS * points[:, None] + np.arange(0, VIEWS, 2)).ravel()
    chosen = {name: found[rows] for name, found in samples.descriptors.items()}
    return ReportFigure(
        "descriptor-map",
        partial(plot_embedding, chosen, rows // VIEWS),
        f"Scatter charts of the descriptors of {len(points)} points by t-SNE, one per model.",
        f"t-SNE (perplexity {min(30, (len(rows) - 1) // 3)}) of the descriptors of {len(points)} "
        "points in eight views each. Views of a point are joined and have one color: in a good map "
        "they lie together. Distances between groups have no meaning.",
    )
