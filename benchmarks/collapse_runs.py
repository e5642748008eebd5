"""The runs of ``collapse_grid.py``: to collapse, to learn, to come back, or to be slow."""

from hpsearch.config import (
    SGD,
    Adam,
    BatchAll,
    BatchHard,
    Constant,
    Contrastive,
    Cosine,
    Exponential,
    FixedSteps,
    HardMargin,
    HardNet,
    InBatchHard,
    L2Net,
    Loss,
    Optimizer,
    Pairs,
    PKSampler,
    RandomTriplets,
    Sampling,
    Schedule,
    SoftMargin,
    StepDecay,
    TrialConfig,
    Triplet,
)

PATCHES, STEPS = 16_000, 100
"""A budget is this many patches, or this many steps where that is more."""
SMALL_PATCHES = 12_000
"""Budget where batches are of 16 patches: 750 steps."""


def grid() -> list[TrialConfig]:
    """Known to collapse: large batch, K > 3, Adam, high rates, squared distances. Known not to:
    random triplets, small K, low rates, normalized ends; some so slow that they hug the value.
    """
    raw, unit = network(), network(unit_norm=True)
    ended = network(unit_norm=True, final_norm=True)
    soft, squared = BatchHard(margin=SoftMargin()), BatchHard(distance="squared")
    soft_squared = BatchHard(distance="squared", margin=SoftMargin())
    low_squared = BatchHard(distance="squared", margin=HardMargin(alpha=0.2))
    soft_all = BatchAll(margin=SoftMargin())
    rows = [
        (unit, squared, PKSampler(groups=16, views=8), Adam(lr=0.3)),
        (unit, squared, PKSampler(groups=64, views=8), Adam(lr=1e-2)),
        (raw, squared, PKSampler(groups=64, views=8), Adam(lr=1e-2)),
        (raw, BatchHard(), PKSampler(groups=64, views=8), Adam(lr=1e-2)),
        (raw, BatchHard(), PKSampler(groups=128, views=4), Adam(lr=1e-2)),
        (unit, BatchHard(), PKSampler(groups=16, views=16), Adam(lr=1e-2)),
        (raw, soft_squared, PKSampler(groups=32, views=8), Adam(lr=3e-2)),
        (raw, soft, PKSampler(groups=32, views=8), Adam(lr=0.1)),
        (raw, squared, PKSampler(groups=16, views=16), Adam(lr=3e-2)),
        (unit, soft, PKSampler(groups=16, views=16), Adam(lr=0.1)),
        (raw, low_squared, PKSampler(groups=64), Adam(lr=1e-2)),
        (unit, HardNet(), Pairs(batch=128), Adam(lr=0.1)),
        (raw, BatchAll(distance="squared"), PKSampler(groups=32, views=8), Adam(lr=0.1)),
        (raw, Triplet(), RandomTriplets(batch=64), SGD(lr=10, momentum=0.9)),
        (raw, BatchHard(), PKSampler(groups=32, views=4), SGD(lr=0.3, momentum=0.9)),
        (raw, Triplet(distance="euclidean"), RandomTriplets(batch=64), Adam(lr=2e-3)),
        (raw, Triplet(), RandomTriplets(batch=50), SGD()),
        (raw, Triplet(), RandomTriplets(batch=50), SGD(lr=1e-3)),
        (raw, soft_all, PKSampler(groups=24, views=8), Adam(lr=2e-3)),
        (raw, soft_all, PKSampler(groups=24, views=8), SGD(lr=1e-4)),
        (
            ended,
            BatchAll(margin=HardMargin(alpha=0.5)),
            PKSampler(groups=24, views=8),
            Adam(lr=2e-3),
        ),
        (ended, soft, PKSampler(groups=48, views=4), Adam(lr=2e-3)),
        (ended, BatchHard(), PKSampler(groups=48, views=4), Adam(lr=2e-3)),
        (ended, HardNet(), Pairs(batch=96), Adam(lr=2e-3)),
        (unit, HardNet(), Pairs(batch=96), Adam(lr=1e-3)),
        (raw, BatchHard(), PKSampler(groups=32, views=2), Adam(lr=5e-4)),
        (raw, BatchHard(), PKSampler(groups=32, views=4), Adam(lr=1e-4)),
        (raw, soft, PKSampler(groups=16, views=4), Adam(lr=3e-5)),
        (unit, BatchHard(), PKSampler(groups=16, views=2), SGD(lr=1e-3)),
        (raw, soft, PKSampler(groups=32, views=2), Adam(lr=1e-2)),
        (unit, InBatchHard(), Pairs(batch=96), Adam(lr=1e-3)),
        (raw, Contrastive(), RandomTriplets(batch=64), Adam(lr=1e-3)),
        (raw, Triplet(distance="euclidean"), RandomTriplets(batch=64), SGD(lr=1.0, momentum=0.9)),
        (raw, BatchAll(), PKSampler(groups=24, views=8), Adam(lr=1e-2)),
    ]
    return [run_of(*row) for row in rows] + coming_back()


