"""Tables of trials for other programs: filtered and sorted, as CSV, JSON or data frames."""

import csv
import difflib
import io
import math
import operator
import re
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from hpsearch.config.formatting import Flat, flatten, varying_keys
from hpsearch.errors import UserError, list_names
from hpsearch.reporting.leaderboard import (
    Row,
    last_event_time,
    last_objective,
    shown_status,
    trial_seconds,
)
from hpsearch.schema import to_json
from hpsearch.tracking.run_state import Run

if TYPE_CHECKING:
    import pandas as pd

Record = dict[str, Flat | None]
"""Values of one trial by column."""
OPERATORS: Mapping[str, Callable[[Any, Any], bool]] = {
    "<=": operator.le,
    ">=": operator.ge,
    "!=": operator.ne,
    "=": operator.eq,
    "<": operator.lt,
    ">": operator.gt,
}
CONDITION = re.compile(r"\s*([^<>=!]+?)\s*(<=|>=|!=|=|<|>)\s*(.*?)\s*")
FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r")
"""Beginnings of a text that a spreadsheet would run as a formula."""
WORDS: Mapping[str, bool] = {"yes": True, "true": True, "no": False, "false": False}


def trial_records(rows: Sequence[Row], *, all_settings: bool = False) -> list[Record]:
    """Values of each row of a leaderboard by column.

    Columns are the rank, trial, status, objective, patches seen, seconds, start and end (UTC),
    reason, the metrics of the last report, and the settings.

    Args:
        rows: rows of the leaderboard.
        all_settings: True for every setting, False for those that differ between the trials.
    """
    flats = [flatten(row.run.config) for row in rows]
    names = list(dict.fromkeys(name for flat in flats for name in flat))
    if not all_settings and len(rows) > 1:
        names = varying_keys([row.run.config for row in rows])
    metrics = sorted({name for row in rows for name in row.run.last})
    return [
        {
            "rank": row.rank,
            "trial": row.run.label,
            "status": row.status,
            "objective": _finite(row.objective),
            "seen": row.run.seen,
            "seconds": round(trial_seconds(row.run), 3),
            "started": _iso(row.run.started),
            "ended": None if row.run.ended is None else _iso(last_event_time(row.run)),
            "reason": row.run.reason,
            **{name: _finite(row.run.last.get(name)) for name in metrics},
            **{name: flat.get(name) for name in names},
        }
        for row, flat in zip(rows, flats, strict=True)
    ]


def trial_frame(runs: Sequence[Run], *, metrics: Sequence[str]) -> "pd.DataFrame":
    """Table with one row for each trial, by its number; see ``SearchHandle.trials``.

    Args:
        runs: trials by number.
        metrics: names of metrics that have a column, apart from the objective.
    """
    import pandas as pd

    varying = varying_keys([run.config for run in runs]) if runs else []
    rows = []
    for run in runs:
        settings = flatten(run.config)
        rows.append(
            {
                "state": shown_status(run),
                "value": last_objective(run),
                "seen": run.seen,
                "seconds": trial_seconds(run),
                **{name: run.metric(name) for name in metrics},
                **{name: settings.get(name) for name in varying},
            }
        )
    index = pd.Index([run.number for run in runs], name="number")
    columns = None if rows else ["state", "value", "seen", "seconds"]
    return pd.DataFrame(rows, index=index, columns=columns)


def report_frame(runs: Sequence[Run]) -> "pd.DataFrame":
    """Table with one row for each report; see ``SearchHandle.reports``."""
    import pandas as pd

    rows = [
        {
            "number": run.number,
            "seen": report["seen"],
            "value": report["objective"],
            "time": pd.Timestamp(report["time"], unit="s", tz="UTC"),
            **report["metrics"],
        }
        for run in runs
        for report in run.reports
    ]
    return pd.DataFrame(rows, columns=None if rows else ["number", "seen", "value", "time"])


def _finite(value: float | None) -> float | None:
    """Value, or None for infinity and NaN, which JSON does not have."""
    return value if value is not None and math.isfinite(value) else None


