"""The collapse grid with each cure: how many collapsing runs it saves, and at what cost to mAP.

A row of the grid (``collapse_grid.py``) whose loss is batch hard or batch all is trained as it is,
and again with each cure: an easier miner, or percentiles that fall to the hardest over the budget
or as the loss allows, or a regularizer. A run is saved if it collapses without the cure and not
with it; the cost to mAP is the mean difference on the runs that collapse neither way.

    python benchmarks/collapse_cures.py [--folder data] [--seed 0] [--rows 0:] [--patches N]
        [--save cures.json]
"""

import argparse
import json
import statistics
import sys
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import torch
from collapse_grid import Looks, log, run
from collapse_runs import grid

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
    options = parser.parse_args()
    torch.set_num_threads(1)
    tune_glibc_malloc()
    store = PatchStore.open(open_builtin("mini", options.folder))
    done: dict[str, dict[str, object]] = {}
    if options.save and options.save.exists():
        done = json.loads(options.save.read_text())
    for name, config in runs(options):
        if name not in done:
            done[name] = asdict(run(config, environment(store, config, options)))
            log(f"{name}: {Looks(**done[name]).truth}")  # type: ignore[arg-type]
            if options.save:
                options.save.write_text(json.dumps(done))
    table({name: Looks(**row) for name, row in done.items()})  # type: ignore[arg-type]


def runs(options: argparse.Namespace) -> list[tuple[str, TrialConfig]]:
    """Every chosen row with every cure that is defined for it, by ``row/cure``."""
    first, last = (int(part) if part else None for part in options.rows.split(":"))
    found = []
    for number, row in list(enumerate(grid()))[first:last]:
        if not isinstance(row.loss, BatchHard | BatchAll):
            continue
        budget = {} if options.patches is None else {"patches": options.patches}
        config = row.model_copy(update={"seed": options.seed, **budget})
        cured = ((cure, change(config)) for cure, change in CURES.items())
        found += [(f"{number}/{cure}", one) for cure, one in cured if one is not None]
    return found


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
    log("| cure | collapsing without | saved | made to collapse | mAP, mean difference |")
    log("|---|---|---|---|---|")
    rows = {name.split("/")[0] for name in done}
    for cure in CURES:
        pairs = [
            (done[f"{row}/none"], done[f"{row}/{cure}"])
            for row in rows
            if f"{row}/none" in done and f"{row}/{cure}" in done
        ]
        bad = [after for before, after in pairs if before.collapsed]
        spoiled = sum(after.collapsed and not before.collapsed for before, after in pairs)
        costs = [
            after.ends["mAP"] - before.ends["mAP"]
            for before, after in pairs
            if not (before.collapsed or after.collapsed)
        ]
        cost = f"{statistics.mean(costs):+.3f}" if costs else "–"
        saved = sum(not after.collapsed for after in bad)
        log(f"| {cure} | {len(bad)} of {len(pairs)} | {saved} | {spoiled} | {cost} |")


if __name__ == "__main__":
    sys.exit(main())
