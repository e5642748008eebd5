"""Space files written for 0.1.0 load, and draw what they drew."""

from pathlib import Path
from typing import Any

import optuna
import pytest

from hpsearch.config import TrialConfig
from hpsearch.search.space_file import load_search

pytestmark = pytest.mark.filterwarnings("ignore::hpsearch.errors.OldSpellingWarning")

SPACES = sorted((Path(__file__).parent / "spaces-0.1.0").glob("*.py"))


def test_they_are_all_there(expected: dict[str, Any]) -> None:
    assert len(SPACES) == 9
    assert {path.stem for path in SPACES} == expected["spaces"].keys()


@pytest.mark.parametrize("path", SPACES, ids=lambda path: path.stem)
def test_a_space_draws_what_it_drew(path: Path, expected: dict[str, Any]) -> None:
    search, facts = load_search(path), expected["spaces"][path.stem]
    search.validate_space()
    assert (search.budget, search.report_every, search.num_trials()) == tuple(facts["terms"])
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    for known in facts["drawn"]:
        trial = study.ask()
        config = search.suggest_config(trial)
        assert trial.params == pytest.approx(known)
        assert TrialConfig.model_validate_json(config.model_dump_json()) == config
