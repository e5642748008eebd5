"""HTML pages from templates: Jinja2 with autoescape, and the tables that the templates draw."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, NamedTuple

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup, escape
from matplotlib.figure import Figure

from hpsearch.reporting.plot_style import STATUS_COLORS, svg_uri
from hpsearch.reporting.text_tables import TextTable

PIXELS_PER_INCH = 116
"""Pixels of a page for an inch of a figure."""


class Cell(NamedTuple):
    """A cell of a table: a number at the right unless it is text."""

    value: str
    text: bool = False
    """Whether it stands at the left."""
    wide: bool = False
    """Whether it may wrap."""
    header: bool = False
    """Whether it names its row."""
    status: str = ""
    """Status of a trial, shown as a dot of that color."""


@dataclass(frozen=True)
class HtmlTable:
    """A table as the templates draw it."""

    label: str
    """Its name for a screen reader."""
    columns: tuple[Cell, ...]
    rows: tuple[tuple[Cell, ...], ...]

    @classmethod
    def of(cls, label: str, table: TextTable, *, wide: Iterable[str] = ()) -> "HtmlTable":
        """A table of text as HTML, with the columns named in ``wide`` allowed to wrap."""
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
    """A page from a template of ``reporting/templates``; every value is escaped."""
    return _environment().get_template(template).render(colors=STATUS_COLORS, **values)


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
    return environment


def _breakable(name: str) -> Markup:
    """A dotted name that may break after its dots."""
    return Markup(escape(name).replace(Markup("."), Markup(".<wbr>")))


def _width(figure: Figure) -> int:
    """Width of a figure on the page, in pixels."""
    return round(PIXELS_PER_INCH * figure.get_figwidth())
