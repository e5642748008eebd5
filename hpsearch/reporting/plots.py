"""Every figure of a run or a search, and how to write one down.

Each returns a ``matplotlib.figure.Figure`` drawn without pyplot; ``png`` and ``svg`` write it.
"""

import base64
import io

from matplotlib.figure import Figure

from hpsearch.reporting.charts import collapse_map, compute, importance
from hpsearch.reporting.curves import history, learning_curves, search_curves
from hpsearch.reporting.pictures import embedding, project, triptych
from hpsearch.reporting.style import GRID, INK, MUTED

__all__ = [
    "collapse_map",
    "compute",
    "embedding",
    "history",
    "importance",
    "learning_curves",
    "png",
    "project",
    "search_curves",
    "svg",
    "svg_uri",
    "triptych",
]

DARK = {INK: "#e8eaed", MUTED: "#9aa3ad", GRID: "#2b3138"}
"""What stands for ink, muted text and grid lines on a dark page."""


def png(figure: Figure, *, dots: int = 150) -> bytes:
    """The figure on white, so many dots an inch."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=dots)
    return buffer.getvalue()


def svg(figure: Figure) -> str:
    """The figure without background, in light or dark ink as the reader's screen asks for."""
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
    drawn = buffer.getvalue()
    for number, light in enumerate(DARK):
        drawn = drawn.replace(light, f"var(--c{number})")
    return drawn.replace("<defs>", f"<style>{_scheme()}</style><defs>", 1)


def svg_uri(figure: Figure) -> str:
    """The SVG as a data address, which needs no file beside the page."""
    return "data:image/svg+xml;base64," + base64.b64encode(svg(figure).encode()).decode()


def _scheme() -> str:
    light = "".join(f"--c{number}:{colour};" for number, colour in enumerate(DARK))
    dark = "".join(f"--c{number}:{colour};" for number, colour in enumerate(DARK.values()))
    return f":root{{{light}}}@media (prefers-color-scheme:dark){{:root{{{dark}}}}}"
