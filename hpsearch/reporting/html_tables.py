"""HTML pages from Jinja2 templates with autoescape, and tables for the templates."""

import base64
import hashlib
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, NamedTuple

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup, escape
from matplotlib.figure import Figure

from hpsearch.reporting.plot_style import STATUS_COLORS, svg_uri
from hpsearch.reporting.text_tables import TextTable

MAX_REPORT_ROWS = 15
"""Number of rows of a table that are shown without expanding it."""
PIXELS_PER_INCH = 116
"""Pixels of a page per inch of a figure."""


class Cell(NamedTuple):
    """Cell of a table; numbers are right-aligned."""

    value: str
    text: bool = False
    """True if the cell is left-aligned text."""
    wide: bool = False
    """True if the text may wrap."""
    header: bool = False
    """True for the header cell of a row."""
    status: str = ""
    """Status of a trial, shown as a dot of its color."""
    more: str = ""
    """Second line in small print."""
    key: float | None = None
    """Number that the column is sorted by, if the text is an abbreviation of it."""


@dataclass(frozen=True)
class HtmlTable:
    """Table for the templates: label, header and rows of cells."""

    label: str
    """Accessible name of the table, for screen readers."""
    columns: tuple[Cell, ...]
    rows: tuple[tuple[Cell, ...], ...]

    @classmethod
    def of(cls, label: str, table: TextTable, *, wide: Iterable[str] = ()) -> "HtmlTable":
        """Convert a text table; columns named in ``wide`` may wrap."""
        wide = frozenset(wide)
        return cls(
            label,
            tuple(Cell(name, text=name in table.left) for name in table.header),
            tuple(
                tuple(
                    Cell(value, text=name in table.left, wide=name in wide)
                    for name, value in zip(table.header, row, strict=True)
                )
                for row in table.rows
            ),
        )


def render(template: str, **values: Any) -> str:
    """Render a template of ``reporting/templates``; every value is escaped.

    The page's policy names the hash of its one script, so that a browser runs no other.
    """
    environment = _environment()
    loader = environment.loader
    assert loader is not None
    script = loader.get_source(environment, "report.js")[0]
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return environment.get_template(template).render(
        colors=STATUS_COLORS, max_rows=MAX_REPORT_ROWS, script=Markup(script),
        script_hash=f"sha256-{digest}", **values,
    )  # fmt: skip


def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("hpsearch.reporting"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["breakable"] = _breakable
    environment.filters["svg_uri"] = svg_uri
    environment.filters["width"] = _width
    environment.filters["height"] = _height
    return environment


def _breakable(name: str) -> Markup:
    """Dotted name with possible line breaks after its dots, but not inside a number."""
    return Markup(re.sub(r"\.(?=[^\W\d])", ".<wbr>", escape(name)))


def _width(figure: Figure) -> int:
    """Width of a figure on the page, in pixels."""
    return round(PIXELS_PER_INCH * figure.get_figwidth())


def _height(figure: Figure) -> int:
    """Height of a figure on the page, in pixels."""
    return round(PIXELS_PER_INCH * figure.get_figheight())
