"""Settings as 0.1.0 named them are the same settings."""

import warnings
from typing import Any

import pytest
from pydantic import ValidationError

from hpsearch import config as c
from hpsearch.config.base import (
    FrozenConfig,
    dump_former_names,
    old_names_silent,
    old_names_warned,
)
from hpsearch.errors import OldSpellingWarning

FORMER: list[tuple[FrozenConfig, dict[str, Any]]] = [
    (c.TrialConfig(optimizer=c.Adam(lr=0.01)), {"optimiser": {"kind": "adam", "lr": 0.01}}),
    (c.DenoiserTraining(optimizer=c.SGD()), {"optimiser": {"kind": "sgd"}}),
    (c.WarmStart(optimizer=c.AdamW()), {"optimiser": {"kind": "adamw"}}),
    (c.Denoised(clean_warmup=0.5), {"kind": "denoised", "clean_first": 0.5}),
    (c.Constant(warmup=0.1), {"warm_up": 0.1}),
    (
        c.StepDecay(milestones=(0.2,), gamma=0.5, warmup=0.1),
        {"at": [0.2], "factor": 0.5, "warm_up": 0.1},
    ),
    (c.Cosine(final_lr_ratio=0.2, warmup=0.1), {"final": 0.2, "warm_up": 0.1}),
    (c.Exponential(final_lr_ratio=0.2, warmup=0.1), {"final": 0.2, "warm_up": 0.1}),
    (c.FixedSteps(milestones=(0.3,)), {"at": [0.3]}),
    (c.Contrastive(margin=2), {"radius": 2}),
    (c.Percentile(quantile=7), {"q": 7}),
    (
        c.L2Net(input_norm=True, bn_momentum=0.1, descriptor_dim=64),
        {"patch_norm": True, "norm_momentum": 0.1, "dimensions": 64},
    ),
]


@pytest.mark.parametrize(("present", "former"), FORMER, ids=lambda x: type(x).__name__)
def test_former_names_are_read(present: FrozenConfig, former: dict[str, Any]) -> None:
    assert type(present).model_validate(former) == present
    dumped = dump_former_names(present)
    assert former.keys() <= dumped.keys()
    assert type(present).model_validate(dumped) == present
    assert not (former.keys() - {"kind"}) & present.model_dump().keys()


@pytest.mark.parametrize(("present", "former"), FORMER, ids=lambda x: type(x).__name__)
def test_former_names_are_read_by_copies_and_as_attributes(
    present: FrozenConfig, former: dict[str, Any]
) -> None:
    """As space files of 0.1.0 do; pydantic would add an unknown name of a copy silently."""
    names = {old: getattr(present, new) for new, old in present.former_names.items()}
    assert type(present)().model_copy(update=names) == present
    assert {old: getattr(present, old) for old in names} == names


def test_all_of_them_are_tested() -> None:
    tried = {type(present) for present, _ in FORMER}
    own = {k for k in vars(c).values() if isinstance(k, type) and issubclass(k, FrozenConfig)}
    assert {kind for kind in own if kind.former_names} == tried


def test_both_names_at_once_are_refused() -> None:
    with pytest.raises(ValidationError, match="warm_up is the old name of warmup"):
        c.Cosine.model_validate({"warmup": 0.1, "warm_up": 0.2})


def test_a_digest_is_taken_of_the_names_of_0_1_0() -> None:
    schedule = c.StepDecay(milestones=(0.2, 0.5))
    found = dump_former_names(c.TrialConfig(schedule=schedule, seed=3), exclude=("seed", "input"))
    assert found["schedule"] == {"kind": "step", "at": [0.2, 0.5], "factor": 0.1, "warm_up": 0.0}
    assert found["optimiser"]["lr"] == 0.1
    assert "seed" not in found
    assert "input" not in found


def test_only_a_file_of_a_user_is_warned_of() -> None:
    former = {"radius": 2}
    c.Contrastive.model_validate(former)  # the suite takes a warning for an error
    with old_names_warned(), pytest.warns(OldSpellingWarning, match="radius= is margin="):
        c.Contrastive.model_validate(former)
    with old_names_warned(), old_names_silent(), warnings.catch_warnings():
        c.Contrastive.model_validate(former)


@pytest.mark.parametrize(("former", "present"), c.FORMER_NAMES.items())
def test_a_class_is_found_by_its_former_name(former: str, present: str) -> None:
    with pytest.warns(OldSpellingWarning, match=f"{former} is {present}") as warned:
        assert getattr(c, former) is getattr(c, present)
    assert len(warned) == 1


def test_no_other_name_is_found() -> None:
    with pytest.raises(AttributeError, match="nothing"):
        _ = c.nothing  # type: ignore[attr-defined]


def test_a_digest_omits_later_fields_at_their_defaults() -> None:
    """So what was trained before these fields existed is found again."""
    names = {"turns", "crop", "brightness", "contrast"}
    assert dump_former_names(c.Augmentation()).keys() == names
    found = dump_former_names(c.Augmentation(rotation=5.0, crop=0.1))
    assert found.keys() == {*names, "rotation"}
    assert c.Augmentation.model_validate(found) == c.Augmentation(rotation=5.0, crop=0.1)
