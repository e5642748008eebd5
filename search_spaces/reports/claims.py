"""Chosen points for what reports R1, R2 and R3 say of descriptors, each with three seeds.

Every arm differs from the one that it is compared with in what the claim is about; the arm that
more claims share is listed once. L2-Net of width ¼, 100,000 patches seen. Rates that a report does
not give are those that a pilot on ``mini`` found good at these budgets (LOG.md). Claims about
denoisers have a list of their own, ``denoisers.py``.
"""

from collections.abc import Iterator
from typing import Any

from hpsearch.config import (
    SGD,
    Adam,
    Augmentation,
    BatchHard,
    Clean,
    HardMargin,
    HardNet,
    InBatchHard,
    L2Net,
    Loss,
    MinedTriplets,
    Noisy,
    Pairs,
    Percentile,
    PKSampler,
    RandomTriplets,
    SoftMargin,
    TrialConfig,
    Triplet,
    WarmStart,
)
from hpsearch.reporting.claims import Claim, Measure
from hpsearch.reporting.run_figures import ArmsFigure

DATA = "photographs"
EVALUATION = {"reports": 10}
WIDTH, PATCHES, SEEDS = 0.25, 100_000, (0, 1, 2)
CLEAN: dict[str, Any] = {"input": Clean(), "evaluate_on": "clean"}
NOISY: dict[str, Any] = {"input": Noisy(), "evaluate_on": "noisy"}


def trial(*, unit: bool = False, **settings: Any) -> TrialConfig:
    """A narrow L2-Net, clean patches unless told otherwise."""
    network = L2Net(width=WIDTH, input_norm=True, bn_momentum=0.1, unit_norm=unit)
    return TrialConfig(**{"descriptor": network, "patches": PATCHES, **CLEAN, **settings})


def triplets(**sampler: Any) -> TrialConfig:
    """The coursework's baseline; R2's ways to draw its triplets."""
    return trial(sampler=RandomTriplets(**sampler))


def pairs(loss: Loss, **settings: Any) -> TrialConfig:
    """R1's batches of 128 pairs of unit descriptors; 1e-2 is our rate, R1 gives none."""
    return trial(
        unit=True, loss=loss, sampler=Pairs(batch=128), **{"optimizer": Adam(lr=1e-2), **settings}
    )


def hard(groups: int, views: int, *, rate: float = 2e-4, **settings: Any) -> TrialConfig:
    """R3's batch hard after baseline weights, with its Adam 2e-4 unless told otherwise."""
    chosen = {"loss": BatchHard(), "optimizer": Adam(lr=rate), **settings}
    warm = chosen.pop("warm_start", WarmStart(patches=100_000))
    return trial(sampler=PKSampler(groups=groups, views=views), warm_start=warm, **chosen)


