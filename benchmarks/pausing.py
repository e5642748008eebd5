r"""Searches that may pause a trial and resume it later (freeze-thaw), replayed, and ASHA.

    PYTHONPATH=. python benchmarks/pausing.py --table benchmarks/embedded.parquet --seeds 100

The process of the sampler ``GP()`` is updated report by report, which takes a tenth of a second for
a whole search. With ASHA it chooses the next row. With the rule of ``FreezeThaw()``, a worker
continues with whatever has the highest upper bound: the same trial, a paused one or a new row; for
comparison also where it decides at the rungs of ASHA alone. An oracle that knows the final values,
under ASHA, shows what no sampler can save. With ``--trials`` no more rows are begun than that; a
search then ends when the rule finds no paused trial worth training.
"""

import argparse
import heapq
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from replay import DISTANCES, HERE, RANKS, Table, log, read_table
from scipy.linalg import solve_triangular
from searchers import Left

from hpsearch.search.freeze_thaw import (
    NEW,
    NOISE,
    PRIOR_VARIANCE,
    Prediction,
    choose_trial,
    covariance,
    is_due,
    similarity,
    standardize,
)
from hpsearch.search.gp_sampler import CANDIDATES, STARTUP_TRIALS
from hpsearch.search.halving import rung_steps
from hpsearch.search.space_file import load_search

REDUCTION_FACTOR = 3.0
MAX_COST = 40.0
"""Full trainings after which a search ends."""


class Posterior:
    """Ends of all rows, given reports that come one by one.

    Args:
        similarity: of the rows, (rows, rows).
    """

    def __init__(self, similarity: np.ndarray) -> None:
        self._similarity, rows = similarity, len(similarity)
        self._root, self._solved = np.zeros((16, 16)), np.zeros((16, rows))
        self._rows, self._times, self._values = list[int](), list[float](), list[float]()
        self._explained = np.zeros(rows)

    def add(self, row: int, time: float, value: float) -> None:
        """Add a report: one more row of the Cholesky factor.

        Args:
            row: index of its row.
            time: share of the budget.
            value: objective; minus infinity for a failed trial.
        """
        count, known = len(self._rows), np.array([*self._rows, row])
        if count == len(self._root):
            self._root = np.pad(self._root, (0, count))
            self._solved = np.pad(self._solved, ((0, count), (0, 0)))
        times, now = np.array([*self._times, time]), np.array([time])
        like, same = self._similarity[row], (known == row)[None]
        ahead = covariance(like[None, known], now, times, same)[0]
        left = np.zeros(count)
        if count:
            root = self._root[:count, :count]
            left = solve_triangular(root, ahead[:count], lower=True, check_finite=False)
        corner = np.sqrt(ahead[count] + NOISE**2 - left @ left)
        itself = (np.arange(len(like)) == row)[None]
        ends = covariance(like[None], now, np.ones(len(like)), itself)[0]
        self._root[count, :count], self._root[count, count] = left, corner
        self._solved[count] = (ends - left @ self._solved[:count]) / corner
        self._explained += self._solved[count] ** 2
        self._rows.append(row)
        self._times.append(time)
        self._values.append(value)

    def ends(self) -> list[Prediction]:
        """Predicted end of each row."""
        count = len(self._rows)
        values = standardize(np.array(self._values))
        root = self._root[:count, :count]
        mean = solve_triangular(root, values, lower=True, check_finite=False) @ self._solved[:count]
        deviation = np.sqrt(np.maximum(PRIOR_VARIANCE - self._explained, 1e-9))
        return [Prediction(*end) for end in zip(mean.tolist(), deviation.tolist(), strict=True)]


