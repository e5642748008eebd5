"""Overrides: parsed as literals, checked by the settings themselves, part of the search."""

import pytest

from hpsearch.config import Adam, HardNet, L2Net, Pairs, RandomTriplets, TrialConfig
from hpsearch.errors import UserError
from hpsearch.search.objective import Objective
from hpsearch.search.overrides import parse_overrides, settings_without_effect, with_overrides
from hpsearch.search.prior_sampler import Near
from hpsearch.search.pruners import ASHA, NoPruner
from hpsearch.search.search import Search

CONFIG = TrialConfig(descriptor=L2Net(width=0.125), sampler=RandomTriplets(batch=20), patches=1_000)


def suggest(trial):
    lr = trial.suggest_float("lr", 1e-4, 1e-2)
    return CONFIG.model_copy(update={"optimizer": Adam(lr=lr)})


SEARCH = Search(suggest=suggest, budget=1_000, report_every=100, trials=4, baseline=CONFIG)


def changed(*texts: str) -> Search:
    return with_overrides(SEARCH, parse_overrides(texts))


def test_texts_are_literals_or_strings() -> None:
    texts = ["a=200_000", "b=0.5", "c=none", "d=true", "e=[1, 2]", "f={'lr': 1}", "g=x=y"]
    assert parse_overrides(texts) == {
        "a": 200_000, "b": 0.5, "c": "none", "d": True, "e": [1, 2], "f": {"lr": 1}, "g": "x=y",
    }  # fmt: skip


@pytest.mark.parametrize(
    "text", ["budget", "=3", "", "trial.=3", ".lr=3", "loss..margin=3", "a b=3"]
)
def test_a_text_without_a_name_or_value_is_refused(text: str) -> None:
    with pytest.raises(UserError, match="NAME=VALUE"):
        parse_overrides([text])


def test_a_budget_is_that_of_every_trial_and_of_the_baseline() -> None:
    found = changed("budget=200_000", "descriptor.width=0.5", "pruner=none")
    found.validate_space()
    assert (found.budget, found.baseline.patches) == (200_000, 200_000)
    assert found.active_pruner == NoPruner()
    assert {config.patches for config in found.examples()} == {200_000}
    assert {config.descriptor.width for config in found.examples()} == {0.5}
    assert found.baseline.descriptor.width == 0.5
    assert SEARCH.budget == 1_000, "the search itself stays as it was"


def test_the_parts_of_a_default_pruner_can_be_set() -> None:
    assert changed("pruner.reduction_factor=4").pruner == ASHA(reduction_factor=4)


def test_a_prior_is_set_by_name_and_one_limit_as_a_text() -> None:
    found = changed("prior.lr=3e-4", "constraints=us_per_patch < 20", "gates=['task_drop < 0.01']")
    assert found.prior == {"lr": Near(value=3e-4)}
    assert found.constraints == ("us_per_patch < 20",)
    assert found.gates == ("task_drop < 0.01",)
    found.validate_space()
    with pytest.raises(UserError, match="the prior names 'rate'"):
        changed("prior.rate=1").validate_space()


def test_the_parts_of_an_objective_can_be_set() -> None:
    found = changed(
        "objective.worst=99", "objective.metric=val/MAE", "objective.direction=minimize"
    )
    assert found.objective == Objective(metric="val/MAE", direction="minimize", worst=99)


def test_settings_that_go_together_are_checked_together() -> None:
    found = changed("loss=hardnet", "trial.sampler=pairs", "descriptor.unit_norm=true")
    drawn = found.examples()[0]
    assert isinstance(drawn.loss, HardNet)
    assert isinstance(drawn.sampler, Pairs)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("descriptor.width=-1", "descriptor.width: setting 'width' is wrong: Input should be"),
        ("descriptor.widht=1", "no such setting; there are width, dropout"),
        ("budget=50", "report_every must lie between 1 and the budget of 50"),
        ("pruner=fast", "'fast' is not one of asha, pasha, hyperband, median, freeze_thaw, none"),
        ("loss=hardnet", "requires a sampler of type Pairs"),
        ("sampler.batch=64", "trial.sampler.batch"),
        ("patches=64", "set the search's budget"),
        ("suggest=64", "in the space's file"),
        ("colour=1", "no such setting; there are suggest, budget"),
        ("colour=1", "input, descriptor"),
        ("descriptor.colour=1", "no such setting; there are width"),
        ("objective=val/mAP", "it has parts; set one of objective.metric"),
        ("objective.metric=nothing", "no report has the metric 'nothing'"),
        ("objective.direction=up", "objective.direction"),
        ("trials=many", "setting 'trials' is wrong"),
        ("seed=-1", "seed"),
        ("seed=4294967296", "seed"),
    ],
)
def test_a_wrong_setting_is_refused_with_its_own_error(text: str, words: str) -> None:
    with pytest.raises(UserError) as caught:
        changed(text)
    assert str(caught.value).startswith(f"--set {text.partition('=')[0]}: ")
    assert words in str(caught.value)


def test_a_setting_that_the_space_draws_is_named() -> None:
    names = {"optimizer.lr": 0.1, "descriptor.width": 0.5, "seed": 1}
    assert settings_without_effect(SEARCH, names) == ["optimizer.lr"]
