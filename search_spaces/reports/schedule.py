"""R3's stepped batch hard against what it should beat, at equal patches.

R3 began with the weights of its baseline and raised S·K from 64 to 1024 and K from 2 to 8 by hand
while the loss stayed below its collapse value. Here the product's ``stepped`` schedule does this;
beside it smaller steps, the first stage throughout, the last throughout, the same four stages by
the clock, and the last stage from random weights. Raw descriptors and Euclidean distances, as R3
had them, and unit descriptors, for which the schedule's rule may be too strict.

L2-Net of width ¼, 400,000 patches seen. Three seeds of what the claims compare come first: a soft
margin at 2e-3 with raw descriptors, clean patches before noisy ones. Other margins, rates and unit
descriptors have one seed.
"""

from collections.abc import Iterator
from itertools import product

from hpsearch.config import (
    Adam,
    BatchHard,
    Clean,
    FixedSteps,
    HardMargin,
    L2Net,
    Noisy,
    PKSampler,
    Sampling,
    SoftMargin,
    Stepped,
    TrialConfig,
    WarmStart,
)
from hpsearch.reporting.claims import Claim
from hpsearch.reporting.run_figures import LossFigure

DATA = "photographs"
WIDTH, PATCHES, SEEDS = 0.25, 400_000, (0, 1, 2)
STAGES = (
    PKSampler(groups=32, views=2),
    PKSampler(groups=32, views=4),
    PKSampler(groups=64, views=6),
    PKSampler(groups=128, views=8),
)
"""R3's batches of 64, 128, 384 and 1024 patches with 2, 4, 6 and 8 views of a point."""
POINTS_FIRST = (
    PKSampler(groups=32, views=2),
    PKSampler(groups=64, views=2),
    PKSampler(groups=128, views=2),
    PKSampler(groups=256, views=2),
    PKSampler(groups=256, views=3),
    PKSampler(groups=256, views=4),
)
"""Also up to 1024 patches, in smaller steps: a third view lifts the loss more than twice as many
points do."""
SAMPLERS: dict[str, Sampling] = {
    "stepped": Stepped(stages=STAGES, retry_after=32_768),
    "stepped, points first": Stepped(stages=POINTS_FIRST, retry_after=32_768),
    "stepped, looks ahead": Stepped(
        stages=POINTS_FIRST, retry_after=32_768, advance_on="next_batch"
    ),
    "small": STAGES[0],
    "large": STAGES[-1],
    "fixed steps": FixedSteps(stages=STAGES, milestones=(0.25, 0.5, 0.75)),
    "large at once": STAGES[-1],
}
"""All begin with baseline weights but ``large at once``. A rate of 2e-4 is R3's, 2e-3 is what short
budgets want."""
ON_NOISY = ("stepped, looks ahead", "small", "large", "large at once")


def arm(
    sampler: str, *, margin: str, rate: float, noisy: bool, seed: int, unit: bool = False
) -> tuple[str, TrialConfig]:
    """One run, and its arm's name."""
    warm = sampler != "large at once"
    words = (sampler, margin, f"{rate:.0e}", *(["unit"] * unit), "noisy" if noisy else "clean")
    config = TrialConfig(
        input=Noisy() if noisy else Clean(),
        descriptor=L2Net(
            width=WIDTH, dropout=0.1, input_norm=True, bn_momentum=0.1, unit_norm=unit
        ),
        loss=BatchHard(margin=SoftMargin() if margin == "soft" else HardMargin()),
        sampler=SAMPLERS[sampler],
        optimizer=Adam(lr=rate),
        warm_start=WarmStart(patches=100_000, seed=seed) if warm else None,
        patches=PATCHES,
        evaluate_on="noisy" if noisy else "clean",
        seed=seed,
    )
    return " · ".join(words), config


def soft(sampler: str, seed: int, *, noisy: bool = False, rate: float = 2e-3) -> tuple:
    """One run with a soft margin and raw descriptors."""
    return arm(sampler, margin="soft", rate=rate, noisy=noisy, seed=seed)


def runs() -> Iterator[tuple[str, TrialConfig]]:
    """Three seeds of the arms that claims compare, then one seed of the others."""
    for seed in SEEDS:
        yield from (soft(sampler, seed) for sampler in SAMPLERS)
        yield soft("stepped", seed, rate=2e-4)
    for seed in SEEDS:
        yield from (soft(sampler, seed, noisy=True) for sampler in ON_NOISY)
    for sampler, margin in product(SAMPLERS, ("soft", "hard")):
        for unit, rate in ((False, 2e-3), (True, 2e-3), (False, 2e-4)):
            yield arm(sampler, margin=margin, rate=rate, noisy=False, seed=0, unit=unit)


RUNS = list({(name, config.seed): (name, config) for name, config in runs()}.values())
CLAIMS = [
    Claim(
        name="R3-stepping-collapse",
        text="Raising the batch by the loss avoids the collapse of the large batch",
        place="R3, stepping",
        published="none",
        high="large · soft · 2e-03 · clean",
        low="stepped · soft · 2e-03 · clean",
        measure="failed",
    ),
    Claim(
        name="R3-stepping-small",
        text="Raising the batch by the loss gains over the small batch",
        place="R3, results",
        published="0.610 / 0.596 (1024 / 128)",
        high="stepped, points first · soft · 2e-03 · clean",
        low="small · soft · 2e-03 · clean",
        gain=0.014,
    ),
    Claim(
        name="R3-stepping-ahead",
        text="A stepped schedule that looks ahead gains over the small batch",
        place="R3, results",
        published="0.610 / 0.596 (1024 / 128)",
        high="stepped, looks ahead · soft · 2e-03 · clean",
        low="small · soft · 2e-03 · clean",
        gain=0.014,
    ),
    Claim(
        name="R3-stepping-clock",
        text="Raising the batch by the loss beats raising it by the clock",
        place="R3, stepping",
        published="none",
        high="stepped · soft · 2e-03 · clean",
        low="fixed steps · soft · 2e-03 · clean",
    ),
    Claim(
        name="R3-stepping-noisy",
        text="On noisy patches a stepped schedule gains over the small batch",
        place="R3, results",
        published="none",
        high="stepped, looks ahead · soft · 2e-03 · noisy",
        low="small · soft · 2e-03 · noisy",
    ),
    Claim(
        name="R3-faster-rate",
        text="Once the loss is below the margin, ten times the rate is safe and better",
        place="R3, stepping",
        published="none",
        high="stepped · soft · 2e-03 · clean",
        low="stepped · soft · 2e-04 · clean",
        measure="mAP",
    ),
]
FIGURES = [
    LossFigure(
        "stages_clean",
        "Training loss and stage, clean patches",
        arms=tuple(
            f"{sampler} · soft · 2e-03 · clean"
            for sampler in ("small", "stepped", "stepped, points first", "stepped, looks ahead",
                            "fixed steps", "large")
        ),
    ),
    LossFigure(
        "stages_noisy",
        "Training loss and stage, noisy patches",
        arms=tuple(f"{sampler} · soft · 2e-03 · noisy" for sampler in ON_NOISY),
    ),
]  # fmt: skip
