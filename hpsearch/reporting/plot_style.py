"""Style of figures, and their export as PNG and SVG."""

import base64
import io
import itertools
import textwrap
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, NamedTuple

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, MaxNLocator
from PIL import Image

from hpsearch.reporting.leaderboard import STATUS_ORDER
from hpsearch.reporting.text_tables import format_patches
from hpsearch.tracking.run_state import RunStatus

INK = "#1f2329"
MUTED = "#69717a"
GRID = "#e3e6ea"
PAPER = "#fefefe"
"""Color around text that lines would cross; that of the page."""

STATUS_COLORS: dict[RunStatus, str] = {
    "completed": "#2a7fc9",
    "running": "#2f9e77",
    "interrupted": "#9a7bd0",
    "paused": "#3fb0c4",
    "infeasible": "#7a5c3a",
    "pruned": "#9aa2ab",
    "failed": "#c08a12",
    "diverged": "#c24a95",
    "collapsed": "#dd5a2b",
}
STATUS_MARKERS: dict[RunStatus, str] = {
    "completed": "o",
    "running": ">",
    "interrupted": "D",
    "paused": "d",
    "infeasible": "v",
    "pruned": "s",
    "failed": "P",
    "diverged": "^",
    "collapsed": "X",
}
TASK_COLORS = {
    "verification": "#2a7fc9",
    "matching": "#dd5a2b",
    "retrieval": "#2f9e77",
}
GROUP_COLORS = (
    *("#2a7fc9", "#dd5a2b", "#2f9e77", "#9a7bd0", "#c08a12", "#c24a95"),
    *("#3fb0c4", "#7d8f2a", "#a0603c", "#6b78d6"),
)
DPI = 150
LINE_INCHES = 0.16
"""Distance in inches between two lines of small text."""
SMALL, NORMAL, LARGE = 8.5, 9.5, 11.0
LEADER_STYLE: dict[str, Any] = {
    "arrowstyle": "-", "color": MUTED, "linewidth": 0.6, "shrinkA": 1, "shrinkB": 3,
}  # fmt: skip
"""Style of the thin line between a label and the end of its line."""
HEADING_STYLE: dict[str, Any] = {"fontsize": LARGE, "color": INK, "fontweight": "bold"}


NARROW_INCHES = 3.0
"""Width of a figure for a narrow page, at the same size of text."""
NARROW_TITLE_CHARS = 28
"""Characters of a line of a title in a narrow figure."""
MAX_PAIRED_LABEL_CHARS = 14
"""Longest label of a legend in two columns in a narrow figure."""
_NARROW: ContextVar[bool] = ContextVar("narrow", default=False)


@contextmanager
def narrow_figures() -> Iterator[None]:
    """Draw the figures within the block for a page of 400 pixels, their panels in one column."""
    token = _NARROW.set(True)
    try:
        yield
    finally:
        _NARROW.reset(token)


def is_narrow() -> bool:
    """Return whether figures are drawn for a narrow page."""
    return _NARROW.get()


def line_styles() -> Iterator[tuple[str, str]]:
    """Color and dashes of each line of a figure: all colors, then all again with other dashes."""
    for dashes in itertools.cycle(("-", "--", ":")):
        for color in GROUP_COLORS:
            yield color, dashes


def new_figure(width: float, height: float) -> Figure:
    """Empty figure with size in inches and constrained layout."""
    width = min(width, NARROW_INCHES) if is_narrow() else width
    return Figure(figsize=(width, height), dpi=DPI, layout="constrained", facecolor="white")


def new_axes(
    width: float, height: float, *, columns: int = 1, rows: int = 1
) -> tuple[Figure, list[Axes]]:
    """Figure with styled axes in a grid, row by row; below each other in a narrow figure.

    Args:
        width: inches of the figure.
        height: inches of the figure; in a narrow one, of each row of axes.
        columns: number of columns.
        rows: number of rows.
    """
    if is_narrow():
        rows, columns, height = rows * columns, 1, max(2.4, height / rows) * rows * columns
    figure = new_figure(width, height)
    every = [figure.add_subplot(rows, columns, i + 1) for i in range(rows * columns)]
    engine = figure.get_layout_engine()
    if rows > 1 and isinstance(engine, ConstrainedLayoutEngine):
        engine.set(h_pad=0.14)  # pyright: ignore[reportAttributeAccessIssue]
    for axes in every:
        style_axes(axes)
    return figure, every