def arms() -> dict[str, TrialConfig]:
    """Settings of seed 0 by name; the report that says something of them comes first."""
    soft, squared = BatchHard(margin=SoftMargin()), BatchHard(distance="squared")
    mined = MinedTriplets(start=0.5, every=25_000)
    adam, slow = Adam(lr=1e-5), {"rate": 1e-5, "warm_start": None}
    return {
        "R1 baseline, clean": triplets(),
        "R1 in-batch hard, clean": pairs(InBatchHard()),
        "R1 in-batch hard, noisy": pairs(InBatchHard(), **NOISY),
        "R2 baseline, noisy": trial(**NOISY),
        **{f"R1 percentile {q}": pairs(Percentile(quantile=q)) for q in (0, 2, 5, 10, 15)},
        "R1 HardNet's minimum": pairs(HardNet(margin=HardMargin(alpha=0.01))),
        "R2 tough positives": triplets(tough_until=1),
        "R2 far negatives": triplets(far_from=0),
        "R2 curriculum": triplets(tough_until=0.2, far_from=0.9),
        "R3 baseline, soft margin": trial(loss=Triplet(margin=SoftMargin())),
        "R3 baseline, Euclidean": trial(loss=Triplet(distance="euclidean")),
        "R3 baseline, Euclidean, soft": trial(
            loss=Triplet(distance="euclidean", margin=SoftMargin())
        ),
        "R3 mined triplets": trial(sampler=mined),
        "R3 128": hard(32, 4),
        "R3 1024": hard(128, 8),
        "R3 128, soft": hard(32, 4, loss=soft),
        "R3 1024, soft": hard(128, 8, loss=soft),
        "R3 2048, K 8": hard(256, 8),
        "R3 1024, K 16": hard(64, 16),
        **{f"R3 128, turns by {t}": hard(32, 4, augmentation=Augmentation(turns=t))
           for t in ("patch", "point")},
        **{f"R3 random, 512, K {k}, Adam 1e-5": hard(512 // k, k, **slow) for k in (2, 4, 8)},
        "R3 random, 24, K 4, Adam 1e-5": hard(6, 4, **slow),
        "R3 random, 512, K 4, Adam 2e-3": hard(128, 4, warm_start=None, rate=2e-3),
        "R3 random, 512, K 4, SGD 2e-3": hard(
            128, 4, warm_start=None, optimizer=SGD(lr=2e-3, momentum=0.9)
        ),
        "R3 random, 512, K 4, squared": hard(
            128, 4, warm_start=None, optimizer=adam, loss=squared
        ),
        "R3 random, 512, K 4, unit": hard(
            128, 4, warm_start=None, optimizer=adam,
            descriptor=L2Net(width=WIDTH, input_norm=True, bn_momentum=0.1, unit_norm=True),
        ),
    }  # fmt: skip


def seeded(config: TrialConfig, seed: int) -> TrialConfig:
    """The same with another seed, that of the weights to begin with included."""
    warm = config.warm_start
    if warm is not None:
        warm = warm.model_copy(update={"seed": seed})
    return config.model_copy(update={"seed": seed, "warm_start": warm})


MORE_SEEDS = {
    "R1 baseline, clean": 5,
    "R2 tough positives": 5,
    "R2 far negatives": 5,
    "R3 mined triplets": 5,
}
"""Seeds of arms whose claims three left undecided: as many as would decide them by then."""


def runs() -> Iterator[tuple[str, TrialConfig]]:
    """All arms of a seed before the next seed."""
    for seed in range(max(MORE_SEEDS.values())):
        for name, config in arms().items():
            if seed in SEEDS or seed < MORE_SEEDS.get(name, 0):
                yield name, seeded(config, seed)


RUNS = list(runs())


R1_TASKS: tuple[tuple[Measure, str], ...] = (
    ("verification", "0.913 / 0.857"),
    ("matching", "0.509 / 0.341"),
    ("retrieval", "0.758 / 0.662"),
)
MINING_TASKS: tuple[Measure, ...] = ("matching", "retrieval")
CLAIMS = [
    *(
        Claim(f"R1-hard-{task}", f"In-batch hard beats the baseline in {task}", "R1 table 2",
              published, "R1 in-batch hard, clean", "R1 baseline, clean", measure=task, on="clean")
        for task, published in R1_TASKS
    ),
    *(
        Claim(f"R1-q{q}-{task}", f"Mining at q = 0 is better than at q = {q} in {task}",
              "R1 fig. 3", "a figure without numbers", "R1 percentile 0", f"R1 percentile {q}",
              measure=task)
        for q in (2, 15) for task in MINING_TASKS
    ),
    Claim("R1-noisy", "In-batch hard trained on noisy patches is about as good on noisy ones as "
          "trained on clean and denoised: no denoiser is needed", "R1 table 2",
          "0.600 / 0.608 (means of the three tasks)", "R1 in-batch hard, noisy",
          "deep, Adam, trained on denoised", on="noisy", tolerance=0.02),
    Claim("R2-clean-noisy", "Clean inputs give better descriptors than noisy ones", "R2 fig. 4",
          "0.583 / 0.444", "R1 baseline, clean", "R2 baseline, noisy"),
    Claim("R2-far-tough", "Far negatives beat tough positives", "R2 fig. 10", "0.519 / 0.491",
          "R2 far negatives", "R2 tough positives", gain=0.028),
    Claim("R2-tough", "Tough positives beat regular triplets", "R2 fig. 10", "0.491 / 0.479",
          "R2 tough positives", "R1 baseline, clean", gain=0.012),
    Claim("R2-far", "Far negatives beat regular triplets", "R2 fig. 10", "0.519 / 0.479",
          "R2 far negatives", "R1 baseline, clean", gain=0.040),
    Claim("R2-curriculum", "The curriculum gains in retrieval", "R2 fig. 11", "0.496 / 0.462",
          "R2 curriculum", "R1 baseline, clean", measure="retrieval", gain=0.034),
    Claim("R3-soft-baseline", "The soft margin gains on the baseline", "R3, results",
          "0.557 / 0.538 (with another denoiser)", "R3 baseline, Euclidean, soft",
          "R3 baseline, Euclidean", gain=0.019),
    Claim("R3-soft-1024", "The soft margin gains on batch hard of 1024", "R3, results",
          "0.625 / 0.610", "R3 1024, soft", "R3 1024", gain=0.015),
    Claim("R3-batch-hard", "Batch hard beats the baseline", "R3, results", "0.596 / 0.538",
          "R3 128", "R3 baseline, Euclidean"),
    Claim("R3-1024-128", "Batch hard of 1024 patches beats that of 128", "R3, results",
          "0.610 / 0.596", "R3 1024", "R3 128", gain=0.014),
    Claim("R3-mined", "Mining hard triplets offline beats random triplets", "R3", "none",
          "R3 mined triplets", "R1 baseline, clean"),
    Claim("R3-K-collapse", "From random weights at Adam 1e-5 the loss ends higher with K = 4 than "
          "with K = 2",
          "R3, collapse", "none", "R3 random, 512, K 4, Adam 1e-5",
          "R3 random, 512, K 2, Adam 1e-5",
          measure="end loss"),
    Claim("R3-2048", "A batch of 2048 lifts the loss above that of 1024", "R3, stepping", "none",
          "R3 2048, K 8", "R3 1024", measure="end loss"),
    Claim("R3-K16", "K = 16 lifts the loss above that of K = 8", "R3, stepping", "none",
          "R3 1024, K 16", "R3 1024", measure="end loss"),
    Claim("R3-turns-loss", "Turning each patch by itself raises the loss", "R3, augmentation",
          "nearly doubled", "R3 128, turns by patch", "R3 128", measure="end loss"),
    Claim("R3-turns-hurt", "Turning each patch by itself hurts", "R3, augmentation", "none",
          "R3 128", "R3 128, turns by patch"),
    Claim("R3-turns-paired", "Turning all patches of a point alike, proposed and not tried, hurts "
          "less", "R3, augmentation", "none", "R3 128, turns by point", "R3 128, turns by patch"),
]  # fmt: skip
FIGURES = [
    ArmsFigure("percentile", "Mining at a percentile (R1 figure 3)", x="Percentile q",
               arms={q: f"R1 percentile {q}" for q in (0, 2, 5, 10, 15)},
               measures=("verification", "matching", "retrieval")),
]  # fmt: skip