def coming_back() -> list[TrialConfig]:
    """Down to one place and back: unit descriptors and few points a batch, from the start or after
    larger batches or rates; rates that fall too late or in time; and slow ones.
    """
    raw, unit = network(), network(unit_norm=True)
    ended = network(unit_norm=True, final_norm=True)
    hard, soft, squared = (
        BatchHard(),
        BatchHard(margin=SoftMargin()),
        BatchHard(distance="squared"),
    )
    small, large = PKSampler(groups=8, views=2), PKSampler(groups=16, views=8)
    shrinking = FixedSteps(stages=(large, small), milestones=(0.2,))
    later = FixedSteps(stages=(large, small), milestones=(0.3,))
    flatter = FixedSteps(stages=(PKSampler(groups=32, views=4), small), milestones=(0.2,))
    tight = BatchHard(margin=HardMargin(alpha=0.5))
    middle = PKSampler(groups=32, views=4)
    down, late = StepDecay(milestones=(0.1,), gamma=0.1), StepDecay(milestones=(0.4,), gamma=0.01)
    back = [
        (unit, hard, shrinking, Adam(lr=1e-2), Constant()),
        (unit, hard, shrinking, Adam(lr=3e-3), Constant()),
        (unit, soft, shrinking, Adam(lr=1e-2), Exponential(final_lr_ratio=0.1)),
        (unit, hard, small, Adam(lr=1e-2), Constant()),
        (unit, hard, small, Adam(lr=3e-2), down),
        (unit, soft, small, Adam(lr=1e-2), Cosine()),
        (unit, squared, small, Adam(lr=3e-3), Constant()),
        (unit, HardNet(), Pairs(batch=8), Adam(lr=1e-2), Constant(warmup=0.2)),
        (unit, HardNet(), Pairs(batch=8), Adam(lr=3e-2), down),
        (unit, BatchAll(), shrinking, Adam(lr=3e-2), down),
        (unit, hard, flatter, Adam(lr=1e-2), Constant()),
        (unit, soft, shrinking, Adam(lr=3e-3), Constant()),
        (unit, tight, shrinking, Adam(lr=1e-2), Constant()),
        (unit, hard, later, Adam(lr=1e-2), Constant(warmup=0.1)),
    ]
    others = [
        (raw, hard, middle, Adam(lr=3e-2), late),
        (raw, soft, middle, Adam(lr=0.1), Exponential(final_lr_ratio=1e-4)),
        (unit, hard, middle, Adam(lr=1e-2), Cosine()),
        (raw, soft, middle, Adam(lr=1e-2), Cosine(warmup=0.3)),
        (raw, hard, PKSampler(groups=64, views=4), Adam(lr=1e-4), Constant()),
        (unit, soft, middle, Adam(lr=1e-4), Constant()),
        (ended, soft, middle, SGD(lr=1e-3), Constant()),
        (unit, squared, middle, Adam(lr=1e-3), Constant(warmup=0.5)),
    ]
    many = [run_of(*row).model_copy(update={"patches": SMALL_PATCHES}) for row in back]
    return many + [run_of(*row) for row in others]


def run_of(
    descriptor: L2Net,
    loss: Loss,
    sampler: Sampling,
    optimizer: Optimizer,
    schedule: Schedule = Constant(),  # noqa: B008 (frozen)
) -> TrialConfig:
    """With a budget of enough patches, or enough steps."""
    return TrialConfig(
        descriptor=descriptor,
        loss=loss,
        sampler=sampler,
        optimizer=optimizer,
        schedule=schedule,
        patches=max(PATCHES, STEPS * sampler.patches),
    )


def network(*, unit_norm: bool = False, final_norm: bool = False) -> L2Net:
    """Narrow, and with statistics that have forgotten their start at the end of a short run."""
    return L2Net(
        width=0.125,
        bn_momentum=0.1,
        input_norm=True,
        dropout=0.1,
        unit_norm=unit_norm,
        final_norm=final_norm,
    )
