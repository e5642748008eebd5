"""Every setting that a search can write down survives JSON, and nothing else can be written."""

import json
import math
import pickle
from types import UnionType
from typing import Annotated, Literal, Union, get_args, get_origin

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel, ValidationError

from hpsearch import config
from hpsearch.config import TrialConfig
from hpsearch.config.trial import SAMPLERS_OF_LOSS, UNIT_NORM_LOSSES


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
    return {
        bool: st.booleans(),
        str: st.from_regex("[0-9a-f]{64}", fullmatch=True),
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
    loss = draw(st.sampled_from(sorted(SAMPLERS_OF_LOSS, key=lambda c: c.__name__)))
    fields = {
        name: draw(values_of(field.annotation, tuple(field.metadata)))
        for name, field in TrialConfig.model_fields.items()
        if name not in ("loss", "sampler")
    }
    if loss in UNIT_NORM_LOSSES:
        fields["descriptor"] = fields["descriptor"].model_copy(update={"unit_norm": True})
    sampler = draw(settings_of(draw(st.sampled_from(SAMPLERS_OF_LOSS[loss]))))
    return TrialConfig(loss=draw(settings_of(loss)), sampler=sampler, **fields)


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


def nested(value):
    for item in value.values() if isinstance(value, dict) else value:
        if isinstance(item, dict):
            yield item
        if isinstance(item, dict | list | tuple):
            yield from nested(item)


@given(trials())
@settings(max_examples=60, deadline=None)
def test_the_collapse_value_is_a_positive_finite_number(trial):
    assert 0 < trial.loss.collapse_value < math.inf


def members(annotated):
    return set(get_args(get_args(annotated)[0]))


def test_every_loss_says_which_samplers_it_reads():
    assert set(SAMPLERS_OF_LOSS) == members(config.Loss)
    assert all(set(samplers) <= members(config.Sampling) for samplers in SAMPLERS_OF_LOSS.values())


UNIONS = (config.Loss, config.Sampler, config.Sampling, config.Margin, config.Optimizer)


@pytest.mark.parametrize("union", [*UNIONS, config.Schedule])
def test_kinds_are_unique(union):
    kinds = [member().kind for member in members(union)]
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
