"""Cost of losses and regularizers as shares of a training step of 512 pairs, width 1, two threads.

Each way is a whole training step of L2-Net on the embedded mini set; the ways take turns, so that
a busy moment of the machine hits all alike, and the times are processor time. The first row is
HardNet's loss; the others give what they add to its step. ``NETWORKS`` are trained with HardNet's
loss: filter response normalization with TLU, and the same stages with batch normalization.

    python benchmarks/loss_cost.py [--folder data] [--pairs 512] [--width 1] [--threads 2]
        [--rounds 5]
"""

import argparse
import statistics
import sys
import time
from pathlib import Path
from typing import Any

import torch

from hpsearch.config import (
    GOR,
    SOSR,
    Clean,
    ComputeConfig,
    ConvNet,
    DynamicSoftMargin,
    HardNet,
    HybridSimilarity,
    InfoNCE,
    L2Net,
    NormDifference,
    Pairs,
    SmoothAP,
    TrialConfig,
)
from hpsearch.data.builtin_sets import open_builtin
from hpsearch.data.patch_store import PatchStore
from hpsearch.recipes import CONVNETS
from hpsearch.training.artifact_cache import ArtifactCache
from hpsearch.training.descriptor_trainer import DescriptorTrainer
from hpsearch.training.devices import tune_glibc_malloc
from hpsearch.training.loop import Progress
from hpsearch.training.trial import TrialEnvironment, build_trial

WAYS: dict[str, dict[str, Any]] = {
    "HardNet": {"loss": HardNet()},
    "HardNet + SOSR": {"loss": HardNet(), "regularizers": (SOSR(),)},
    "HardNet + GOR": {"loss": HardNet(), "regularizers": (GOR(),)},
    "hybrid similarity": {"loss": HybridSimilarity()},
    "hybrid similarity + norms": {
        "loss": HybridSimilarity(),
        "regularizers": (NormDifference(),),
    },
    "dynamic soft margin": {"loss": DynamicSoftMargin()},
    "InfoNCE": {"loss": InfoNCE()},
    "Smooth-AP": {"loss": SmoothAP()},
}
NETWORKS: dict[str, ConvNet] = {
    "HardNet as ConvNet": CONVNETS["hardnet"],
    "FRN + TLU": CONVNETS["hynet"],
}
"""Further descriptors by name, trained with HardNet's loss."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, default=Path("data"))
    parser.add_argument("--pairs", type=int, default=512)
    parser.add_argument("--width", type=float, default=1.0)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    tune_glibc_malloc()
    store = PatchStore.open(open_builtin("mini", options.folder))
    trainers = {
        name: trainer(settings, store, options) for name, settings in ways(options.width).items()
    }
    seconds: dict[str, list[float]] = {name: [] for name in trainers}
    for number in range(options.rounds + 1):
        for name, one in trainers.items():
            started = time.process_time()
            one.step(Progress(2 * options.pairs * number, number))
            if number:  # the first step allocates
                seconds[name].append(time.process_time() - started)
    log(f"{options.pairs} pairs, width {options.width:g}, {options.threads} threads")
    log("| step | processor s, median | on top of HardNet's |\n|---|---|---|")
    first = statistics.median(seconds["HardNet"])
    for name, found in seconds.items():
        middle = statistics.median(found)
        log(f"| {name} | {middle:.3f} | {middle / first - 1:+.1%} |")


def ways(width: float) -> dict[str, dict[str, Any]]:
    """All steps to time, by name."""
    networks = {
        name: {
            "loss": HardNet(),
            "descriptor": net.model_copy(update={"width": width}),
        }
        for name, net in NETWORKS.items()
    }
    return {**WAYS, **networks}


def trainer(
    settings: dict[str, Any], store: PatchStore, options: argparse.Namespace
) -> DescriptorTrainer:
    """A trainer that is ready for its first step."""
    network = L2Net(width=options.width, input_norm=True, final_norm=True, unit_norm=True)
    given = {"descriptor": network, "sampler": Pairs(batch=options.pairs), "input": Clean()}
    config = TrialConfig(**{**given, "patches": 10**6, **settings})
    job = TrialEnvironment(
        store=store,
        split=store.split(),
        artifacts=ArtifactCache(str((options.folder / "artifacts").absolute())),
        report_every=10**6,
        validation_points=8,
        computing=ComputeConfig(device="cpu"),
    )
    return build_trial(config, job).task.trainer


def log(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
