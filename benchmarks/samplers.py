r"""Samplers and pruners on recorded curves: the cost until the best is found.

    python benchmarks/samplers.py --table benchmarks/photographs_seeds.parquet \
        --space benchmarks/sampler_space.py --seeds 100 --workers 4 --picture anytime.svg

Any table with the columns of ``curves.parquet`` will do, with the space file that its runs were
drawn from. Searches replay its rows, and with ``--surrogate`` propose freely on a model of it. With
``--results FILE`` each search is written to a file when it ends, and is not repeated. ``--check``
shows how well the surrogate predicts runs that it was not fitted to.
"""

import argparse
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import optuna
from matplotlib import pyplot as plt
from optuna.samplers import RandomSampler, TPESampler
from pausing import ARMS, MAX_COST
from pausing import Search as PausingSearch
from replay import DISTANCES, HERE, RANKS, Replay, Searcher, log, read_repeats, read_table
from searchers import FreeOurs, FreeStock, RowGP, RowOracle, Rows, ours, stock
from surrogate import Surrogate

from hpsearch.search.freeze_thaw import similarity
from hpsearch.search.gp_sampler import STARTUP_TRIALS
from hpsearch.search.pruners import ASHA, PASHA, Pruner, PrunerWithHistory, build_pruner
from hpsearch.search.samplers import GP, TPE
from hpsearch.search.space_file import load_search

BUDGETS = (10, 30)
"""Full trainings after which the regret is stated."""
FIRST, STOCK = "random + ASHA", "stock OptunaSearch + ASHA"
PAUSING = "GP + FreezeThaw"
"""Search that pauses trials; it is replayed by a loop of its own, on rows alone."""


