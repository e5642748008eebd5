"""Costs and savings of a search, compared with stock Ray Tune and its own Optuna bridge.

python benchmarks/search.py --replay [--seeds 50]     patches until the best of a table is found
python benchmarks/search.py --replay --collapsing     the same, with rows that collapse
python benchmarks/search.py --replay --pruners       the same, with Optuna's pruners and ours
python benchmarks/search.py --scale                   what thousands of trials cost the driver
python benchmarks/search.py --overhead                trials that train nothing, a second
"""

import argparse
import sys
import tempfile
from collections.abc import Callable, Mapping
from functools import partial
from itertools import pairwise
from pathlib import Path

import numpy as np
import optuna
from overhead import overhead
from replay import Replay, Searcher, Table, read_table
from scale import Metered, scaled
from searchers import Rows, ours, stock

from hpsearch.data.builtin_sets import open_builtin
from hpsearch.search.pruners import (
    ASHA,
    Hyperband,
    Median,
    NoPruner,
    Pruner,
    PrunerWithHistory,
    build_pruner,
)
from hpsearch.search.search import Search
from hpsearch.search.space_file import load_search

HERE = Path(__file__).parent
SPACE, WIDE, TABLE = HERE / "replay_space.py", HERE / "collapse_space.py", HERE / "curves.parquet"
GOALS = (0.01, 0.05, 0.1)
"""Relative distance from the best of the table that counts as found."""
Make = Callable[[int], Searcher]
"""A searcher, from a seed."""
Build = Callable[[], optuna.pruners.BasePruner]
"""A pruner with nothing in its memory."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--replay", action="store_true")
    parser.add_argument("--collapsing", action="store_true")
    parser.add_argument("--pruners", action="store_true")
    parser.add_argument("--scale", action="store_true")
    parser.add_argument("--trials", type=int, default=None)
    parser.add_argument("--at-once", type=int, default=100)
    parser.add_argument("--overhead", action="store_true")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--folder", type=Path, default=Path("data"))
    parser.add_argument("--table", type=Path, default=TABLE)
    parser.add_argument("--seeds", type=int, default=50)
    parser.add_argument("--workers", type=int, default=4)
    options = parser.parse_args()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    if options.replay:
        space = WIDE if options.collapsing else SPACE
        spaces = {SPACE.stem, space.stem}
        table = read_table(options.table, load_search(space), spaces=spaces)
        replay(table, space, options.seeds, options.workers, pruners=options.pruners)
    with tempfile.TemporaryDirectory() as folder:
        if options.scale:
            drive(options, Path(folder))
        if options.overhead:
            race(options, Path(folder))


def drive(options: argparse.Namespace, folder: Path) -> None:
    """Many trials over the table, and what each costs the driver."""
    table = read_table(options.table, load_search(SPACE))
    trials = options.trials or 2000
    bill(scaled(table, SPACE, folder, trials=trials, at_once=options.at_once))


def race(options: argparse.Namespace, folder: Path) -> None:
    """Trials a second, ours and the stock's."""
    data, trials = open_builtin("tiny", options.folder), options.trials or 200
    log("| round | hpsearch, trials a second | stock, trials a second | ratio |")
    log("|---|---|---|---|")
    for number, (own, other) in enumerate(
        overhead(folder, data, trials=trials, rounds=options.rounds)
    ):
        log(f"| {number} | {trials / own:.2f} | {trials / other:.2f} | {other / own:.2f} |")


def replay(table: Table, space: Path, seeds: int, workers: int, *, pruners: bool) -> None:
    """Every searcher on every seed, then a table of what they cost."""
    describe(table)
    search = load_search(space)
    asha, nothing = ASHA(), NoPruner()
    arms: dict[str, tuple[Make, Build]] = {
        "random, no pruning": (lambda seed: Rows(table, seed=seed), built(search, nothing)),
        "random + ASHA": (lambda seed: Rows(table, seed=seed), built(search, asha)),
        "stock OptunaSearch + ASHA": (
            lambda seed: stock(table, space, seed=seed),
            built(search, asha),
        ),
        "hpsearch": (lambda seed: ours(table, space, seed=seed), built(search, asha)),
    }
    if space == WIDE:
        without = partial(ours, table, space, constrained=False)
        arms["hpsearch, no constraint"] = (lambda seed: without(seed=seed), built(search, asha))
    if pruners:
        arms |= {
            f"random + {name}": (lambda seed: Rows(table, seed=seed), make)
            for name, make in rules(search).items()
        }
    found = {
        # random search costs nothing to replay, and its median is a lottery: more seeds
        name: played(
            table, make, build, seeds=(20 if "random" in name else 1) * seeds, workers=workers
        )
        for name, (make, build) in arms.items()
    }
    compare(found, table, search.budget)
    log("\ncollapsed or diverged, of the trials until the best was found, mean over seeds:")
    for name, runs in found.items():
        lost = [sum(run.collapses) for run in runs]
        log(f"{name}: {np.mean(lost):.1f} of {np.mean([run.trials for run in runs]):.1f}")


