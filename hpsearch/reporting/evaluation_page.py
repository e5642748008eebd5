"""One page for an evaluation: its tables, and its figures from the files beside it."""

from collections.abc import Mapping, Sequence
from html import escape
from typing import NamedTuple

from hpsearch.reporting.markup import cell, head, paragraph, section, table
from hpsearch.reporting.page_style import CSS
from hpsearch.reporting.text import Table


class Shown(NamedTuple):
    """A figure in a file beside the page."""

    file: str
    caption: str


def evaluation_page(
    title: str, *, lead: Sequence[str], tables: Mapping[str, Table], pictures: Sequence[Shown]
) -> str:
    """HTML with every table under its name, and the figures.

    Args:
        lead: sentences on what was evaluated.
    """
    parts = [f"<h1>{escape(title)}</h1>", *(paragraph(words, lead=True) for words in lead)]
    parts += [section(name, _table(name, shown)) for name, shown in tables.items()]
    parts += [section("Figures", *map(_figure, pictures))] if pictures else []
    body = "\n".join(parts)
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title)} – evaluation</title>\n"
        f"<style>{CSS}figure img {{ background: white; }}</style>\n</head>\n"
        f"<body>\n<main>\n{body}\n<footer>Written by hpsearch.</footer>\n</main>\n</body>\n"
        "</html>\n"
    )


def _table(name: str, shown: Table) -> str:
    heads = [head(word, text=word in shown.left) for word in ("", *shown.header[1:])]
    text = [word in shown.left for word in shown.header]
    rows = [[cell(word, text=t) for word, t in zip(row, text, strict=True)] for row in shown.rows]
    return table(heads, rows, label=name)


def _figure(picture: Shown) -> str:
    name, caption = escape(picture.file), escape(picture.caption)
    return f'<figure><img src="{name}" alt="{caption}"><figcaption>{caption}</figcaption></figure>'
