"""Searches replayed on recorded learning curves: real searchers, real stopping rules, no training.

The table holds random configurations with their whole curves. A search may try its rows and nothing
else, each once, so nothing is interpolated and all searchers choose among the same. Random search
takes rows at random, which is what a random search of the space is.
"""

import heapq
import json
import math
import sys
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pyarrow.parquet as pq
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution

from hpsearch.execution.worker_messages import Reported
from hpsearch.search.pruners import PrunerWithHistory
from hpsearch.search.search import Search
from hpsearch.search.space_points import Point, draw_point

RANKS = (0.01, 0.004)
"""Goals on rows: one of the best so many."""
DISTANCES = (0.1, 0.05, 0.02, 0.01)
"""Goals on rows and on a surrogate: relative distance from the best."""
HERE = Path(__file__).parent
Report = dict[str, Any]


def log(text: str) -> None:
    """Print, and show it at once also in a file."""
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def as_result(report: Report) -> dict[str, Any]:
    """A result of Tune that holds the report, as a worker sends it."""
    fields = {name: value for name, value in report.items() if name != "training_iteration"}
    return Reported(**fields).to_dict()


@dataclass(frozen=True)
class Row:
    """One configuration, as a search would have seen it: a collapse ends its curve."""

    params: Mapping[str, Any]
    distributions: Mapping[str, BaseDistribution]
    reports: tuple[Report, ...]
    seconds: tuple[float, ...]
    """CPU seconds up to each report."""
    truth: float | None = None
    """The objective without the noise of a training, where it is known."""

    @property
    def point(self) -> Point:
        """The configuration as a point of its space."""
        return Point(self.params, self.distributions)

    @property
    def true_final(self) -> float:
        """The objective without noise; as measured where that is not known."""
        return self.final if self.truth is None else self.truth

    @property
    def final(self) -> float:
        """The objective at the end of its budget; the worst if it collapsed."""
        return self.reports[-1]["objective"]


@dataclass(frozen=True)
class Table:
    """All rows, and how near a point is to each."""

    rows: tuple[Row, ...]

    @property
    def best(self) -> float:
        """Best objective of all rows that were trained to the end."""
        return max(row.final for row in self.rows)

    def goal(self, share: float) -> float:
        """Objective of the worst of the best ``share`` of the rows, at least one."""
        finals = sorted((row.final for row in self.rows), reverse=True)
        return finals[max(math.ceil(share * len(finals)), 1) - 1]

    def nearest(self, params: Mapping[str, Any]) -> int:
        """The row that is most like a point; a name that one of the two lacks counts as far."""
        point = self._scaled(params)
        both = np.isfinite(point) & np.isfinite(self._rows)
        apart = np.isfinite(point) != np.isfinite(self._rows)
        step = np.abs(np.where(both, self._rows - point, 0.0))
        step = np.where(self._categorical & (step > 0), 1.0, step)
        return int(np.argmin((step + apart).sum(axis=1)))

    @cached_property
    def distributions(self) -> dict[str, BaseDistribution]:
        """Distribution of every parameter that occurs."""
        return {n: d for row in self.rows for n, d in row.distributions.items()}

    def _scaled(self, params: Mapping[str, Any]) -> np.ndarray:
        """Values on a scale of 0 to 1, logarithmic where the space is; NaN for what is absent."""
        known = self.distributions.items()
        return np.array([_unit(params[n], d) if n in params else np.nan for n, d in known])

    @cached_property
    def _rows(self) -> np.ndarray:
        return np.array([self._scaled(row.params) for row in self.rows])

    @cached_property
    def _categorical(self) -> np.ndarray:
        kinds = self.distributions.values()
        return np.array([isinstance(kind, CategoricalDistribution) for kind in kinds])


class Searcher(Protocol):
    """Interface of a searcher: proposes rows, receives reports."""

    def ask(self, name: str) -> Row | None:
        """A row that has not been tried; None if there is none left."""
        ...

    def report(self, name: str, report: Report) -> None: ...

    def end(self, name: str, report: Report) -> None: ...


