"""Every loss against a slow loop that is written from its formula."""

import math

import pytest
import torch

from hpsearch.config import (
    BatchAll,
    BatchHard,
    BatchTriplet,
    Contrastive,
    FaceNet,
    HardMargin,
    HardNet,
    HybridSimilarity,
    InBatchHard,
    InfoNCE,
    Pairs,
    Percentile,
    PercentileMiner,
    PKSampler,
    RandomTriplets,
    SemiHardMiner,
    SmoothAP,
    SoftMargin,
    Triplet,
    collapse_value_of,
)
from hpsearch.losses import build_loss

KINDS = ["euclidean", "squared", "mean_squared"]
MARGINS = [HardMargin(alpha=0.3), HardMargin(alpha=3.0), SoftMargin(), SoftMargin(alpha=1.0)]
TRIPLETS, PAIRS, GROUPS = RandomTriplets(batch=6), Pairs(batch=5), PKSampler(groups=3, views=3)
SHAPES = {"random_triplets": (3, 6), "pairs": (2, 5), "sxk": (1, 9)}

CATALOGUE = [
    *[(Triplet(distance=k, margin=m), TRIPLETS) for k in KINDS for m in MARGINS],
    *[(BatchHard(distance=k, margin=m), GROUPS) for k in KINDS for m in MARGINS],
    *[(BatchAll(distance=k, margin=m), GROUPS) for k in KINDS for m in MARGINS],
    *[(BatchAll(margin=m, average="nonzero"), GROUPS) for m in MARGINS[:2]],
    *[(loss(margin=m), PAIRS) for loss in (InBatchHard, HardNet) for m in MARGINS],
    *[
        (Percentile(quantile=q, combine=c, margin=MARGINS[0]), PAIRS)
        for q in (0, 30, 34, 99.9, 100)
        for c in ("mean", "min")
    ],
    (Percentile(quantile=50, margin=SoftMargin()), PAIRS),
    (FaceNet(), TRIPLETS),
    *[(Contrastive(margin=r), s) for r in (0.5, 2.0) for s in (TRIPLETS, PAIRS)],
    *[(Contrastive(negative_share=0.8), s) for s in (TRIPLETS, PAIRS)],
    *[
        (BatchTriplet(miner=miner, distance=k, margin=m), GROUPS)
        for miner, m in [
            (SemiHardMiner(), MARGINS[0]),
            (SemiHardMiner(), MARGINS[3]),
            (PercentileMiner(quantile=0), MARGINS[1]),
            (PercentileMiner(quantile=40), MARGINS[1]),
            (PercentileMiner(quantile=100), MARGINS[1]),
        ]
        for k in KINDS
    ],
    (HardNet(negatives="all"), PAIRS),
    (HardNet(negatives="all", exponent=2), PAIRS),
    (HardNet(exponent=2, margin=SoftMargin()), PAIRS),
    *[(HybridSimilarity(alpha=a, margin=m), PAIRS) for a, m in [(2, 1.2), (0, 3)]],
    *[(InfoNCE(temperature=t), PAIRS) for t in (0.07, 1)],
    *[(SmoothAP(temperature=t), s) for t in (0.05, 1) for s in (PAIRS, GROUPS)],
]
every_loss = pytest.mark.parametrize(
    ("settings", "sampler"),
    [pytest.param(*c, id=f"{c[0].kind}-{number}") for number, c in enumerate(CATALOGUE)],
)


def distance(x, y, kind="euclidean"):
    square = (x - y).square().sum()
    if kind == "euclidean":
        return square.sqrt() if square > 0 else 0 * square
    return square / len(x) if kind == "mean_squared" else square


def loss_of(z, margin):
    if isinstance(margin, HardMargin):
        return (z + margin.alpha).clamp_min(0)
    return torch.log1p(torch.exp(-(z + margin.alpha).abs())) + (z + margin.alpha).clamp_min(0)


def mean(values):
    return torch.stack(values).mean()


def slow_triplet(settings, x):
    kind = "squared" if isinstance(settings, FaceNet) else settings.distance
    return mean(
        [
            loss_of(distance(a, p, kind) - distance(a, n, kind), settings.margin)
            for a, p, n in zip(*x, strict=True)
        ]
    )