def _iso(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def select_rows(
    rows: Sequence[Row], *, conditions: Sequence[str] = (), sort: str | None = None
) -> list[Row]:
    """Rows that meet every condition, in the order of a column.

    Args:
        rows: rows of the leaderboard.
        conditions: such as ``loss=hardnet``, ``optimizer.lr<1e-2`` or ``status!=pruned``; a row
            without the value meets none.
        sort: name of a column, with ``-`` in front for the largest first; None to keep the order.

    Raises:
        UserError: if a condition is none, or a column does not exist.

    Example:
        >>> select_rows([], conditions=["status=completed"], sort="-objective")
        []
    """
    records = trial_records(rows, all_settings=True)
    columns = list(records[0]) if records else []
    kept = list(range(len(rows)))
    for condition in conditions:
        name, compare, value = _parse_condition(condition)
        if columns:
            column = find_column(name, columns)
            kept = [n for n in kept if _is_met(records[n][column], compare, value)]
    if sort is not None and columns:
        column = find_column(sort.removeprefix("-"), columns)
        known = [n for n in kept if records[n][column] is not None]
        known.sort(key=lambda n: _sort_key(records[n][column]), reverse=sort.startswith("-"))
        kept = [*known, *(n for n in kept if records[n][column] is None)]
    return [rows[n] for n in kept]


def find_column(name: str, columns: Sequence[str]) -> str:
    """Column of a name, or the shortest that ends with it: ``lr`` for ``optimizer.lr``.

    Raises:
        UserError: if there is none, or more than one that is as short.

    Example:
        >>> find_column("lr", ["input.denoiser.optimizer.lr", "optimizer.lr", "seen"])
        'optimizer.lr'
    """
    if name in columns:
        return name
    found = [column for column in columns if re.search(rf"[./]{re.escape(name)}$", column)]
    depths = [len(re.findall(r"[./]", column)) for column in found]
    nearest = [column for column, depth in zip(found, depths, strict=True) if depth == min(depths)]
    if len(nearest) == 1:
        return nearest[0]
    near = nearest or difflib.get_close_matches(name, columns, n=5, cutoff=0.5) or columns
    hint = "it could be" if nearest else "similar are" if near is not columns else "there are"
    raise UserError(
        f"{name!r} is not one column of the trials; {hint} {list_names(near, limit=20)}",
        code="unknown-column",
    )


def _parse_condition(text: str) -> tuple[str, str, str]:
    found = CONDITION.fullmatch(text)
    if found is None or not found[3]:
        raise UserError(
            f"{text!r} is not a condition; give a column, one of = != < <= > >=, and a value, such "
            "as loss=hardnet or 'optimizer.lr<0.01'",
            code="bad-condition",
        )
    return found[1], found[2], found[3]


def _is_met(value: Flat | None, compare: str, text: str) -> bool:
    if value is None:
        return False
    if isinstance(value, bool):
        return text.lower() in WORDS and OPERATORS[compare](value, WORDS[text.lower()])
    if isinstance(value, str):
        return OPERATORS[compare](value.replace(" ", "_"), text.replace(" ", "_"))
    try:
        return OPERATORS[compare](value, float(text.replace("_", "")))
    except ValueError:
        return compare == "!="


def _sort_key(value: Flat | None) -> tuple[bool, float, str]:
    """Order of values of several types: numbers before words."""
    if isinstance(value, str):
        return True, 0.0, value
    return False, float(value or 0), ""


def to_csv(records: Sequence[Mapping[str, Flat | None]]) -> str:
    """Records as CSV with a header; texts that a spreadsheet would run are quoted with ``'``."""
    stream = io.StringIO()
    if records:
        writer = csv.DictWriter(stream, list(records[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows({key: _inert(value) for key, value in row.items()} for row in records)
    return stream.getvalue()


def _inert(value: Flat | None) -> Flat | None:
    is_formula = isinstance(value, str) and value.startswith(FORMULA_STARTS)
    return f"'{value}" if is_formula else value


def to_json_document(search: str, rows: Sequence[Row], facts: Mapping[str, str]) -> str:
    """Trials of a search as one JSON document: origin of the results, and a record for each trial.

    Args:
        search: name of the search.
        rows: rows of the leaderboard.
        facts: origin of the results, by name.
    """
    return to_json(
        {
            "search": search,
            "facts": dict(facts),
            "trials": trial_records(rows, all_settings=True),
        },
        indent=1,
    )
