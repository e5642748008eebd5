"""Losses of descriptors after 2017 and HardNet, on clean and noisy patches, three seeds each.

L2-Net of width ¼ with HardNet's normalized ending, 256 pairs a batch, 200,000 patches seen, Adam
1e-2 that falls linearly; every arm differs from HardNet's in its loss alone, but HyNet's, which has
its network of filter response normalization with a learned threshold as well.
"""

from typing import Any

from hpsearch.config import (
    SOSR,
    Adam,
    Clean,
    DynamicSoftMargin,
    HardNet,
    HybridSimilarity,
    InfoNCE,
    L2Net,
    LinearDecay,
    Noisy,
    NormDifference,
    Pairs,
    SmoothAP,
    TrialConfig,
)
from hpsearch.recipes import CONVNETS

DATA = "photographs"
EVALUATION = {"reports": 10}
WIDTH, PATCHES, SEEDS, PAIRS = 0.25, 200_000, (0, 1, 2), 256
NETWORK = L2Net(width=WIDTH, input_norm=True, bn_momentum=0.1, final_norm=True, unit_norm=True)
HYNET_NETWORK = CONVNETS["hynet"].model_copy(update={"width": WIDTH})

ARMS: dict[str, dict[str, Any]] = {
    "HardNet": {"loss": HardNet()},
    "HardNet + SOSR": {"loss": HardNet(), "regularizers": (SOSR(),)},
    "HyNet": {
        "loss": HybridSimilarity(),
        "regularizers": (NormDifference(),),
        "descriptor": HYNET_NETWORK,
    },
    "InfoNCE": {"loss": InfoNCE()},
    "dynamic soft margin": {"loss": DynamicSoftMargin()},
    "Smooth-AP": {"loss": SmoothAP()},
}


def trial(*, noisy: bool, seed: int, **settings: Any) -> TrialConfig:
    """One run of an arm; it is scored on the kind of patches that it is trained on."""
    given = {
        "input": Noisy() if noisy else Clean(),
        "evaluate_on": "noisy" if noisy else "clean",
        "descriptor": NETWORK,
        "sampler": Pairs(batch=PAIRS),
        "optimizer": Adam(lr=1e-2),
        "schedule": LinearDecay(),
        "patches": PATCHES,
        "seed": seed,
        **settings,
    }
    return TrialConfig(**given)


RUNS = [
    (f"{name}, {'noisy' if noisy else 'clean'}", trial(noisy=noisy, seed=seed, **settings))
    for seed in SEEDS
    for noisy in (False, True)
    for name, settings in ARMS.items()
]