class Search:
    """One search on a table, with several workers.

    Args:
        table: rows.
        budget: patches of a full trial.
        similarity: of the rows.
        arm: choice of the next row (random, process, oracle after some at random, or best from the
            first on), and what decides at a report: ASHA, or pauses at rungs or at each report.
    """

    def __init__(
        self,
        table: Table,
        budget: int,
        similarity: np.ndarray,
        *,
        arm: tuple[str, str],
        seed: int,
        workers: int,
    ) -> None:
        self._rows, self._budget, self._workers = table.rows, budget, workers
        self._choice, self._decides = arm
        self._trials = len(self._rows)
        self._left, self._posterior = Left(table, seed=seed), Posterior(similarity)
        self._paused: dict[int, None] = {}
        self._ended: list[int] = []
        self._seen = np.zeros(len(self._rows), int)
        first = table.rows[0].reports[0]["seen"]
        self._rungs = rung_steps(first, budget=budget, reduction_factor=REDUCTION_FACTOR)
        self._at_rungs: dict[float, list[float]] = {rung: [] for rung in self._rungs}
        self.started = self.resumed = 0
        self.cost = 0.0
        """Full trainings so far."""
        self.bests: list[tuple[float, float]] = []
        """Full trainings so far, and the best objective of a trial that ended."""

    @property
    def stopped(self) -> float:
        """Full trainings that went into rows which were not trained to the end."""
        reports = [(row.reports, seen) for row, seen in zip(self._rows, self._seen, strict=True)]
        seen = sum(r[n - 1]["seen"] for r, n in reports if n and r[n - 1]["status"] == "running")
        return float(seen / self._budget)

    def run(self, trials: int | None = None) -> "Search":
        """Until the best row is found, or the search has cost enough.

        Args:
            trials: rows that may be begun; None for all.
        """
        self._trials = len(self._rows) if trials is None else trials
        queue, target = [], max(row.final for row in self._rows)
        for _ in range(self._workers):
            self._continue(queue, 0.0, self._next())
        while queue and self.cost < MAX_COST:
            now, row = heapq.heappop(queue)
            reports, number = self._rows[row].reports, self._seen[row]
            report, before = reports[number], reports[number - 1]["seen"] if number else 0
            self.cost += float(report["seen"] - before) / self._budget
            value = -np.inf if report["collapsed"] else report["objective"]
            self._seen[row] += 1
            self._posterior.add(row, report["seen"] / self._budget, value)
            if report["status"] != "running":
                if report["status"] == "completed":
                    self._ended.append(row)
                if value > (self.bests[-1][1] if self.bests else -np.inf):
                    self.bests.append((float(self.cost), float(value)))
                if value >= target:
                    break
                self._continue(queue, now, self._next())
            elif self._decides == "ASHA":
                kept = self._is_kept(before, report["seen"], report["objective"])
                self._continue(queue, now, row if kept else self._next())
            elif not self._may_pause(before, report["seen"]):
                self._continue(queue, now, row)
            else:
                self._paused[row] = None
                chosen = self._next(row)
                self.resumed += chosen not in (None, row) and bool(self._seen[chosen])
                self._continue(queue, now, chosen)
        return self

    def _continue(self, queue: list[tuple[float, int]], now: float, row: int | None) -> None:
        if row is None:
            return
        seconds, number = self._rows[row].seconds, self._seen[row]
        self.started += number == 0
        heapq.heappush(queue, (now + seconds[number] - (seconds[number - 1] if number else 0), row))

    def _is_kept(self, before: int, seen: int, value: float) -> bool:
        """Decision of ASHA at the first report of a trial at or beyond a rung."""
        reached = [rung for rung in self._rungs if before < rung <= seen]
        if not reached:
            return True
        others = self._at_rungs[reached[-1]]
        low = np.percentile(others, 100 * (1 - 1 / REDUCTION_FACTOR)) if others else -np.inf
        others.append(value)
        return bool(value >= low)

    def _may_pause(self, before: int, seen: int) -> bool:
        if self._decides == "rungs":
            return any(before < rung <= seen for rung in self._rungs)
        return is_due(seen, before, first=1, budget=self._budget)

    def _next(self, row: int | None = None) -> int | None:
        """Row to train next; ``row`` has just reported, if given, and is one of the paused."""
        left = self._left.rows if self.started < self._trials else []
        enough = self.started >= STARTUP_TRIALS and bool(self._seen.any())
        chosen = left[0] if left else None
        if self._choice == "best" or (enough and self._choice == "oracle"):
            chosen = max(left, key=lambda row: self._rows[row].final, default=None)
        elif self._choice == "process" and (enough or not left) and self._seen.any():
            ends = self._posterior.ends()
            some = self._left.rng.permutation(left)[:CANDIDATES] if left else []
            chosen = max(map(int, some), key=lambda row: ends[row].bound, default=None)
            choice = choose_trial(
                {row: ends[row] for row in self._paused},
                new=None if chosen is None else ends[chosen].bound,
                best=max((ends[row].mean for row in self._ended), default=-np.inf),
                current=row,
            )
            chosen = chosen if choice == NEW else choice
        if chosen in self._paused:
            del self._paused[chosen]
        elif chosen is not None:
            self._left.take(chosen)
        return chosen


