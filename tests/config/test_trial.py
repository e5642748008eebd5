"""Every setting that a search can write down survives JSON, and nothing else can be written."""

import json
import math
import pickle
from collections.abc import Mapping
from types import UnionType
from typing import Annotated, Literal, Union, get_args, get_origin

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel, ValidationError

from hpsearch import config
from hpsearch.config import (
    AngularModulation,
    DynamicSoftMargin,
    TrialConfig,
    collapse_value_of,
    loss_stages,
    sampling_stages,
)
from hpsearch.config.base import Params
from hpsearch.config.trial import SAMPLERS_OF_LOSS, requires_unit_norm

MARGINLESS = (DynamicSoftMargin, AngularModulation)
"""Losses whose value at a collapse is 0, and below it in a successful training."""


def values_of(kind, metadata=()):
    """Anything that a field of type ``kind`` may hold, by its declared bounds."""
    if get_origin(kind) is Annotated:
        inner, *marks = get_args(kind)
        own = [bound for mark in marks for bound in getattr(mark, "metadata", [])]
        return values_of(inner, (*metadata, *own))
    if get_origin(kind) in (Union, UnionType):
        return st.one_of([values_of(part, metadata) for part in get_args(kind)])
    if get_origin(kind) is Literal:
        return st.sampled_from(get_args(kind))
    if get_origin(kind) is tuple:
        return st.lists(values_of(get_args(kind)[0]), min_size=1, max_size=3).map(tuple)
    if isinstance(kind, type) and issubclass(kind, BaseModel):
        return settings_of(kind)
    if kind in (int, float):
        return numbers(kind, metadata)
    if kind is Params or get_origin(kind) is Mapping:
        return st.dictionaries(
            st.from_regex("[a-z]{1,5}", fullmatch=True),
            st.floats(0, 9) | st.integers(0, 9) | st.booleans() | st.none() | st.just("a name"),
            max_size=2,
        )
    if kind is str:
        pattern = [mark.pattern for mark in metadata if getattr(mark, "pattern", None)]
        return st.from_regex(pattern[0] if pattern else "[0-9a-f]{64}", fullmatch=True)
    return {
        bool: st.booleans(),
        type(None): st.none(),
    }[kind]


def numbers(kind, metadata):
    bounds = {k: v for item in metadata for k, v in vars_of(item).items()}
    low, high = bounds.get("ge", bounds.get("gt", 0)), bounds.get("le", bounds.get("lt", 10**6))
    if kind is int:
        return st.integers(low, high)
    return st.floats(low, high, exclude_min="gt" in bounds, exclude_max="lt" in bounds)


def vars_of(bound):
    return {k: getattr(bound, k) for k in ("ge", "gt", "le", "lt") if hasattr(bound, k)}


@st.composite
def settings_of(draw, kind):
    """A setting of one class; combinations that the class itself refuses are left out."""
    fields = {
        name: draw(values_of(field.annotation, tuple(field.metadata)))
        for name, field in kind.model_fields.items()
    }
    try:
        return kind(**fields)
    except ValidationError as error:
        if all(problem["type"] == "value_error" for problem in error.errors()):
            return kind(**{k: v for k, v in fields.items() if k == "kind" or k in needed(kind)})
        raise


def needed(kind):
    return {name for name, field in kind.model_fields.items() if field.is_required()}


@st.composite
def trials(draw):
    """Losses of one sampler, alone or as stages, and terms for its batches beside them."""
    loss = draw(st.sampled_from(sorted(SAMPLERS_OF_LOSS, key=lambda c: c.__name__)))
    fields = {
        name: draw(values_of(field.annotation, tuple(field.metadata)))
        for name, field in TrialConfig.model_fields.items()
        if name not in ("loss", "sampler", "regularizers")
    }
    sampler = draw(settings_of(draw(st.sampled_from(SAMPLERS_OF_LOSS[loss]))))
    fitting = [other for other, kinds in SAMPLERS_OF_LOSS.items() if type(sampler) in kinds]
    fitting.sort(key=lambda c: c.__name__)
    stages = [draw(settings_of(kind)) for kind in (loss, *draw(st.lists(st.sampled_from(fitting))))]
    chosen = draw(st.sampled_from([stages[0], *schedules_of(stages, sampler)]))
    if any(requires_unit_norm(one) for one in loss_stages(chosen)):
        fields["descriptor"] = fields["descriptor"].model_copy(update={"unit_norm": True})
    terms = [config.GOR(), *([config.SOSR()] if isinstance(sampler, config.Pairs) else [])]
    regularizers = draw(st.lists(st.sampled_from(terms), max_size=2))
    return TrialConfig(loss=chosen, sampler=sampler, regularizers=tuple(regularizers), **fields)


def schedules_of(stages, sampler):
    """Schedules of these losses that go with the sampler."""
    fixed = config.FixedLossSteps(stages=stages)
    if isinstance(sampler, config.Stepped):
        return [fixed]
    return [fixed, config.SteppedLoss(stages=stages)]


@given(trials())
@settings(max_examples=150, deadline=None)
def test_a_trial_survives_json_and_pickle(trial):
    assert TrialConfig.model_validate_json(trial.model_dump_json()) == trial
    assert TrialConfig.model_validate(json.loads(json.dumps(trial.model_dump()))) == trial
    assert pickle.loads(pickle.dumps(trial)) == trial


@given(trials(), st.data())
@settings(max_examples=60, deadline=None)
def test_an_unknown_key_is_refused_wherever_it_stands(trial, data):
    stored = trial.model_dump()
    places = [stored, *(value for value in nested(stored))]
    data.draw(st.sampled_from(places))["colour"] = 1
    with pytest.raises(ValidationError, match="colour"):
        TrialConfig.model_validate(stored)


