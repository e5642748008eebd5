"""Searches replayed on recorded learning curves: real searchers, real stopping rules, no training.

The table holds random configurations with their whole curves. A search may try its rows and nothing
else, each once, so nothing is interpolated and all searchers choose among the same. Random search
takes rows at random, which is what a random search of the space is.
"""

import heapq
import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import optuna
import pyarrow.parquet as pq
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution

from hpsearch.execution.worker_messages import Reported
from hpsearch.search.pruners import PrunerWithHistory
from hpsearch.search.search import Search

Report = dict[str, Any]


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

    def ask(self, name: str) -> int | None:
        """A row that has not been tried; None if there is none left."""
        ...

    def report(self, name: str, report: Report) -> None: ...

    def end(self, name: str, report: Report) -> None: ...


@dataclass
class Replay:
    """One search: trials side by side on so many workers, each as fast as it was recorded."""

    table: Table
    searcher: Searcher
    pruner: PrunerWithHistory
    workers: int = 4
    target: float = np.inf
    """The search ends when a trial that was trained to the end is as good."""
    patches: int = 0
    bests: list[tuple[int, float]] = field(default_factory=list)
    """Patches trained so far, by all, and the best that was trained to the end."""
    trials: int = 0
    collapses: list[bool] = field(default_factory=list)
    """Result of each trial that ended."""

    def run(self) -> "Replay":
        """Until the target is reached, or no row is left."""
        queue: list[tuple[float, int, int, int]] = []  # time, trial, row, number of the report
        for _ in range(self.workers):
            self._start(queue, 0.0)
        while queue:
            now, trial, index, number = heapq.heappop(queue)
            row, report = self.table.rows[index], self.table.rows[index].reports[number]
            self.patches += report["seen"] - (row.reports[number - 1]["seen"] if number else 0)
            if self._record(trial, report):
                later = row.seconds[number + 1] - row.seconds[number]
                heapq.heappush(queue, (now + later, trial, index, number + 1))
                continue
            if self.bests and self.bests[-1][1] >= self.target:
                break
            self._start(queue, now)
        return self

    def reached(self, target: float) -> float:
        """Patches until a trial that was trained to the end was this good; infinite if none was."""
        return next((float(patches) for patches, best in self.bests if best >= target), np.inf)

    def _start(self, queue: list[tuple[float, int, int, int]], now: float) -> None:
        index = self.searcher.ask(str(self.trials))
        if index is not None:
            first = self.table.rows[index].seconds[0]
            heapq.heappush(queue, (now + first, self.trials, index, 0))
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
        if report["status"] == "completed" and not (self.bests and self.bests[-1][1] >= value):
            self.bests.append((self.patches, value))
        return False


def read_table(path: Path, search: Search, *, spaces: Collection[str] = ("replay_space",)) -> Table:
    """The recorded curves, each cut where the detector would have stopped the run.

    Args:
        search: of a space that holds all rows.
        spaces: from which the rows were drawn.
    """
    rows = []
    for line in pq.read_table(path).to_pylist():
        if line["space"] not in spaces:
            continue
        params = json.loads(line["params"])
        fixed = optuna.trial.FixedTrial(params)
        search.suggest(fixed)  # type: ignore[arg-type]
        seconds, reports = _as_seen(line, search)
        rows.append(Row(fixed.params, fixed.distributions, reports, seconds))
    return Table(tuple(rows))


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