def style_axes(axes: Axes) -> None:
    """Apply the style to axes: horizontal grid lines, no box, small muted ticks."""
    axes.set_facecolor("none")
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    axes.spines["bottom"].set_color(GRID)
    axes.grid(axis="y", color=GRID, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.tick_params(which="both", colors=MUTED, labelsize=SMALL, length=0, pad=4)


def set_title(axes: Axes, heading: str, *, x: str = "", y: str = "") -> None:
    """Set a left-aligned title, and axis labels with units."""
    heading = textwrap.fill(heading, NARROW_TITLE_CHARS) if is_narrow() else heading
    axes.set_title(heading, loc="left", pad=10, **HEADING_STYLE)
    axes.set_xlabel(x, fontsize=NORMAL, color=MUTED)
    axes.set_ylabel(y, fontsize=NORMAL, color=MUTED)


def count_patches(axes: Axes) -> None:
    """Format the x axis as patches seen, starting at 0."""
    axes.margins(x=0.015)
    axes.set_xlim(left=0)
    axes.xaxis.set_major_locator(MaxNLocator(4 if is_narrow() else 6))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: format_patches(round(value))))


class EndLabel(NamedTuple):
    """Label of a line, and the point where the line ends."""

    x: float
    y: float
    text: str
    color: str


def end_labels(axes: Axes, labels: Sequence[EndLabel]) -> None:
    """Label lines at the right edge, moved apart if they overlap, each tied to its line's end."""
    low, high = axes.get_ylim()
    ordered = sorted(labels, key=lambda label: label.y)
    apart = LINE_INCHES * DPI / axes.get_window_extent().height * (high - low)
    heights = spread_labels([label.y for label in ordered], apart=apart)
    right = axes.get_xlim()[1]
    axes.set_xlim(right=right)
    for label, height in zip(ordered, heights, strict=True):
        is_moved = label.x < right or abs(height - label.y) > apart / 4
        axes.annotate(
            label.text, (label.x, label.y), xycoords="data", xytext=(1.015, height),
            textcoords=("axes fraction", "data"), fontsize=SMALL, color=label.color, va="center",
            annotation_clip=False, arrowprops=LEADER_STYLE if is_moved else None,
        )  # fmt: skip


def spread_labels(heights: Sequence[float], *, apart: float) -> list[float]:
    """Ascending heights, moved minimally (least squares) to a distance of at least ``apart``."""
    blocks: list[list[float]] = []  # isotonic regression by pooling of adjacent violators
    for number, height in enumerate(heights):
        blocks.append([height - apart * number])
        while len(blocks) > 1 and np.mean(blocks[-2]) >= np.mean(blocks[-1]):
            blocks[-2:] = [blocks[-2] + blocks[-1]]
    level = [float(np.mean(block)) for block in blocks for _ in block]
    return [height + apart * number for number, height in enumerate(level)]


