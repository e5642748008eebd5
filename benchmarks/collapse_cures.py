"""The collapse grid with each cure: how many collapsing runs it saves, and at what cost to mAP.

A row of the grid (``collapse_grid.py``) whose loss is batch hard or batch all is trained as it is,
and again with each cure: an easier miner, or percentiles that fall to the hardest over the budget
or as the loss allows, or a regularizer. A run is saved if it collapses without the cure and not
with it; the cost to mAP is the difference on the runs that collapse neither way, for which
``--sound`` of those that do not collapse without a cure are taken, evenly over the grid.

    python benchmarks/collapse_cures.py [--folder data] [--seed 0] [--rows 0:] [--patches N]
        [--sound N] [--save cures.json]
"""

import argparse
import json
import statistics
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path

import torch
from collapse_grid import Looks, log, run
from collapse_runs import grid

from hpsearch.atomic_files import write_atomic
from hpsearch.config import (
    GOR,
    BatchAll,
    BatchHard,
    BatchTriplet,
    ComputeConfig,
    DistanceWeightedMiner,
    FixedLossSteps,
    PercentileMiner,
    SemiHardMiner,
    Stepped,
    SteppedLoss,
    TrialConfig,
)
from hpsearch.data.builtin_sets import open_builtin
from hpsearch.data.patch_store import PatchStore
from hpsearch.training.artifact_cache import ArtifactCache
from hpsearch.training.devices import tune_glibc_malloc
from hpsearch.training.trial import TrialEnvironment

QUANTILES = (50, 30, 15, 5, 0)
Cure = Callable[[TrialConfig], TrialConfig | None]
"""The configuration with a cure; None where the cure is not defined."""


def with_loss(config: TrialConfig, loss: object) -> TrialConfig:
    return TrialConfig.model_validate({**dict(config), "loss": loss})


def mined(config: TrialConfig, miner: object) -> BatchTriplet:
    """The triplet loss of the row with another miner."""
    loss = config.loss
    assert isinstance(loss, BatchHard | BatchAll)
    return BatchTriplet.model_validate(
        {"miner": miner, "distance": loss.distance, "margin": loss.margin}
    )


def percentiles(config: TrialConfig) -> list[BatchTriplet]:
    return [mined(config, PercentileMiner(quantile=q)) for q in QUANTILES]


CURES: dict[str, Cure] = {
    "none": lambda c: c,
    "semi-hard": lambda c: with_loss(c, mined(c, SemiHardMiner())),
    "distance-weighted": lambda c: (
        with_loss(c, mined(c, DistanceWeightedMiner())) if c.descriptor.unit_norm else None
    ),
    "percentiles over the budget": lambda c: with_loss(
        c, FixedLossSteps(stages=tuple(percentiles(c)))
    ),
    "percentiles by the loss": lambda c: (
        None
        if isinstance(c.sampler, Stepped)
        else with_loss(c, SteppedLoss(stages=tuple(percentiles(c)), window=1024))
    ),
    "GOR": lambda c: c.model_copy(update={"regularizers": (GOR(),)}),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, default=Path("data"))
    parser.add_argument("--save", type=Path, default=None)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--rows", default="0:", help="FROM:TO of the grid")
    parser.add_argument("--patches", type=int, default=None, help="a smaller budget, to try it")
    parser.add_argument(
        "--sound", type=int, default=None, help="rows without collapse that get the cures too"
    )
    options = parser.parse_args()
    torch.set_num_threads(1)
    tune_glibc_malloc()
    store = PatchStore.open(open_builtin("mini", options.folder))
    done: dict[str, Looks] = {}
    if options.save and options.save.exists():
        done = {name: Looks(**row) for name, row in json.loads(options.save.read_text()).items()}
    for name, config in runs(options, done):
        if name not in done:
            done[name] = run(config, environment(store, config, options))
            log(f"{name}: {done[name].truth}")
            if options.save:
                saved = {name: asdict(looks) for name, looks in done.items()}
                write_atomic(options.save, json.dumps(saved).encode())
    table(done)


def runs(options: argparse.Namespace, done: dict[str, Looks]) -> Iterator[tuple[str, TrialConfig]]:
    """Runs by ``row/cure``: all without a cure, then those that collapsed with each, then others.

    Args:
        options: of the command line.
        done: runs so far; each that is yielded must be there when the next is asked for.
    """
    first, last = (int(part) if part else None for part in options.rows.split(":"))
    budget = {} if options.patches is None else {"patches": options.patches}
    rows = {
        number: row.model_copy(update={"seed": options.seed, **budget})
        for number, row in list(enumerate(grid()))[first:last]
        if isinstance(row.loss, BatchHard | BatchAll)
    }
    for number, config in rows.items():
        yield f"{number}/none", config
    collapsing = [number for number in rows if done[f"{number}/none"].collapsed]
    sound = [number for number in rows if number not in collapsing]
    count = len(sound) if options.sound is None else min(options.sound, len(sound))
    spread = [sound[place * len(sound) // count] for place in range(count)]
    for number in collapsing + spread:
        for cure, change in CURES.items():
            if (config := change(rows[number])) is not None:
                yield f"{number}/{cure}", config


def environment(
    store: PatchStore, config: TrialConfig, options: argparse.Namespace
) -> TrialEnvironment:
    return TrialEnvironment(
        store=store,
        split=store.split(),
        artifacts=ArtifactCache(str((options.folder / "artifacts").absolute())),
        report_every=config.patches,
        validation_points=64,
        computing=ComputeConfig(device="cpu"),
    )


def table(done: dict[str, Looks]) -> None:
    """One row a cure."""
    log("| cure | collapsing without | saved | their mAP | made to collapse | mAP, difference |")
    log("|---|---|---|---|---|---|")
    rows = {name.split("/")[0] for name in done}
    for cure in CURES:
        pairs = [
            (done[f"{row}/none"], done[f"{row}/{cure}"])
            for row in rows
            if f"{row}/none" in done and f"{row}/{cure}" in done
        ]
        bad = [after for before, after in pairs if before.collapsed]
        saved = [after.ends["mAP"] for after in bad if not after.collapsed]
        spoiled = sum(after.collapsed and not before.collapsed for before, after in pairs)
        costs = [
            after.ends["mAP"] - before.ends["mAP"]
            for before, after in pairs
            if not (before.collapsed or after.collapsed)
        ]
        log(
            f"| {cure} | {len(bad)} of {len(pairs)} | {len(saved)} | {spread_of(saved, '.3f')} | "
            f"{spoiled} of {len(pairs) - len(bad)} | {spread_of(costs, '+.3f')} |"
        )


def spread_of(values: list[float], form: str) -> str:
    """Mean, least and largest value."""
    if not values:
        return "–"
    mean, least, most = (format(f(values), form) for f in (statistics.mean, min, max))
    return f"{mean} ({least} to {most})"


if __name__ == "__main__":
    sys.exit(main())
