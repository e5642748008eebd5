"""Scores as tables, the way papers print them: by level, by kind of sequence, with intervals."""

from collections.abc import Iterator, Mapping

from hpsearch.evaluation import LEVELS, Scores
from hpsearch.evaluation.bootstrap import Comparison, compare, headlines_of, intervals
from hpsearch.reporting.text import MISSING, Table

TASKS = ("verification", "matching", "retrieval")
KINDS = {"i_": "illum.", "v_": "viewp."}
MEAN = "mean of the three"
POOLED = "retrieval, over pools"
HEADER = ("", *LEVELS, "mean", *KINDS.values(), "95 % interval")
RETRIEVAL = (
    "retrieval is over the whole pool of distractors and enters the mean; "
    f"“{POOLED}” is the mean over the seven pool sizes, as the N-HPatches coursework printed it"
)


def score_tables(found: Mapping[str, Scores]) -> dict[str, Table]:
    """One table a task; a row for everything that was scored."""
    lines = {name: _lines(scores) for name, scores in found.items()}
    return {
        task: Table(
            (task, *HEADER[1:]),
            tuple((name, *cells[task]) for name, cells in lines.items()),
            frozenset({task}),
        )
        for task in (*TASKS, POOLED, MEAN)
    }


def comparison_table(scores: Scores, other: Scores) -> Table:
    """Difference of each headline, its interval, the share of sequences won, and what it means."""
    found = compare(scores, other)
    rows = tuple((MEAN if name == "mAP" else name, *_difference(c)) for name, c in found.items())
    header = ("", "difference", "95 % interval", "sequences won", "says")
    return Table(header, rows, frozenset({"", "says"}))


def about(scores: Scores) -> Iterator[str]:
    """What the numbers are of, in sentences."""
    yield (
        f"{len(scores.names)} sequences, {sum(scores.points):,} points; "
        "intervals by bootstrap over sequences"
    )
    yield RETRIEVAL


def _lines(scores: Scores) -> dict[str, tuple[str, ...]]:
    flat, bounds = scores.flat(), intervals(scores)
    kinds = _by_kind(scores)
    lines = {}
    for task, name in [*((task, task) for task in TASKS), (MEAN, "mAP")]:
        if task == MEAN:
            levels = [sum(flat[f"{one}/{level}"] for one in TASKS) / 3 for level in LEVELS]
        else:
            levels = [flat[f"{task}/{level}"] for level in LEVELS]
        values = [*levels, flat[name]]
        interval = f"{bounds[name].low:.3f} … {bounds[name].high:.3f}"
        cells = [f"{value:.4f}" for value in values]
        lines[task] = (*cells, *(_of(kind, name) for kind in kinds), interval)
    pooled = [*scores.retrieved.ap.mean(axis=(1, 2)), scores.retrieval_over_pools]
    lines[POOLED] = (*(f"{value:.4f}" for value in pooled), *[MISSING] * len(KINDS), MISSING)
    return lines


def _by_kind(scores: Scores) -> list[dict[str, float] | None]:
    """Headlines over the illumination and over the viewpoint sequences, where there are any."""
    chosen = [[name.startswith(prefix) for name in scores.names] for prefix in KINDS]
    return [headlines_of(scores, kind) if any(kind) else None for kind in chosen]


def _of(kind: dict[str, float] | None, name: str) -> str:
    value = float("nan") if kind is None else kind[name]
    return f"{value:.4f}" if value == value else MISSING


def _difference(found: Comparison) -> tuple[str, ...]:
    says = "better" if found.better else "worse" if found.high < 0 else "no difference shown"
    return (
        f"{found.difference:+.4f}",
        f"{found.low:+.3f} … {found.high:+.3f}",
        f"{100 * found.share_won:.0f} %",
        says,
    )
