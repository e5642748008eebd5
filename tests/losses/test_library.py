"""Losses of pytorch-metric-learning by name; what cannot be trained with is refused in words."""

import importlib.util

import pytest
import torch
from torch import Tensor

from hpsearch.config import (
    BatchHard,
    HardMargin,
    Library,
    Pairs,
    PKSampler,
    Sampler,
)
from hpsearch.errors import UserError
from hpsearch.losses import build_loss, collapse_value, library, seed_library

PAIRS, GROUPS = Pairs(batch=6), PKSampler(groups=3, views=4)
needs_library = pytest.mark.skipif(
    importlib.util.find_spec("pytorch_metric_learning") is None,
    reason="needs the extra metric-learning",
)


def batch(sampler: Sampler, seed: int = 0) -> Tensor:
    shape = (2, 6) if sampler is PAIRS else (1, 12)
    x = torch.randn(*shape, 8, generator=torch.Generator().manual_seed(seed))
    return torch.nn.functional.normalize(x, dim=2)


@needs_library
def test_a_loss_and_miner_are_what_the_package_computes() -> None:
    from pytorch_metric_learning import losses, miners

    x, y = batch(GROUPS)[0], batch(PAIRS).flatten(0, 1)
    groups, pairs = torch.arange(3).repeat_interleave(4), torch.arange(6).repeat(2)
    settings = Library(
        loss="MultiSimilarityLoss",
        miner="MultiSimilarityMiner",
        params={"alpha": 1, "base": 0.4},
        miner_params={"epsilon": 0.2},
    )
    for sampler, rows, labels in ((GROUPS, x, groups), (PAIRS, y, pairs)):
        mined = miners.MultiSimilarityMiner(epsilon=0.2)(rows, labels)
        expected = losses.MultiSimilarityLoss(alpha=1, base=0.4)(rows, labels, mined)
        found = build_loss(settings, sampler)(batch(sampler))
        torch.testing.assert_close(found, expected)


@needs_library
def test_batch_hard_by_its_miner_is_our_batch_hard() -> None:
    """Its default reducer leaves zero losses out; with a wide margin there are none."""
    settings = Library(
        loss="TripletMarginLoss",
        miner="BatchHardMiner",
        params={"margin": 3.0, "distance": "LpDistance"},
    )
    mine = build_loss(BatchHard(margin=HardMargin(alpha=3.0)), GROUPS)(batch(GROUPS))
    torch.testing.assert_close(build_loss(settings, GROUPS)(batch(GROUPS)), mine)


@needs_library
@pytest.mark.parametrize(
    ("name", "params", "sampler", "expected"),
    [
        ("TripletMarginLoss", {"margin": 0.3}, GROUPS, 0.3),
        ("NTXentLoss", {}, PAIRS, 2.3978952727983707),  # ln 11: one positive, ten negatives
        ("CircleLoss", {}, PAIRS, None),
        ("FastAPLoss", {}, GROUPS, None),
        ("ContrastiveLoss", {"neg_margin": 0.8}, GROUPS, 0.8),
    ],
)
def test_the_collapse_value_is_paid_for_by_a_constant_batch(
    name: str, params: dict[str, float], sampler: Sampler, expected: float | None
) -> None:
    settings = Library(loss=name, params=params)  # type: ignore[arg-type]
    found = collapse_value(settings, sampler)
    if expected is not None:
        assert found == pytest.approx(expected, rel=1e-4)
    shape = (2, 6, 128) if sampler is PAIRS else (1, 12, 128)
    direction = torch.nn.functional.normalize(torch.arange(128.0) - 9, dim=0)
    assert float(build_loss(settings, sampler)(direction.expand(shape))) == pytest.approx(
        found, rel=1e-3, abs=1e-4
    )


@needs_library
@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"loss": "ArcFaceLoss"}, "'ArcFaceLoss' of pytorch_metric_learning needs a class head"),
        ({"loss": "ProxyNCALoss"}, "class head"),
        ({"loss": "SoftTripleLoss"}, "class head"),
        ({"loss": "CrossBatchMemory"}, "class head"),
        ({"loss": "NoSuchLoss"}, "has no 'NoSuchLoss' in its losses"),
        ({"loss": "BaseMetricLossFunction"}, "cannot be computed"),
        ({"loss": "SelfSupervisedLoss"}, "refuses its params"),
        ({"loss": "VICRegLoss"}, "cannot be computed for batches of 'pairs'"),
        ({"loss": "DynamicSoftMarginLoss"}, "use loss DynamicSoftMargin of hpsearch"),
        ({"loss": "TripletMarginLoss", "params": {"no": 1}}, "refuses its params"),
        ({"loss": "TripletMarginLoss", "params": {"distance": "Far"}}, "'Far' in its distances"),
        ({"loss": "TripletMarginLoss", "miner": "NoMiner"}, "'NoMiner' in its miners"),
        ({"loss": "TripletMarginLoss", "params": {"margin": float("inf")}}, "is inf if all"),
    ],
)
def test_what_cannot_be_trained_with_is_refused_in_a_sentence(
    settings: dict[str, object], message: str
) -> None:
    given = Library.model_construct(**{**Library(loss="A").model_dump(), **settings})
    with pytest.raises(UserError, match=message):
        collapse_value(given, PAIRS)


@needs_library
def test_random_draws_of_a_miner_follow_the_seed() -> None:
    settings = Library(
        loss="TripletMarginLoss", miner="DistanceWeightedMiner", params={"margin": 2}
    )
    loss, x = build_loss(settings, GROUPS), batch(GROUPS)
    values = []
    for seed in (1, 2, 1):
        seed_library(seed)
        values.append(float(loss(x)))
    assert values[0] == values[2] != values[1]


@needs_library
def test_a_batch_without_a_pair_that_counts_can_be_trained_on() -> None:
    settings = Library(loss="TripletMarginLoss", params={"margin": 0.0})
    x = torch.eye(3).repeat_interleave(4, dim=0)[None].requires_grad_()
    value = build_loss(settings, GROUPS)(x)
    value.backward()
    assert float(value.detach()) == 0
    assert x.grad is not None
    assert torch.count_nonzero(x.grad) == 0


def test_a_missing_package_is_told_with_its_installation(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(library, "PACKAGE", "no_such_package")
    with pytest.raises(
        UserError, match=r'install it on every worker: pip install "hpsearch\[metric'
    ):
        build_loss(Library(loss="CircleLoss"), PAIRS)
