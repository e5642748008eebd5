"""What MLflow shows first on the page of a search and of a trial: Markdown of a few lines."""

from collections.abc import Mapping, Sequence

from hpsearch.config.formatting import title
from hpsearch.reporting.leaderboard import Row, Summary, TaskScores
from hpsearch.reporting.text_tables import (
    leaderboard_table,
    markdown,
    patches,
    summary_lines,
    three_scores,
    yardstick_table,
)
from hpsearch.tracking.run_state import Run
from hpsearch.untrusted import markdown_text

LONGEST = 7_800
"""Characters; MLflow keeps 8,000 of a note."""


def search_note(
    rows: Sequence[Row],
    totals: Summary,
    *,
    metric: str,
    yardsticks: Mapping[str, TaskScores],
    links: Mapping[str, str],
    picture: str,
) -> str:
    """The leaderboard, the test scores, what it cost, and where to read on.

    Args:
        rows: the head of the leaderboard.
        metric: what its objective is.
        links: addresses by name.
        picture: address of the learning curves.
    """
    read_on = " · ".join(f"[{name}]({address})" for name, address in links.items())
    parts = [
        _best(rows, metric),
        read_on,
        f"**Leaderboard** ({metric} on validation)\n\n{_leaderboard(rows)}",
    ]
    if yardsticks:
        parts.append(f"**mAP on test**\n\n{markdown(yardstick_table(yardsticks))}")
    parts.append("\n".join(f"- {line}" for line in summary_lines(totals)))
    return _fitting([*parts, f"![learning curves of all trials]({picture})"])


def trial_note(row: Row, *, of: int, metric: str, picture: str | None) -> str:
    """One line of the leaderboard, why the trial ended, and its curves."""
    score = f"{metric} **{row.objective:.4f}**" if row.objective is not None else "no report"
    place = f"**{row.place}** of {of}, {row.status}"
    three = zip(("verification", "matching", "retrieval"), three_scores(row), strict=True)
    lines = [
        f"{place} · {score} · {patches(row.run.seen)} patches seen",
        " · ".join(f"{task} {score}" for task, score in three),
    ]
    if row.run.reason:
        lines.append(f"Ended because: {markdown_text(row.run.reason)}")
    if row.run.anew:
        lines.append("Began anew, because its checkpoint was damaged")
    if row.run.reports:
        lines.append(markdown(leaderboard_table([row], tasks=True)))
    return _fitting([*lines, _curves(picture)])


def yardstick_note(run: Run, *, picture: str | None) -> str:
    """What a yardstick is, and its curves."""
    words = "The winner is compared with this run on test; it takes no part in the search."
    return _fitting([words, markdown_text(title(run.config)), _curves(picture)])


def _best(rows: Sequence[Row], metric: str) -> str:
    if not rows or rows[0].objective is None:
        return ""
    return f"Best: trial **{rows[0].run.label}**, {metric} **{rows[0].objective:.4f}**, " + (
        markdown_text(rows[0].differs)
    )


def _leaderboard(rows: Sequence[Row]) -> str:
    return markdown(leaderboard_table(rows)) if rows else "No trial has reported yet."


def _curves(picture: str | None) -> str:
    return f"![learning curves]({picture})" if picture else ""


def _fitting(parts: Sequence[str]) -> str:
    """As many parts as MLflow keeps, the first ones for certain."""
    text = ""
    for part in parts:
        longer = f"{text}\n\n{part}" if text else part
        if part and len(longer) <= LONGEST:
            text = longer
    return text