def status_legend(
    axes: Axes, statuses: Sequence[RunStatus], *, more: Sequence[Line2D] = ()
) -> None:
    """Add a legend of statuses with color and marker, below the title."""
    marks = [
        Line2D(
            [],
            [],
            color=STATUS_COLORS[s],
            marker=STATUS_MARKERS[s],
            linestyle="none",
            label=s,
            markersize=5,
        )
        for s in STATUS_ORDER
        if s in statuses
    ]
    longest = max((len(str(mark.get_label())) for mark in [*marks, *more]), default=0)
    columns = 8 if not is_narrow() else 2 if longest <= MAX_PAIRED_LABEL_CHARS else 1
    axes.legend(
        handles=[*marks, *more], loc="lower left", bbox_to_anchor=(-0.01, 0.99), ncols=columns,
        frameon=False, fontsize=SMALL, labelcolor=MUTED, handletextpad=0.4, columnspacing=1.2,
        borderaxespad=0.1,
    )  # fmt: skip
    lines = -(-len([*marks, *more]) // columns)
    pad = 11 + 15 * max(1, lines)
    axes.set_title(axes.get_title(loc="left"), loc="left", pad=pad, **HEADING_STYLE)


def mark_stopped(axes: Axes, x: int, status: RunStatus) -> None:
    """Mark the end of a stopped trial on the x axis, because its objective is not informative."""
    axes.plot(
        x, 0.03, STATUS_MARKERS[status], color=STATUS_COLORS[status], markersize=6.5,
        markeredgewidth=0,
        transform=axes.get_xaxis_transform(), clip_on=False,
    )  # fmt: skip


def draw_bars(
    heading: str,
    names: Sequence[str],
    sizes: Sequence[float],
    labels: Sequence[str],
    colors: Sequence[str],
    *,
    bounds: Sequence[tuple[float, float]] = (),
) -> Figure:
    """Figure of horizontal bars, the first at the bottom, with a label at the end of each.

    Args:
        heading: title.
        names: names of the bars.
        sizes: lengths, at least 0.
        labels: labels of the bars.
        colors: colors of the bars.
        bounds: interval of each length; empty for none.
    """
    narrow = is_narrow()
    figure = new_figure(9.6, 0.9 + (0.56 if narrow else 0.36) * max(2, len(names)))
    axes = figure.add_subplot()
    style_axes(axes)
    set_title(axes, heading)
    axes.barh(range(len(names)), sizes, color=colors, height=0.3 if narrow else 0.62)
    axes.grid(visible=False)
    axes.spines["bottom"].set_visible(False)
    axes.set_xticks([])
    ends = [high for _, high in bounds] or sizes
    axes.set_xlim(0, max([*ends, 1e-9]) * (1.02 if narrow else 1.18))
    for row, (low, high) in enumerate(bounds):
        axes.plot((low, high), (row, row), "-|", color=INK, linewidth=1.2, markersize=7)
    if narrow:
        _label_above(axes, names, labels)
        return figure
    axes.set_yticks(range(len(names)), names, fontsize=NORMAL, color=INK)
    for row, (end, label) in enumerate(zip(ends, labels, strict=True)):
        axes.annotate(
            label, (end, row), xytext=(6, 0), textcoords="offset points", va="center",
            fontsize=SMALL, color=MUTED,
        )  # fmt: skip
    return figure


def _label_above(axes: Axes, names: Sequence[str], labels: Sequence[str]) -> None:
    """Write name and label of each horizontal bar above it, where there is no space at its side."""
    axes.set_yticks([])
    axes.set_ylim(-0.3, len(names) - 0.3)
    for row, (name, label) in enumerate(zip(names, labels, strict=True)):
        texts = f"{textwrap.shorten(name, 40, placeholder=' …')}  {label}"
        axes.text(0, row + 0.24, texts, fontsize=SMALL, color=INK, va="bottom")


def annotate_empty(axes: Axes, text: str) -> None:
    """Show a text instead of missing data."""
    axes.grid(visible=False)
    axes.set_xticks([])
    axes.set_yticks([])
    middle = {"transform": axes.transAxes, "ha": "center", "va": "center"}
    axes.text(0.5, 0.5, text, color=MUTED, fontsize=NORMAL, **middle)


DARK_INKS = {INK: "#e8eaed", MUTED: "#9aa3ad", GRID: "#2b3138", PAPER: "#14171b"}
"""Colors of ink, muted text, grid lines and the page itself on a dark page."""


def png(figure: Figure, *, dots: int = DPI) -> bytes:
    """Figure as PNG on white, with ``dots`` per inch."""
    _fix_layout(figure)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=dots)
    return buffer.getvalue()


def half_size(content: bytes) -> bytes:
    """PNG in half the resolution of another one, faster than drawing its figure again."""
    buffer = io.BytesIO()
    Image.open(io.BytesIO(content)).convert("RGB").reduce(2).save(buffer, format="png")
    return buffer.getvalue()


def _fix_layout(figure: Figure) -> None:
    """Lay a figure out once; Matplotlib does it twice for every file, in most of the time."""
    engine = figure.get_layout_engine()
    if engine is not None:
        engine.execute(figure)
        figure.set_layout_engine(None)


def svg(figure: Figure) -> str:
    """Figure as SVG without background, in light or dark ink by the reader's color scheme."""
    _fix_layout(figure)
    buffer = io.StringIO()
    with rc_context({"svg.hashsalt": "hpsearch"}):  # the same names within the file each time
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
    drawn = buffer.getvalue()
    for number, light in enumerate(DARK_INKS):
        drawn = drawn.replace(light, f"var(--c{number})")
    return drawn.replace("<defs>", f"<style>{_dark_scheme_css()}</style><defs>", 1)


def svg_uri(figure: Figure) -> str:
    """SVG as a data URI, without a separate file."""
    return "data:image/svg+xml;base64," + base64.b64encode(svg(figure).encode()).decode()


def _dark_scheme_css() -> str:
    light = "".join(f"--c{number}:{color};" for number, color in enumerate(DARK_INKS))
    dark = "".join(f"--c{number}:{color};" for number, color in enumerate(DARK_INKS.values()))
    pixels = "image{image-rendering:pixelated}"  # patches, which are not smoothed
    return f"{pixels}:root{{{light}}}@media (prefers-color-scheme:dark){{:root{{{dark}}}}}"
