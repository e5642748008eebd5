import json
from typing import Annotated, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import Field

from hpsearch.config import (
    SGD,
    Adam,
    AdamW,
    Augmentation,
    BatchAll,
    BatchHard,
    Clean,
    Cosine,
    Denoised,
    DenoiserTraining,
    FixedSteps,
    HardMargin,
    L2Net,
    Noisy,
    PKSampler,
    RandomTriplets,
    ShallowUNet,
    SoftMargin,
    Stepped,
    TrialConfig,
    Triplet,
    WarmStart,
)
from hpsearch.config.base import FrozenConfig
from hpsearch.config.formatting import diff_summaries, flatten, format_value, summary, varying_keys

BASELINE = TrialConfig()
SOFT = TrialConfig(
    loss=BatchHard(margin=SoftMargin()),
    sampler=PKSampler(groups=64, views=4),
    optimizer=Adam(lr=2e-3),
    input=Denoised(),
)


def configs() -> st.SearchStrategy[TrialConfig]:
    margins = st.builds(HardMargin, alpha=st.sampled_from([0.2, 1.0])) | st.builds(
        SoftMargin, alpha=st.sampled_from([0.0, 0.2, 1.0])
    )
    optimizers = st.builds(SGD, lr=st.sampled_from([0.01, 0.1])) | st.builds(
        Adam, lr=st.sampled_from([0.001, 0.01])
    )
    inputs = st.sampled_from([Clean(), Noisy(), Denoised(), Denoised(train_on="clean")])
    return st.builds(
        TrialConfig,
        loss=st.builds(BatchHard, margin=margins),
        sampler=st.builds(
            PKSampler, groups=st.sampled_from([16, 64]), views=st.sampled_from([2, 4])
        ),
        optimizer=optimizers,
        input=inputs,
        seed=st.integers(0, 2),
    ) | st.builds(TrialConfig, loss=st.builds(Triplet, margin=margins), optimizer=optimizers)


def test_a_kind_is_the_value_of_the_unions_own_name():
    flat = flatten(SOFT)
    expected = {
        "loss": "batch_hard",
        "loss.distance": "euclidean",
        "loss.margin": "soft",
        "loss.margin.alpha": 0.0,
        "sampler": "sxk",
        "sampler.groups": 64,
        "sampler.views": 4,
        "optimizer": "adam",
        "optimizer.lr": 0.002,
        "input": "denoised",
        "input.train_on": "denoised",
        "input.denoiser.network": "shallow_unet",
        "input.denoiser.optimizer.lr": 0.001,
        "descriptor.unit_norm": False,
        "evaluate_on": "noisy",
    }
    assert {name: flat[name] for name in expected} == expected
    assert not any(name.endswith("kind") for name in flat)


@given(configs(), configs())
def test_equal_flat_names_mean_equal_configurations(one: TrialConfig, other: TrialConfig):
    assert (flatten(one) == flatten(other)) == (one == other)
    assert json.loads(json.dumps(flatten(one))) == flatten(one)


@given(st.lists(configs(), min_size=1, max_size=5))
def test_varying_is_exactly_what_is_not_shared(several: list[TrialConfig]):
    names = varying_keys(several)
    flats = [flatten(config) for config in several]
    shared = {name for name in flats[0] if all(f.get(name) == flats[0][name] for f in flats)}
    assert set(names) == set().union(*flats) - shared
    assert len(names) == len(set(names))