@dataclass
class Replay:
    """One search: trials side by side on so many workers, each as fast as it was recorded."""

    searcher: Searcher
    pruner: PrunerWithHistory
    workers: int = 4
    target: float = np.inf
    """The search ends when a trial that was trained to the end is as good."""
    limit: float = np.inf
    """The search ends after so many patches."""
    patches: int = 0
    bests: list[tuple[int, float]] = field(default_factory=list)
    """Patches trained so far, by all, and the best that was trained to the end, without noise."""
    stopped: int = 0
    """Patches of trials that were pruned, collapsed or diverged."""
    trials: int = 0
    collapses: list[bool] = field(default_factory=list)
    """Result of each trial that ended."""

    def run(self) -> "Replay":
        """Until the target or the limit is reached, or no row is left."""
        self._best = -np.inf
        self._rows: dict[int, Row] = {}
        queue: list[tuple[float, int, int]] = []  # time, trial, number of the report
        for _ in range(self.workers):
            self._start(queue, 0.0)
        while queue and self.patches < self.limit:
            now, trial, number = heapq.heappop(queue)
            row, report = self._rows[trial], self._rows[trial].reports[number]
            self.patches += report["seen"] - (row.reports[number - 1]["seen"] if number else 0)
            if self._record(trial, report):
                later = row.seconds[number + 1] - row.seconds[number]
                heapq.heappush(queue, (now + later, trial, number + 1))
                continue
            if self.bests and self.bests[-1][1] >= self.target:
                break
            self._start(queue, now)
        return self

    def reached(self, target: float) -> float:
        """Patches until a trial that was trained to the end was this good; infinite if none was."""
        return next((float(patches) for patches, best in self.bests if best >= target), np.inf)

    def _start(self, queue: list[tuple[float, int, int]], now: float) -> None:
        row = self.searcher.ask(str(self.trials))
        if row is not None:
            self._rows[self.trials] = row
            heapq.heappush(queue, (now + row.seconds[0], self.trials, 0))
            self.trials += 1

    def _record(self, trial: int, report: Report) -> bool:
        """Return True if the trial continues; a stopping report is withheld, as in Tune."""
        name, value = str(trial), report["objective"]
        running = report["status"] == "running"
        pruned = self.pruner.should_prune(trial, seen=report["seen"], value=value)
        if running and not pruned:
            self.searcher.report(name, report)
            return True
        self.pruner.finish(trial, completed=not running)
        if not running:
            self.searcher.report(name, report)
        self.searcher.end(name, report)
        self.collapses.append(report["collapsed"])
        if report["status"] != "completed":
            self.stopped += report["seen"]
        elif value > self._best:
            self._best = value
            self.bests.append((self.patches, self._rows[trial].true_final))
        return False


COLUMNS = ("params", "status", "stopped_at", "seen", "seconds", "objective")


def read_table(path: Path, search: Search, *, spaces: Collection[str] | None = None) -> Table:
    """The recorded curves, each cut where the detector would have stopped the run.

    Rows that the space cannot draw are left out, and so are those that repeat another with another
    seed.

    Args:
        path: parquet file; columns other than ``COLUMNS`` are not needed.
        search: of a space that holds the rows.
        spaces: names in the column ``space`` to which the rows are limited.
    """
    rows = []
    for line in _lines(path):
        if spaces is not None and line.get("space") not in spaces:
            continue
        point = None if line.get("repeats") is not None else in_space(line, search)
        if point is not None:
            seconds, reports = _as_seen(line, search)
            rows.append(Row(point.params, point.distributions, reports, seconds))
    if not rows:
        raise SystemExit(f"{path} has no run of this space; give the space that drew it (--space)")
    return Table(tuple(rows))


def read_repeats(path: Path) -> list[tuple[np.ndarray, np.ndarray]]:
    """Curves of pairs of runs that differ in the seed alone, if both were trained to the end."""
    lines = _lines(path)
    by_number = {line.get("number"): line for line in lines if line.get("repeats") is None}
    pairs = [
        (by_number.get(line.get("repeats")), line)
        for line in lines
        if line.get("repeats") is not None
    ]
    return [
        (np.array(first["objective"]), np.array(second["objective"]))
        for first, second in pairs
        if first and first["status"] == second["status"] == "completed"
    ]


def in_space(line: Mapping[str, Any], search: Search) -> Point | None:
    """Point of a run; None if the space cannot draw it."""
    params = json.loads(line["params"])
    point = draw_point(search.suggest, np.random.default_rng(0), params)
    if point is None or any(params.get(name, ...) != v for name, v in point.params.items()):
        return None  # a value that is missing or not allowed was drawn
    return point


def _lines(path: Path) -> list[dict[str, Any]]:
    table = pq.read_table(path)
    missing = [name for name in COLUMNS if name not in table.column_names]
    if missing:
        raise SystemExit(f"{path} has no column {', '.join(missing)}; record_curves.py writes them")
    return table.to_pylist()


def _as_seen(line: Mapping[str, Any], search: Search) -> tuple[tuple[float, ...], tuple]:
    seconds, reports = [], []
    for number, (seen, value) in enumerate(zip(line["seen"], line["objective"], strict=True)):
        failed = line["status"] != "completed" and seen >= line["stopped_at"]
        last = number + 1 == len(line["seen"])
        report = {
            "seen": min(seen, line["stopped_at"]) if failed else seen,
            "training_iteration": number + 1,
            "objective": search.objective.worst if failed else value,
            "status": line["status"] if failed else "completed" if last else "running",
            "collapsed": failed or value == search.objective.worst,
            "metrics": {},
        }
        reports.append(report)
        seconds.append(line["seconds"][number])
        if failed:
            break
    return tuple(seconds), tuple(reports)


def _unit(value: Any, distribution: BaseDistribution) -> float:
    internal = distribution.to_internal_repr(value)
    if not isinstance(distribution, FloatDistribution):
        return internal
    low, high = distribution.low, distribution.high
    if distribution.log:
        internal, low, high = np.log(internal), np.log(low), np.log(high)
    return (internal - low) / (high - low)