def built(search: Search, settings: Pruner) -> Build:
    """The product's pruner with these settings."""
    return lambda: build_pruner(settings, grace_period=search.first_report, budget=search.budget)


def rules(search: Search) -> dict[str, Build]:
    """Optuna's own pruners, and the product's other ones."""
    first, own = search.first_report, optuna.pruners
    return {
        "Optuna's halving": lambda: own.SuccessiveHalvingPruner(
            min_resource=first, reduction_factor=3
        ),
        "Hyperband, which is Optuna's": built(search, Hyperband()),
        "median": built(search, Median()),
        "Optuna's median": lambda: own.MedianPruner(n_warmup_steps=first),
    }


def played(table: Table, make: Make, build: Build, *, seeds: int, workers: int) -> list[Replay]:
    """One searcher on every seed."""
    target = table.best * (1 - min(GOALS))

    def pruner(seed: int) -> PrunerWithHistory:
        return PrunerWithHistory(build(), direction="maximize", name=f"replay-{seed}")

    return [Replay(make(seed), pruner(seed), workers, target).run() for seed in range(seeds)]


def compare(found: Mapping[str, list[Replay]], table: Table, budget: int) -> None:
    """Costs in full trainings, and seed by seed against random search with the same pruning."""
    for goal in GOALS:
        costs = {n: costs_to(runs, table.best * (1 - goal)) / budget for n, runs in found.items()}
        plain, pruned = list(costs.values())[:2]
        seeds = min(map(len, costs.values()))
        log(f"\nwithin {goal:.0%} of the best, in full trainings:")
        log("| search | median | quartiles | missed | median ÷ first | less than second, a seed |")
        log("|---|---|---|---|---|---|")
        for name, cost in costs.items():
            low, middle, high = np.percentile(cost, [25, 50, 75], method="higher")
            saved = capped(pruned, costs)[:seeds] - capped(cost, costs)[:seeds]
            error = saved.std(ddof=1) / np.sqrt(len(saved))
            log(
                f"| {name} | {middle:.1f} | {low:.1f} – {high:.1f} | {np.isinf(cost).mean():.0%} | "
                f"{middle / np.percentile(plain, 50, method='higher'):.2f} | "
                f"{saved.mean():.1f} ± {error:.1f}, in {(saved > 0).mean():.0%} |"
            )
        for name in [name for name in costs if name not in ("random, no pruning", "hpsearch")]:
            more = capped(costs[name], costs)[:seeds] - capped(costs["hpsearch"], costs)[:seeds]
            error = more.std(ddof=1) / np.sqrt(len(more))
            log(f"{name} less hpsearch, a seed: {more.mean():.1f} ± {error:.1f}")


def bill(metered: Metered) -> None:
    """CPU, wall and memory a trial, by how many trials there were before."""
    log("| trials | CPU ms a trial | wall ms a trial | kB a trial | MB |")
    log("|---|---|---|---|---|")
    for before, after in pairwise(metered.marks):
        count = after[0] - before[0]
        cpu, wall, megabytes = (
            1e3 * (b - a) / count for a, b in zip(before[1:], after[1:], strict=True)
        )
        log(
            f"| {before[0]} – {after[0]} | {cpu:.0f} | {wall:.0f} | {megabytes:.1f} | "
            f"{after[3]:.0f} |"
        )
    parts = ", ".join(f"{what} {s:.1f}" for what, s in metered.seconds.items())
    log(f"CPU seconds in all: {parts}")


def costs_to(runs: list[Replay], target: float) -> np.ndarray:
    """Patches of each run until the target; infinite where it was missed."""
    return np.array([run.reached(target) for run in runs])


def capped(cost: np.ndarray, costs: Mapping[str, np.ndarray]) -> np.ndarray:
    """A search that missed counts as the dearest that did not."""
    most = max(c[np.isfinite(c)].max(initial=0.0) for c in costs.values())
    return np.minimum(cost, most)


def describe(table: Table) -> None:
    """Print a summary of the table."""
    final = np.array([row.final for row in table.rows])
    near = {f"{goal:.0%}": int((final >= table.best * (1 - goal)).sum()) for goal in GOALS}
    log(f"{len(final)} rows, best {table.best:.4f}, rows within: {near}")
    log(f"final objective, quartiles: {np.percentile(final, [0, 25, 50, 75, 100]).round(3)}")
    ends = [row.reports[-1]["status"] for row in table.rows]
    log(f"ends: { {end: ends.count(end) for end in set(ends)} }")


def log(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