@dataclass(frozen=True)
class Bench:
    """A table, its surrogate, and all searches that are compared on them."""

    table_path: Path
    space: Path
    free: bool
    trainings: float
    """Full trainings after which a search ends."""

    @cached_property
    def search(self) -> Any:
        """Search of the space."""
        return load_search(self.space)

    @cached_property
    def table(self) -> Any:
        """Rows of the table that are of the space."""
        return read_table(self.table_path, self.search)

    @cached_property
    def surrogate(self) -> Surrogate:
        """Model of the table."""
        repeats = read_repeats(self.table_path)
        worst = self.search.objective.worst
        return Surrogate(self.table, repeats, self.search.suggest, worst)

    @cached_property
    def likeness(self) -> np.ndarray:
        """Similarity of the rows."""
        return similarity([row.point for row in self.table.rows])

    @cached_property
    def best(self) -> float:
        """Best objective that there is."""
        return self.surrogate.best if self.free else self.table.best

    @cached_property
    def goals(self) -> dict[str, float]:
        """Objective of each goal, by its name."""
        found = {f"within {share:.0%}": self.best * (1 - share) for share in DISTANCES}
        if self.free:
            return found
        return {f"best {share:.1%} of the rows": self.table.goal(share) for share in RANKS} | found

    @cached_property
    def arms(self) -> dict[str, tuple[Callable[[int], Searcher], Pruner]]:
        """Searches that are compared, each with its pruner."""
        asha, pasha, space = ASHA(), PASHA(), self.space
        if not self.free:
            table = self.table
            return {
                FIRST: (lambda seed: Rows(table, seed=seed), asha),
                STOCK: (lambda seed: stock(table, space, seed=seed), asha),
                "TPE + ASHA": (lambda seed: ours(table, space, seed=seed), asha),
                "GP + ASHA": (lambda seed: RowGP(table, seed=seed), asha),
                "GP + PASHA": (lambda seed: RowGP(table, seed=seed), pasha),
                "oracle + ASHA": (
                    lambda seed: RowOracle(table, seed=seed, startup_trials=0),
                    asha,
                ),
                "8 at random, then oracle + ASHA": (
                    lambda seed: RowOracle(table, seed=seed, startup_trials=STARTUP_TRIALS),
                    asha,
                ),
            }
        model = self.surrogate
        return {
            FIRST: (lambda s: FreeStock(model, space, RandomSampler(seed=s), seed=s), asha),
            STOCK: (lambda s: FreeStock(model, space, TPESampler(seed=s), seed=s), asha),
            "TPE + ASHA": (lambda s: FreeOurs(model, space, TPE(), seed=s), asha),
            "GP + ASHA": (lambda s: FreeOurs(model, space, GP(), seed=s), asha),
            "GP + PASHA": (lambda s: FreeOurs(model, space, GP(), seed=s), pasha),
        }

    def searched(self, arm: str, seed: int, workers: int) -> dict[str, Any]:
        """One search, as a row of the results."""
        if arm == PAUSING:
            return self._row(arm, seed, workers, self._paused(seed, workers))
        make, settings = self.arms[arm]
        rule = build_pruner(
            settings, grace_period=self.search.first_report, budget=self.search.budget
        )
        pruner = PrunerWithHistory(rule, direction="maximize", name=f"replay-{seed}")
        limit = self.trainings * self.search.budget
        target = np.inf if self.free else self.table.best
        run = Replay(make(seed), pruner, workers, target=target, limit=limit).run()
        found = {
            "bests": [(patches / self.search.budget, best) for patches, best in run.bests],
            "patches": run.patches / self.search.budget,
            "stopped": run.stopped / run.patches,
            "trials": run.trials,
        }
        return self._row(arm, seed, workers, found)

    def _paused(self, seed: int, workers: int) -> dict[str, Any]:
        arm, budget = ARMS[PAUSING], self.search.budget
        search = PausingSearch(
            self.table, budget, self.likeness, arm=arm, seed=seed, workers=workers
        )
        run = search.run()
        return {
            "bests": run.bests,
            "patches": run.cost,
            "stopped": run.stopped / run.cost,
            "trials": int(run.started),
        }

    def _row(self, arm: str, seed: int, workers: int, found: dict[str, Any]) -> dict[str, Any]:
        stated = {"arm": arm, "seed": seed, "workers": workers, "free": self.free}
        return stated | {"table": self.table_path.name} | found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--table", type=Path, default=HERE / "photographs_seeds.parquet")
    parser.add_argument("--space", type=Path, default=HERE / "sampler_space.py")
    parser.add_argument("--surrogate", action="store_true", help="propose freely on a model")
    parser.add_argument("--check", action="store_true", help="check the model on held-out runs")
    parser.add_argument("--seeds", type=int, default=100)
    parser.add_argument("--workers", type=int, nargs="+", default=[4])
    parser.add_argument("--trainings", type=float, default=40, help="full trainings of a search")
    parser.add_argument("--arms", nargs="+", help="searches to compare, by their names")
    parser.add_argument("--results", type=Path, help="file of the searches that have ended")
    parser.add_argument("--picture", type=Path, help="file for the curves, .svg")
    options = parser.parse_args()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    bench = Bench(options.table, options.space, options.surrogate, options.trainings)
    if options.check:
        log("\n".join(bench.surrogate.check()))
        return
    arms = options.arms or [*bench.arms, *(() if options.surrogate else (PAUSING,))]
    if PAUSING in arms and (options.surrogate or options.trainings != MAX_COST):
        parser.error(f"{PAUSING!r} is replayed on rows alone, for {MAX_COST:g} full trainings")
    log(f"{len(bench.table.rows)} rows of {options.table}, best {bench.best:.4f}")
    for workers in options.workers:
        runs = compared(bench, arms, options, workers)
        log(f"\n{workers} workers, {len(next(iter(runs.values())))} seeds, in full trainings:\n")
        log(costs(runs, bench.goals, limit=options.trainings))
        log("")
        log(regrets(runs, bench.best))
        if options.picture:
            several = len(options.workers) > 1
            name = f"{options.picture.stem}-{workers}" if several else options.picture.stem
            draw(runs, bench.best, options.picture.with_name(f"{name}.svg"), options.trainings)


def compared(
    bench: Bench, arms: list[str], options: argparse.Namespace, workers: int
) -> dict[str, list[dict[str, Any]]]:
    """All searches by arm, seed after seed; those in the file of results are not repeated."""
    path = options.results
    lines = path.read_text().splitlines() if path and path.exists() else []
    terms = ("table", "free", "workers", "arm", "seed")
    done = {tuple(row[term] for term in terms): row for row in map(json.loads, lines)}
    found: dict[str, list[dict[str, Any]]] = {arm: [] for arm in arms}
    for seed in range(options.seeds):
        for arm in arms:
            key = (bench.table_path.name, bench.free, workers, arm, seed)
            if key not in done:
                done[key] = bench.searched(arm, seed, workers)
                if path:
                    with path.open("a") as file:
                        file.write(json.dumps(done[key]) + "\n")
            found[arm].append(done[key])
    return found