FREE = {"params", "miner_params"}
"""Settings of ``Library`` that take any key, which the other library checks."""


def nested(value):
    for name, item in value.items() if isinstance(value, dict) else enumerate(value):
        if name in FREE:
            continue
        if isinstance(item, dict):
            yield item
        if isinstance(item, dict | list | tuple):
            yield from nested(item)


@given(trials())
@settings(max_examples=60, deadline=None)
def test_the_collapse_value_is_finite_and_positive_where_there_is_a_margin(trial):
    for loss in loss_stages(trial.loss):
        for sampler in sampling_stages(trial.sampler):
            value = collapse_value_of(loss, sampler)
            if isinstance(loss, config.CustomLoss):
                assert value == loss.collapse_value
            elif isinstance(loss, config.Library):
                assert value is None, "only a batch can tell"
            elif isinstance(loss, MARGINLESS):
                assert value == 0
            else:
                assert 0 < value < math.inf
    if trial.collapse_value is not None:
        own = any(isinstance(loss, config.CustomLoss) for loss in loss_stages(trial.loss))
        assert own or trial.collapse_value >= trial.regularizer_collapse_value >= 0


def members(annotated):
    return set(get_args(get_args(annotated)[0]))


def test_every_loss_says_which_samplers_it_reads():
    assert set(SAMPLERS_OF_LOSS) == members(config.SingleLoss)
    assert members(config.Loss) - members(config.SingleLoss) == {
        config.FixedLossSteps,
        config.SteppedLoss,
    }
    assert all(set(samplers) <= members(config.Sampling) for samplers in SAMPLERS_OF_LOSS.values())


UNIONS = (config.Loss, config.Sampler, config.Sampling, config.Margin, config.Optimizer)
LATER_UNIONS = (config.Schedule, config.BatchMiner, config.Regularizer)


@pytest.mark.parametrize("union", [*UNIONS, *LATER_UNIONS])
def test_kinds_are_unique(union):
    kinds = [member.model_fields["kind"].default for member in members(union)]
    assert len(set(kinds)) == len(kinds)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"loss": {"kind": "batch_hard"}}, "requires a sampler of type PKSampler"),
        ({"loss": {"kind": "hardnet"}, "sampler": {"kind": "pairs"}}, "unit_norm"),
        ({"loss": {"kind": "facenet"}}, "unit_norm"),
        (
            {"loss": {"kind": "triplet", "margin": {"kind": "hard", "alpha": 0}}},
            "greater than or equal to 0.0001",
        ),
        ({"loss": {"kind": "percentile", "q": 101}}, "less than or equal to 100"),
        (
            {"loss": {"kind": "batch_all", "average": "nonzero", "margin": {"kind": "soft"}}},
            "a soft margin",
        ),
        ({"descriptor": {"kind": "l2net", "dropout": 1.0}}, "less than 1"),
        ({"sampler": {"kind": "sxk", "groups": 2048, "views": 16}}, "at most 4096"),
        (
            {"input": {"kind": "denoised", "denoiser": {"network": {"kind": "dncnn_transfer"}}}},
            "weights",
        ),
        ({"schedule": {"kind": "step", "at": [0.5, 0.5]}}, "must rise"),
        ({"schedule": {"kind": "step", "at": [0.5, 1.5]}}, "less than or equal to 1"),
        (
            {"loss": {"kind": "batch_hard"}, "sampler": {"kind": "fixed_steps", "at": []}},
            "2 stages need 1 share",
        ),
        (
            {"input": {"kind": "denoised", "train_on": "clean", "clean_warmup": 0.5}},
            "clean_warmup is for train_on 'denoised'",
        ),
        ({"loss": {"kind": "no such loss"}}, "no such loss"),
        ({"loss": {"kind": "info_nce"}, "sampler": {"kind": "pairs"}}, "unit_norm"),
        (
            {
                "loss": {"kind": "batch_triplet", "miner": {"kind": "distance_weighted"}},
                "sampler": {"kind": "sxk"},
            },
            "unit_norm",
        ),
        ({"regularizers": [{"kind": "sosr"}]}, "requires a sampler of type Pairs"),
        (
            {
                "loss": {"kind": "stepped_loss", "stages": [{"kind": "batch_hard"}]},
                "sampler": {"kind": "stepped"},
            },
            "cannot both follow the loss",
        ),
        (
            {
                "loss": {
                    "kind": "fixed_loss_steps",
                    "stages": [{"kind": "triplet"}, {"kind": "hardnet"}],
                }
            },
            "'hardnet' requires a sampler of type Pairs",
        ),
        ({"loss": {"kind": "library", "loss": "os.system"}}, "pattern"),
        ({"loss": {"kind": "library", "loss": "A", "params": {"x": [1]}}}, "params"),
        (
            {"loss": {"kind": "library", "loss": "A", "miner_params": {"m": 1}}},
            "miner_params need a miner",
        ),
        (
            {"optimizer": {"kind": "sgd", "momentum": 0.9, "nesterov": True, "dampening": 0.9}},
            "dampening of 0",
        ),
    ],
)
def test_what_makes_no_sense_cannot_be_written(wrong, message):
    with pytest.raises(ValidationError, match=message):
        TrialConfig.model_validate(wrong)


def test_the_default_is_the_coursework_s_baseline():
    trial = TrialConfig()
    assert (trial.loss.kind, trial.sampler.kind, trial.optimizer.kind) == (
        "triplet",
        "random_triplets",
        "sgd",
    )
    assert trial.loss.collapse_value == 1.0


def test_a_trial_cannot_be_changed():
    with pytest.raises(ValidationError, match="frozen"):
        TrialConfig().seed = 1  # type: ignore[misc]