def by_anchor(x, views, kind):
    """For each anchor the distances to its positives and to its negatives."""
    for i in range(len(x)):
        same = [j for j in range(len(x)) if j // views == i // views and j != i]
        other = [j for j in range(len(x)) if j // views != i // views]
        yield (
            [distance(x[i], x[j], kind) for j in same],
            [distance(x[i], x[j], kind) for j in other],
        )


def slow_batch_hard(settings, x, views=3):
    anchors = by_anchor(x[0], views, settings.distance)
    return mean([loss_of(max(near) - min(far), settings.margin) for near, far in anchors])


def slow_batch_all(settings, x, views=3):
    anchors = by_anchor(x[0], views, settings.distance)
    loss_values = [
        loss_of(p - n, settings.margin) for near, far in anchors for p in near for n in far
    ]
    if settings.average == "nonzero":
        loss_values = [value for value in loss_values if value > 0] or [0 * x.sum()]
    return mean(loss_values)


def slow_pairs(settings, x):
    q = getattr(settings, "quantile", 0)
    combine = getattr(settings, "combine", "mean")
    anchors, positives = x
    n, loss_values = len(anchors), []
    for i in range(n):
        row = sorted(distance(anchors[i], positives[j]) for j in range(n) if j != i)
        column = sorted(distance(anchors[j], positives[i]) for j in range(n) if j != i)
        rank = int(q / 100 * (n - 2))
        two = row[rank], column[rank]
        negative = min(two) if combine == "min" else (two[0] + two[1]) / 2
        loss_values.append(loss_of(distance(anchors[i], positives[i]) - negative, settings.margin))
    return mean(loss_values)


def slow_contrastive(settings, x):
    positive = [distance(a, p, "squared") / 2 for a, p in zip(x[0], x[1], strict=True)]
    if len(x) == 3:
        apart = list(zip(x[0], x[2], strict=True))
    else:
        n = len(x[0])
        apart = [(x[0][i], x[1][j]) for i in range(n) for j in range(n) if i != j]
    negative = [(settings.margin - distance(a, n)).clamp_min(0) ** 2 / 2 for a, n in apart]
    share = settings.negative_share
    return (1 - share) * mean(positive) + share * mean(negative)


def slow_batch_triplet(settings, x, views=3):
    loss_values = []
    kind, q = settings.distance, getattr(settings.miner, "quantile", None)
    for near, far in by_anchor(x[0], views, "euclidean"):
        if q is None:  # semi-hard
            chosen = [(p, [n for n in far if n > p] or [max(far)]) for p in near]
            two = [(p, min(farther)) for p, farther in chosen]
        else:
            near, far = sorted(near, reverse=True), sorted(far)
            two = [(near[int(q / 100 * (len(near) - 1))], far[int(q / 100 * (len(far) - 1))])]
        loss_values += [
            loss_of(of_kind(p, kind) - of_kind(n, kind), settings.margin) for p, n in two
        ]
    return mean(loss_values)


def of_kind(d, kind):
    """Another distance from the Euclidean one; descriptors here have eight numbers."""
    return d if kind == "euclidean" else d**2 / (8 if kind == "mean_squared" else 1)


def nearest_negatives(x, *, everywhere):
    """Distance of each pair, and of its nearest negative."""
    a, p = x
    n = len(a)
    for i in range(n):
        others = [j for j in range(n) if j != i]
        found = [distance(a[i], p[j]) for j in others] + [distance(a[j], p[i]) for j in others]
        if everywhere:
            found += [distance(a[i], a[j]) for j in others]
            found += [distance(p[i], p[j]) for j in others]
        yield distance(a[i], p[i]), min(found)


def slow_hardnet(settings, x):
    pairs = nearest_negatives(x, everywhere=settings.negatives == "all")
    return mean([loss_of(p - n, settings.margin) ** settings.exponent for p, n in pairs])


def slow_hybrid(settings, x):
    def h(d):
        return d + settings.alpha * d**2 / 2

    pairs = nearest_negatives(x, everywhere=True)
    return mean([(settings.margin + h(p) - h(n)).clamp_min(0) for p, n in pairs])


def cosine(x, y):
    """Cosine of unit descriptors, and what continues it to others."""
    return 1 - distance(x, y, "squared") / 2


def slow_info_nce(settings, x):
    a, p = x
    n, loss_values = len(a), []
    for first, second in ((a, p), (p, a)):
        for i in range(n):
            scores = torch.stack([cosine(first[i], y) / settings.temperature for y in second])
            loss_values.append(scores.logsumexp(0) - scores[i])
    return mean(loss_values)


def slow_smooth_ap(settings, x):
    y = x[0] if len(x) == 1 else [one for pair in zip(*x, strict=True) for one in pair]
    views, n, precisions = 3 if len(x) == 1 else 2, len(y), []
    for q in range(n):
        s = [cosine(y[q], other) for other in y]
        own = [j for j in range(n) if j // views == q // views]

        def rank(i, among, s=s):
            above = [torch.sigmoid((s[j] - s[i]) / settings.temperature) for j in among if j != i]
            return 1 + sum(above)

        precisions += [rank(i, own) / rank(i, range(n)) for i in own]
    return 1 - mean(precisions)


SLOW = {
    "triplet": slow_triplet,
    "facenet": slow_triplet,
    "batch_hard": slow_batch_hard,
    "batch_all": slow_batch_all,
    "in_batch_hard": slow_pairs,
    "hardnet": slow_hardnet,
    "batch_triplet": slow_batch_triplet,
    "hybrid_similarity": slow_hybrid,
    "info_nce": slow_info_nce,
    "smooth_ap": slow_smooth_ap,
    "percentile": slow_pairs,
    "contrastive": slow_contrastive,
}


def slow(settings, x):
    return SLOW[settings.kind](settings, x)


def batch(sampler, *, seed=0, d=8, dtype=torch.float32):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(*SHAPES[sampler.kind], d, generator=generator, dtype=torch.float64)
    return (0.4 * x).to(dtype)


def value_and_gradient(loss, x):
    x = x.clone().requires_grad_()
    value = loss(x)
    (gradient,) = torch.autograd.grad(value, x)
    return value.detach(), gradient


@every_loss
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_value_and_gradient_equal_an_explicit_loop(settings, sampler, dtype):
    x = batch(sampler, dtype=dtype)
    got = value_and_gradient(build_loss(settings, sampler), x)
    expected = value_and_gradient(lambda y: slow(settings, y), x)
    assert float(expected[0]) > 0
    torch.testing.assert_close(got, expected)


@every_loss
def test_bfloat16_gives_the_loss_of_float32_on_the_same_numbers(settings, sampler):
    x, loss = batch(sampler, dtype=torch.bfloat16), build_loss(settings, sampler)
    value, gradient = value_and_gradient(loss, x)
    full_value, full_gradient = value_and_gradient(loss, x.float())
    assert torch.equal(value, full_value)
    torch.testing.assert_close(gradient, full_gradient.bfloat16())


@every_loss
def test_autocast_does_not_change_the_loss(settings, sampler):
    x, loss = batch(sampler), build_loss(settings, sampler)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = loss(x)
    assert torch.equal(inside, loss(x))


@every_loss
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_constant_encoder_has_exactly_the_collapse_value(settings, sampler, dtype):
    for value in (0.0, 0.0884, 1.0, 37.3):
        x = torch.full((*SHAPES[sampler.kind], 128), value, dtype=dtype)
        loss_values, gradient = value_and_gradient(build_loss(settings, sampler), x)
        expected = collapse_value_of(settings, sampler)
        assert float(loss_values) == pytest.approx(expected, abs=1e-6)
        assert gradient.isfinite().all()


def adversarial(sampler):
    """Batches with equal patches: one that differs, points that coincide, views that coincide."""
    calls, n = SHAPES[sampler.kind]
    lone = torch.zeros(calls, n, 8)
    lone[0, 1] = 1.0
    points = batch(sampler)[:1, :3].repeat_interleave(3, dim=1)[:, :n]
    views = batch(sampler)[:1, :3].repeat(1, 3, 1)[:, :n]
    return [lone, points.repeat(calls, 1, 1), views.repeat(calls, 1, 1), 1e4 * batch(sampler)]


@every_loss
def test_adversarial_batches_have_the_loss_of_the_loop_with_finite_gradients(settings, sampler):
    loss = build_loss(settings, sampler)
    for x in adversarial(sampler):
        value, gradient = value_and_gradient(loss, x)
        torch.testing.assert_close(value, slow(settings, x), rtol=1e-5, atol=1e-6)
        assert gradient.isfinite().all()


@every_loss
def test_a_step_against_the_gradient_lowers_the_loss(settings, sampler):
    x, loss = batch(sampler), build_loss(settings, sampler)
    before, gradient = value_and_gradient(loss, x)
    assert loss(x - 1e-3 * gradient) < before


def test_known_collapse_values():
    assert Triplet().collapse_value == 1.0
    assert InBatchHard().collapse_value == 0.01
    assert BatchHard(margin=SoftMargin()).collapse_value == pytest.approx(math.log(2))
    assert BatchHard(margin=SoftMargin(alpha=1)).collapse_value == pytest.approx(1.3133, abs=1e-4)
    assert Contrastive(margin=2).collapse_value == 1.0
    assert Contrastive(margin=2, negative_share=0.75).collapse_value == 1.5


@pytest.mark.parametrize(("groups", "views"), [(2, 2), (2, 7), (6, 2)])
@pytest.mark.parametrize("loss", [BatchHard, BatchAll])
def test_group_losses_equal_the_loop_at_other_shapes(loss, groups, views):
    generator = torch.Generator().manual_seed(groups)
    x = torch.randn(1, groups * views, 8, generator=generator, dtype=torch.float64)
    fast = build_loss(loss(), PKSampler(groups=groups, views=views))
    reference = slow_batch_hard if loss is BatchHard else slow_batch_all
    expected = value_and_gradient(lambda y: reference(loss(), y, views), x)
    torch.testing.assert_close(value_and_gradient(fast, x), expected)


def test_batch_all_in_chunks_equals_batch_all_at_once(monkeypatch):
    x, loss = batch(GROUPS), build_loss(BatchAll(average="nonzero"), GROUPS)
    whole = value_and_gradient(loss, x)
    monkeypatch.setattr(
        "hpsearch.losses.metric_losses.MAX_TRIPLETS_PER_CHUNK", 30
    )  # 12 triplets an anchor
    torch.testing.assert_close(value_and_gradient(loss, x), whole)


def test_batch_all_without_a_paying_triplet_is_zero_and_can_be_trained_on():
    x = torch.eye(3).repeat_interleave(3, dim=0)[None] * 100
    loss = build_loss(BatchAll(average="nonzero"), GROUPS)
    value, gradient = value_and_gradient(loss, x)
    assert float(value.detach()) == 0
    assert torch.count_nonzero(gradient) == 0


def test_percentile_zero_is_in_batch_hard_or_hardnet():
    x, margin = batch(PAIRS), HardMargin(alpha=0.5)
    for other, combine in [(InBatchHard, "mean"), (HardNet, "min")]:
        same = build_loss(Percentile(quantile=0, combine=combine, margin=margin), PAIRS)
        assert torch.equal(same(x), build_loss(other(margin=margin), PAIRS)(x))


def test_two_pairs_have_one_negative_at_every_percentile():
    x = batch(PAIRS)[:, :2]
    loss_values = [
        float(build_loss(Percentile(quantile=q), Pairs(batch=2))(x)) for q in (0, 50, 100)
    ]
    assert len(set(loss_values)) == 1


def test_the_loss_of_unit_descriptors_is_r1_s_equation_6():
    x = torch.nn.functional.normalize(batch(PAIRS, dtype=torch.float64), dim=2)
    d = (2 * (1 - x[0] @ x[1].T)).sqrt()
    others = d + 10 * torch.eye(5)
    z = d.diagonal() - (others.min(1).values + others.min(0).values) / 2 + 0.01
    torch.testing.assert_close(build_loss(InBatchHard(), PAIRS)(x), z.clamp_min(0).mean())


@pytest.mark.parametrize(
    ("settings", "sampler"), [(Triplet(), GROUPS), (BatchHard(), PAIRS), (HardNet(), TRIPLETS)]
)
def test_a_loss_refuses_batches_it_cannot_read(settings, sampler):
    with pytest.raises(ValueError, match="not defined"):
        build_loss(settings, sampler)
