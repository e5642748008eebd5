"""Tables of an evaluation, and notes on them."""

from collections.abc import Iterator, Mapping

from hpsearch.evaluation import LEVELS, Scores
from hpsearch.evaluation.bootstrap import Comparison, compare, format_bounds, intervals
from hpsearch.evaluation.patch_pairs import PatchPairScores
from hpsearch.patch_views import TASKS
from hpsearch.reporting.text_tables import MISSING_VALUE, TextTable

SEQUENCE_COLUMNS = {"i_": "illum.", "v_": "viewp."}
MEAN_ROW = "mean of the three"
POOLED_ROW = "retrieval, over pools"
SCORE_HEADER = ("", *LEVELS, "mean", *SEQUENCE_COLUMNS.values(), "95 % interval")
RETRIEVAL_NOTE = (
    "retrieval is over the whole pool of distractors and enters the mean; "
    f"“{POOLED_ROW}” is the mean over the seven pool sizes, as the N-HPatches coursework printed it"
)


def score_tables(named_scores: Mapping[str, Scores]) -> dict[str, TextTable]:
    """Tables by task, with a row for every evaluated model."""
    lines = {name: _score_rows(scores) for name, scores in named_scores.items()}
    return {
        task: TextTable(
            (task, *SCORE_HEADER[1:]),
            tuple((name, *cells[task]) for name, cells in lines.items()),
            frozenset({task}),
        )
        for task in (*TASKS, POOLED_ROW, MEAN_ROW)
    }


def patch_pair_table(named_scores: Mapping[str, PatchPairScores]) -> TextTable:
    """Table of false positive rates at 95 % recall, by model and sequence, in percent."""
    first = next(iter(named_scores.values()))
    names = tuple(first.num_pairs)
    rows = [
        (name, *(f"{100 * v:.2f}" for v in (*s.false_positive_rate.values(), s.fpr95)))
        for name, s in named_scores.items()
    ]
    counts = (f"{matching + other:,}" for matching, other in first.num_pairs.values())
    rows.append(("pairs", *counts, f"{sum(map(sum, first.num_pairs.values())):,}"))
    return TextTable(("FPR95 in %", *names, "mean"), tuple(rows), frozenset({"FPR95 in %"}))


def comparison_table(scores: Scores, other: Scores) -> TextTable:
    """Table of differences: headline, interval, share of sequences won, conclusion."""
    found = compare(scores, other)
    rows = tuple(
        (MEAN_ROW if name == "mAP" else name, *_difference_row(c)) for name, c in found.items()
    )
    header = ("", "difference", "95 % interval", "sequences won", "conclusion")
    return TextTable(header, rows, frozenset({"", "conclusion"}))


def score_notes(scores: Scores) -> Iterator[str]:
    """Yield notes on the evaluated data and the meaning of the scores."""
    several = len(scores.names) > 1
    yield (
        f"{len(scores.names)} {'sequences' if several else 'sequence'}, "
        f"{sum(scores.points):,} points; "
        + ("intervals by jackknife over sequences" if several else "one sequence has no interval")
    )
    yield RETRIEVAL_NOTE


def _score_rows(scores: Scores) -> dict[str, tuple[str, ...]]:
    flat, bounds = scores.flat(), intervals(scores)
    kinds = scores.by_kind()
    lines = {}
    for task, name in [*((task, task) for task in TASKS), (MEAN_ROW, "mAP")]:
        if task == MEAN_ROW:
            levels = [sum(flat[f"{one}/{level}"] for one in TASKS) / 3 for level in LEVELS]
        else:
            levels = [flat[f"{task}/{level}"] for level in LEVELS]
        values = [*levels, flat[name]]
        interval = format_bounds(bounds[name], ".3f", between=" … ") or MISSING_VALUE
        cells = [f"{value:.4f}" for value in values]
        lines[task] = (*cells, *(_known(kinds[kind][name]) for kind in SEQUENCE_COLUMNS), interval)
    pooled = [*scores.retrieved.ap.mean(axis=(1, 2)), scores.retrieval_over_pools]
    lines[POOLED_ROW] = (
        *(f"{value:.4f}" for value in pooled),
        *[MISSING_VALUE] * len(SEQUENCE_COLUMNS),
        MISSING_VALUE,
    )
    return lines


def _known(value: float) -> str:
    return f"{value:.4f}" if value == value else MISSING_VALUE


def _difference_row(found: Comparison) -> tuple[str, ...]:
    conclusion = "better" if found.better else "worse" if found.worse else "no difference shown"
    return (
        f"{found.difference:+.4f}",
        format_bounds(found, "+.3f", between=" … ") or MISSING_VALUE,
        f"{100 * found.share_won:.0f} %",
        conclusion,
    )