def test_a_setting_that_only_some_have_varies():
    names = varying_keys([BASELINE, SOFT])
    assert {"sampler", "sampler.batch", "sampler.groups", "optimizer.momentum"} <= set(names)
    assert "descriptor.width" not in names
    assert varying_keys([SOFT]) == []


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        (BASELINE, "triplet · batch 50 · sgd 0.1"),
        (SOFT, "soft batch hard · S×K 64×4 · adam 2e-3 · denoised"),
        (
            TrialConfig(
                loss=Triplet(distance="euclidean", margin=HardMargin(alpha=0.2)),
                optimizer=SGD(lr=0.05, momentum=0.9, nesterov=True),
                sampler=RandomTriplets(batch=250),
                input=Clean(),
                descriptor=L2Net(width=0.5, unit_norm=True),
                seed=3,
            ),
            "triplet, distance euclidean, α 0.2 · batch 250 · sgd 0.05, momentum 0.9, nesterov"
            " · clean · width 0.5, unit norm · seed 3",
        ),
        (
            TrialConfig(
                input=Denoised(
                    train_on="clean",
                    denoiser=DenoiserTraining(network=ShallowUNet(width=0.5), optimizer=SGD()),
                )
            ),
            "triplet · batch 50 · sgd 0.1"
            " · denoised, denoiser sgd, denoiser width 0.5, train on clean",
        ),
        (
            TrialConfig(
                loss=BatchHard(),
                sampler=Stepped(
                    stages=(PKSampler(groups=32, views=2), PKSampler(groups=64, views=4)),
                    below=0.05,
                ),
                optimizer=AdamW(lr=3e-4),
                schedule=Cosine(warmup=0.05),
                augmentation=Augmentation(turns="point"),
                warm_start=WarmStart(patches=10_000),
            ),
            "batch hard · stepped 32×2 → 64×4, below 0.05 · adamw 3e-4 · cosine, warmup 0.05"
            " · turns point · warm start, patches 10,000",
        ),
        (
            TrialConfig(
                loss=BatchAll(),
                sampler=FixedSteps(
                    stages=(PKSampler(groups=8, views=2),) * 4, milestones=(0.1, 0.2, 0.5)
                ),
            ),
            "batch all · fixed steps 8×2 → … → 8×2, milestones 0.1 → 0.2 → 0.5 · sgd 0.1",
        ),
        (
            TrialConfig(sampler=RandomTriplets(tough_until=0.2)),
            "triplet · batch 50, tough until 0.2 · sgd 0.1",
        ),
        (TrialConfig(patches=5, evaluate_on="clean"), summary(BASELINE) + " · evaluate on clean"),
    ],
)
def test_titles(config: TrialConfig, expected: str):
    assert summary(config) == expected


def test_differences_leave_out_what_all_share():
    other = SOFT.model_copy(update={"optimizer": Adam(lr=1e-3)})
    assert diff_summaries([SOFT, other]) == ["adam 2e-3", "adam 1e-3"]
    assert diff_summaries([SOFT, SOFT]) == [summary(SOFT)] * 2
    seeded = SOFT.model_copy(update={"seed": 1})
    assert diff_summaries([SOFT, seeded]) == ["seed 0", "seed 1"]


def test_differences_leave_out_details_that_follow_from_the_variant():
    narrow = {"descriptor": L2Net(width=0.5)}
    fast, slow = (SGD(lr=rate, momentum=0.9) for rate in (0.1, 0.01))
    several = [
        SOFT.model_copy(update={**narrow, "optimizer": fast}),
        SOFT.model_copy(update={**narrow, "optimizer": slow}),
        SOFT.model_copy(update={"descriptor": L2Net(width=0.5, unit_norm=True)}),
    ]
    assert diff_summaries(several) == ["sgd 0.1", "sgd 0.01", "adam 2e-3 · unit norm"]


class Later(FrozenConfig):
    """A variant that the module has never seen."""

    kind: Literal["later"] = "later"
    stages: tuple[PKSampler, ...] = (PKSampler(groups=64, views=2), PKSampler(groups=64, views=4))
    margin: Annotated[HardMargin | SoftMargin, Field(discriminator="kind")] = HardMargin()
    ceiling: float | None = None


class Wider(TrialConfig):
    augmentation: Later | None = None


def test_later_variants_need_no_line_of_their_own():
    config = Wider(
        augmentation=Later(margin=SoftMargin(alpha=0.1), stages=(PKSampler(), PKSampler()))
    )
    flat = flatten(config)
    assert flat["augmentation"] == "later"
    assert flat["augmentation.stages"] == 2
    assert flat["augmentation.stages.1.groups"] == 32
    assert flat["augmentation.margin"] == "soft"
    assert flat["augmentation.ceiling"] == "none"
    assert summary(config).endswith("soft later, stages S×K 32×4 → S×K 32×4, α 0.1")
    assert flatten(Wider())["augmentation"] == "none"


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (0.002, "2e-3"),
        (0.00123456, "1.23e-3"),
        (0.1, "0.1"),
        (0.0, "0"),
        (1.0, "1"),
        (20_000, "20,000"),
        (True, "yes"),
        ("batch_hard", "batch hard"),
        (-1e-9, "-1e-9"),
        (2e6, "2e6"),
    ],
)
def test_values_in_few_characters(value: str | float | bool, expected: str):
    assert format_value(value) == expected