ARMS = {
    "random + ASHA": ("random", "ASHA"),
    "GP + ASHA": ("process", "ASHA"),
    "GP + FreezeThaw": ("process", "reports"),
    "GP + FreezeThaw at rungs": ("process", "rungs"),
    "8 at random, then oracle + ASHA": ("oracle", "ASHA"),
    "oracle + ASHA": ("best", "ASHA"),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--table", type=Path, default=HERE / "photographs_seeds.parquet")
    parser.add_argument("--space", type=Path, default=HERE / "sampler_space.py")
    parser.add_argument("--seeds", type=int, default=100)
    parser.add_argument("--workers", type=int, default=4)
    parser.add_argument("--trials", type=int, help="rows that a search may begin; all by default")
    options = parser.parse_args()
    search = load_search(options.space)
    table = read_table(options.table, search)
    like = similarity([row.point for row in table.rows])

    def searched(arm: str, seed: int) -> Search:
        settings = {"arm": ARMS[arm], "seed": seed, "workers": options.workers}
        return Search(table, search.budget, like, **settings).run(options.trials)

    log(f"{len(table.rows)} rows of {options.table}, {options.seeds} seeds, in full trainings:\n")
    log("\n".join(compare(searched, table, options.seeds)))


def compare(searched: Callable[[str, int], Search], table: Table, seeds: int) -> Sequence[str]:
    """Markdown table of what each goal costs; a search that misses it counts with the limit."""
    goals = {f"best {share:.1%} of the rows": table.goal(share) for share in RANKS}
    goals |= {f"within {share:.0%}": table.best * (1 - share) for share in DISTANCES}
    names = ["search", *goals, "trained", "begun", "resumed"]
    lines = ["| " + " | ".join(names) + " |", "|---" * len(names) + "|"]
    base: dict[str, np.ndarray] = {}
    for arm in ARMS:
        runs, cells = [searched(arm, seed) for seed in range(seeds)], []
        for goal, value in goals.items():
            cost = np.array([next((c for c, b in run.bests if b >= value), np.inf) for run in runs])
            base.setdefault(goal, cost)
            saved = np.minimum(base[goal], MAX_COST) - np.minimum(cost, MAX_COST)
            error = 1.96 * saved.std(ddof=1) / np.sqrt(seeds)
            middle = np.percentile(cost, 50, method="higher")
            missed = f", missed {np.isinf(cost).mean():.0%}" if np.isinf(cost).any() else ""
            cells.append(f"{middle:.1f} ({saved.mean():+.1f} ± {error:.1f}{missed})")
        counts = [[run.cost, run.started, run.resumed] for run in runs]
        cells += [f"{mean:.1f}" for mean in np.mean(counts, axis=0)]
        lines.append(f"| {arm} | {' | '.join(cells)} |")
    return [
        *lines,
        "",
        "Medians; in brackets random less it, a seed. Means of trainings, rows begun and resumed.",
    ]


if __name__ == "__main__":
    main()
