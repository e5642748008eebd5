"""Space files: what they may state, and how mistakes are told."""

from pathlib import Path

import optuna
import pytest

from hpsearch.config import TrialConfig
from hpsearch.errors import UserError
from hpsearch.search.search import Search
from hpsearch.search.space_file import load_search

SPACES = sorted((Path(__file__).parents[2] / "search_spaces").glob("*.py"))
GOOD = """
from hpsearch.config import SGD, TrialConfig
from hpsearch.search.pruners import *
from hpsearch.search.samplers import *
from hpsearch.search.search import Search

def suggest(trial):
    {body}
    return TrialConfig(optimizer=SGD(lr=trial.suggest_float("lr", 0.01, 1)), patches=100)

SEARCH = Search(suggest=suggest, budget=100, report_every=10, trials=2,
                baseline=TrialConfig(patches=100){more})
"""


def good(more: str) -> str:
    return GOOD.format(body="pass", more=f", {more}")


def write(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "space.py"
    path.write_text(text)
    return path


@pytest.mark.parametrize("path", SPACES, ids=lambda path: path.stem)
def test_our_spaces_draw_200_configurations_that_round_trip(path: Path) -> None:
    search = load_search(path)
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    for _ in range(200):
        config = search.suggest_config(study.ask())
        assert TrialConfig.model_validate_json(config.model_dump_json()) == config


def test_a_good_space_loads_and_rehearses(tmp_path: Path) -> None:
    load_search(write(tmp_path, GOOD.format(body="pass", more=""))).validate_space()


@pytest.mark.parametrize(
    ("text", "code", "words"),
    [
        ("x = 1", "no-search-exported", "SEARCH"),
        ("SEARCH = 3", "no-search-exported", "int"),
        ("import nowhere_to_be_found", "space-failed", "ModuleNotFoundError.*nowhere_to_be_found"),
        ("def (", "space-failed", "SyntaxError"),
        (good("pruner=ASHA(grace_period=5)"), "invalid-grace-period", "grace_period.* got 5"),
        (good("pruner=ASHA(grace_period=100)"), "no-rung", "'asha'.* 100 "),
        (
            good("num_folds=4, pruner=ASHA(grace_period=20)"),
            "invalid-grace-period",
            "grace_period.* 25 .* got 20",
        ),
        (good("num_folds=1"), "invalid-setting", "'num_folds'.* 2 .*got 1"),
        (good("pruner='sha'"), "invalid-setting", "'pruner'"),
        (good("scheduler='sha'"), "unknown-scheduler", "'sha'.* asha, hyperband, median, none"),
        (good("sampler='tpa'"), "unknown-sampler", "'tpa'.* tpe, random"),
        (good("also=(), extra_objectives=()"), "old-and-new-name", "also .*extra_objectives"),
        (good("pruner=ASHA(reduction_factor=1)"), "invalid-setting", "'reduction_factor'.*got 1"),
        (good("sampler=Fixed(points=[])"), "invalid-setting", "'points'"),
        (
            good("sampler=Grid(), initial_points=[{'lr': 1}]"),
            "conflicting-points",
            "'grid'.*initial_points",
        ),
        (good("sort=1"), "invalid-setting", "'sort'"),
    ],
)
def test_a_bad_file_is_one_sentence(tmp_path: Path, text: str, code: str, words: str) -> None:
    with pytest.raises(UserError, match=words) as caught:
        load_search(write(tmp_path, text))
    assert caught.value.code == code


@pytest.mark.parametrize(
    ("body", "code", "words"),
    [
        ("raise KeyError('oops')", "suggest-failed", "KeyError at space.py:8"),
        ("return {'lr': 1}", "suggest-returned-other", "dict"),
        ("return TrialConfig(patches=99)", "other-budget", "patches=99.* 100"),
        ("return TrialConfig(patches=100, colour='red')", "suggest-failed", "colour"),
    ],
)
def test_a_bad_suggest_shows_before_ray_starts(
    tmp_path: Path, body: str, code: str, words: str
) -> None:
    search = load_search(write(tmp_path, GOOD.format(body=body, more="")))
    with pytest.raises(UserError, match=words) as caught:
        search.validate_space()
    assert caught.value.code == code


def test_a_missing_file_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"nothing\.py") as caught:
        load_search(tmp_path / "nothing.py")
    assert caught.value.code == "no-such-space"


def test_first_points_are_rehearsed_too(tmp_path: Path) -> None:
    more = ", initial_points=[{'lr': 0.5}]"
    search: Search = load_search(write(tmp_path, GOOD.format(body="pass", more=more)))
    search.validate_space(draws=0)