def reached(run: Mapping[str, Any], goal: float) -> float:
    """Full trainings until a goal; infinite if it was missed."""
    return next((cost for cost, best in run["bests"] if best >= goal), np.inf)


def at(run: Mapping[str, Any], cost: float) -> float:
    """Best value after so many full trainings; 0 before the first."""
    return next((best for spent, best in reversed(run["bests"]) if spent <= cost), 0.0)


def costs(
    runs: Mapping[str, list[dict[str, Any]]], goals: Mapping[str, float], *, limit: float
) -> str:
    """Markdown table of what each goal costs; a search that misses it counts with the limit."""
    name = "stock" if STOCK in runs else "the first"
    lines = [f"| goal | search | median | quartiles | missed | ÷ {name} | {name} less it, a seed |"]
    lines.append("|---|---|---|---|---|---|---|")
    for goal, value in goals.items():
        spent = {arm: np.array([reached(run, value) for run in rows]) for arm, rows in runs.items()}
        base = spent.get(STOCK, next(iter(spent.values())))
        for arm, cost in spent.items():
            low, middle, high = np.percentile(cost, [25, 50, 75], method="higher")
            saved = np.minimum(base, limit) - np.minimum(cost, limit)
            ratio = middle / np.percentile(base, 50, method="higher") if middle < np.inf else np.inf
            lines.append(
                f"| {goal} | {arm} | {middle:.1f} | {low:.1f} – {high:.1f} | "
                f"{np.isinf(cost).mean():.0%} | {ratio:.2f} | "
                f"{saved.mean():+.1f} ± {1.96 * saved.std(ddof=1) / np.sqrt(len(saved)):.1f} |"
            )
    return "\n".join(lines)


def regrets(runs: Mapping[str, list[dict[str, Any]]], best: float) -> str:
    """Markdown table of the mean regret after some trainings, and of the patches that were lost."""
    head = " | ".join(f"regret after {cost}" for cost in BUDGETS)
    lines = [f"| search | {head} | patches of stopped trials | trials a full training |"]
    lines.append("|---" * (len(BUDGETS) + 3) + "|")
    for arm, rows in runs.items():
        cells = []
        for cost in BUDGETS:
            regret = np.array([best - at(run, cost) for run in rows])
            error = 1.96 * regret.std(ddof=1) / np.sqrt(len(regret))
            cells.append(f"{regret.mean():.4f} ± {error:.4f}")
        stopped = np.mean([run["stopped"] for run in rows])
        trials = np.mean([run["trials"] / run["patches"] for run in rows])
        lines.append(f"| {arm} | {' | '.join(cells)} | {stopped:.0%} | {trials:.1f} |")
    return "\n".join(lines)


def draw(
    runs: Mapping[str, list[dict[str, Any]]], best: float, path: Path, trainings: float
) -> None:
    """Draw the best value against the patches trained: medians and quartiles over seeds."""
    grid = np.linspace(0.5, trainings, 160)
    plt.switch_backend("svg")
    figure, axes = plt.subplots(figsize=(7, 4))
    for number, (arm, rows) in enumerate(runs.items()):
        regret = np.array([[best - at(run, cost) for cost in grid] for run in rows])
        low, middle, high = np.percentile(regret, [25, 50, 75], axis=0)
        axes.plot(grid, middle, color=f"C{number}", label=arm)
        axes.fill_between(grid, low, high, color=f"C{number}", alpha=0.12, linewidth=0)
    axes.set_xlabel("full trainings, of all workers together")
    axes.set_ylabel("best objective there is, less the best found")
    first = max(best - at(run, BUDGETS[0]) for rows in runs.values() for run in rows)
    axes.set_ylim(0, first)  # before a trial has ended, the regret is all there is
    axes.legend(frameon=False)
    axes.spines[["top", "right"]].set_visible(False)
    figure.tight_layout()
    plt.rcParams["svg.hashsalt"] = "hpsearch"
    figure.savefig(path, metadata={"Date": None})
    plt.close(figure)


if __name__ == "__main__":
    main()
