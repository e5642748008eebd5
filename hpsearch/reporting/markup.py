"""Pieces of HTML; every word that comes in is escaped."""

from collections.abc import Iterable, Sequence
from html import escape


def table(
    head: Iterable[str], rows: Iterable[Sequence[str]], *, label: str, marked: bool = False
) -> str:
    """A table that scrolls by itself, named for a screen reader; ``marked`` stresses row one."""
    lines = [
        f"<tr{kind(first=marked and number == 0)}>{''.join(cells)}</tr>"
        for number, cells in enumerate(rows)
    ]
    body = "\n".join(lines)
    return (
        f'<div class="scroll" tabindex="0" role="region" aria-label="{escape(label)}"><table>'
        f"<thead><tr>{''.join(head)}</tr></thead>\n<tbody>{body}</tbody></table></div>"
    )


def head(name: str, *, text: bool = False, scope: str = "col") -> str:
    """A header cell; a dotted name may break after its dots."""
    words = escape(name).replace(".", ".<wbr>")
    return f'<th scope="{scope}"{kind(text=text)}>{words}</th>'


def cell(words: str, *, text: bool = False, wide: bool = False) -> str:
    """A data cell: a number at the right, or text at the left, ``wide`` if it may wrap."""
    return f"<td{kind(text=text, wide=wide)}>{escape(words)}</td>"


def section(heading: str, *content: str) -> str:
    """A section with its heading."""
    body = "\n".join(part for part in content if part)
    return f"<section>\n<h2>{escape(heading)}</h2>\n{body}\n</section>"


def paragraph(words: str, *, note: bool = False, lead: bool = False) -> str:
    """A paragraph, or nothing if there are no words."""
    return f"<p{kind(note=note, lead=lead)}>{escape(words)}</p>" if words else ""


def fold(summary: str, content: str, *, unfolded: bool = False) -> str:
    """Content that shows when asked for."""
    state = " open" if unfolded else ""
    return f"<details{state}><summary>{escape(summary)}</summary>{content}</details>"


def kind(**chosen: bool) -> str:
    """The class attribute with the names that are chosen."""
    names = " ".join(name for name, wanted in chosen.items() if wanted)
    return f' class="{names}"' if names else ""
