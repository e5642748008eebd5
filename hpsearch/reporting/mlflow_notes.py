"""MLflow run descriptions of searches, trials and baselines, in Markdown."""

from collections.abc import Mapping, Sequence

from hpsearch.config.formatting import summary
from hpsearch.reporting.leaderboard import Row, Summary, TaskScores
from hpsearch.reporting.text_tables import (
    baseline_table,
    format_patches,
    leaderboard_table,
    summary_lines,
    task_columns,
    to_markdown,
)
from hpsearch.tracking.run_state import Run
from hpsearch.untrusted import markdown_text

MAX_NOTE_CHARS = 7_800
"""Maximum length of a description in characters; MLflow's limit is 8,000."""


def search_description(
    rows: Sequence[Row],
    totals: Summary,
    *,
    metric: str,
    baselines: Mapping[str, TaskScores],
    links: Mapping[str, str],
    picture: str | None,
) -> str:
    """Description of a search: leaderboard, test scores, compute, and links.

    Args:
        rows: first rows of the leaderboard.
        metric: metric of the objective.
        links: URLs by name.
        picture: URL of the learning curves; None if there are none.
    """
    read_on = " · ".join(f"[{name}]({address})" for name, address in links.items())
    parts = [
        _best_line(rows, metric),
        read_on,
        f"**Leaderboard** ({metric} on validation)\n\n{_leaderboard_section(rows)}",
    ]
    if baselines:
        parts.append(f"**mAP on test**\n\n{to_markdown(baseline_table(baselines))}")
    parts.append("\n".join(f"- {line}" for line in summary_lines(totals)))
    return _truncate([*parts, _curves_image(picture)])


def trial_description(row: Row, *, of: int, metric: str, picture: str | None) -> str:
    """Description of a trial: its row of the leaderboard, reason of its end, and curves."""
    score = f"{metric} **{row.objective:.4f}**" if row.objective is not None else "no report"
    rank = f"**{row.rank}** of {of}, {row.status}"
    three = zip(("verification", "matching", "retrieval"), task_columns(row), strict=True)
    lines = [
        f"{rank} · {score} · {format_patches(row.run.seen)} patches seen",
        " · ".join(f"{task} {score}" for task, score in three),
    ]
    if row.run.reason:
        lines.append(f"Reason: {markdown_text(row.run.reason)}")
    if row.run.restarted_attempts:
        lines.append("Restarted from scratch because of a damaged checkpoint")
    if row.run.reports:
        lines.append(to_markdown(leaderboard_table([row], tasks=True)))
    return _truncate([*lines, _curves_image(picture)])


def baseline_description(run: Run, *, picture: str | None) -> str:
    """Description of a baseline, and its curves."""
    text = "Baseline: the best trial is compared with it on test; it is not part of the search."
    return _truncate([text, markdown_text(summary(run.config)), _curves_image(picture)])


def _best_line(rows: Sequence[Row], metric: str) -> str:
    if not rows or rows[0].objective is None:
        return ""
    return (
        f"Best on validation: trial **{rows[0].run.label}**, {metric} **{rows[0].objective:.4f}**, "
        + (markdown_text(rows[0].diff))
    )


def _leaderboard_section(rows: Sequence[Row]) -> str:
    return to_markdown(leaderboard_table(rows)) if rows else "No trial has reported yet."


def _curves_image(picture: str | None) -> str:
    return f"![learning curves]({picture})" if picture else ""


def _truncate(parts: Sequence[str]) -> str:
    """Join as many of the first parts as fit into the limit."""
    text = ""
    for part in parts:
        longer = f"{text}\n\n{part}" if text else part
        if part and len(longer) <= MAX_NOTE_CHARS:
            text = longer
    return text
