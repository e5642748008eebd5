"""Space files: what they may state, and how mistakes are told."""

import time
from pathlib import Path

import optuna
import pytest

from hpsearch.config import TrialConfig
from hpsearch.errors import UserError
from hpsearch.search.search import Search, load_search

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
    ("text", "words"),
    [
        ("x = 1", "must export SEARCH"),
        ("SEARCH = 3", "found int"),
        ("import nowhere_to_be_found", "does not run: ModuleNotFoundError"),
        ("def (", "does not run: SyntaxError"),
        (good("pruner=ASHA(grace_period=5)"), "grace_period must .* first report.* got 5"),
        (good("pruner=ASHA(grace_period=100)"), "pruner 'asha' has no rung"),
        (good("num_folds=4, pruner=ASHA(grace_period=20)"), "first report at 25 patches"),
        (good("num_folds=1"), "'num_folds' is wrong: .* 2 .*got 1"),
        (good("pruner='sha'"), "'pruner' is wrong"),
        (good("scheduler='sha'"), "'sha'; choose one of asha, hyperband, median, none"),
        (good("sampler='tpa'"), "'tpa'; choose one of tpe, random"),
        (good("also=(), extra_objectives=()"), "also is the old name of extra_objectives"),
        (good("pruner=ASHA(reduction_factor=1)"), "'reduction_factor' is wrong: .*got 1"),
        (good("sampler=Fixed(points=[])"), "'points' is wrong"),
        (good("sampler=Grid(), initial_points=[{'lr': 1}]"), "sampler 'grid' tries its own"),
        (good("sort=1"), "no setting 'sort'"),
    ],
)
def test_a_bad_file_is_one_sentence(tmp_path: Path, text: str, words: str) -> None:
    with pytest.raises(UserError, match=words):
        load_search(write(tmp_path, text))


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ("raise KeyError('oops')", "suggest raised KeyError at space.py:8"),
        ("return {'lr': 1}", "must return a TrialConfig, but returned dict"),
        ("return TrialConfig(patches=99)", "budget is 100"),
        ("return TrialConfig(patches=100, colour='red')", "colour"),
    ],
)
def test_a_bad_suggest_shows_before_ray_starts(tmp_path: Path, body: str, words: str) -> None:
    search = load_search(write(tmp_path, GOOD.format(body=body, more="")))
    began = time.monotonic()
    with pytest.raises(UserError, match=words):
        search.validate_space()
    assert time.monotonic() - began < 2


def test_a_missing_file_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no search space at"):
        load_search(tmp_path / "nothing.py")


def test_first_points_are_rehearsed_too(tmp_path: Path) -> None:
    more = ", initial_points=[{'lr': 0.5}]"
    search: Search = load_search(write(tmp_path, GOOD.format(body="pass", more=more)))
    search.validate_space(draws=0)
