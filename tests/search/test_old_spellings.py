"""Search spaces of version 0.1.0: each loads with one warning and means what it meant."""

from pathlib import Path
from typing import Any

import pytest

from hpsearch.config import TrialConfig
from hpsearch.errors import OldSpellingWarning
from hpsearch.search.objective import TRAINING_SECONDS
from hpsearch.search.pruners import ASHA, Hyperband, Median, NoPruner
from hpsearch.search.samplers import GP, TPE, Fixed, Grid
from hpsearch.search.search import Search
from hpsearch.search.space_file import load_search

ROOT = Path(__file__).parents[2]
FROZEN = sorted((ROOT / "tests" / "frozen" / "spaces-0.1.0").glob("*.py"))


def terms(search: Search) -> dict[str, Any]:
    fields = {name: getattr(search, name) for name in Search.model_fields if name != "suggest"}
    return {**fields, "pruner": search.active_pruner, "grace": search.grace_patches}


def current(path: Path) -> Path:
    """The same space in the present spelling; that of 0.2.0 where its settings changed later."""
    kept = ROOT / "tests" / "frozen" / "spaces-0.2.0" / path.name
    if kept.exists():
        return kept
    folder = "benchmarks" if path.stem == "replay_space" else "search_spaces"
    return ROOT / folder / path.name


def test_all_spaces_of_the_version_are_here() -> None:
    assert len(FROZEN) == 9


@pytest.mark.parametrize("path", FROZEN, ids=lambda path: path.stem)
def test_an_old_space_means_what_the_present_one_does(path: Path) -> None:
    with pytest.warns(OldSpellingWarning, match=path.name) as warned:
        old = load_search(path)
    assert len(warned) == 1
    old.validate_space()  # the suite takes a second warning for an error
    assert terms(old) == terms(load_search(current(path)))


def search(**fields: Any) -> Search:
    config = TrialConfig(patches=100)
    given = {"trials": 5, "budget": 100, "report_every": 10, "baseline": config, **fields}
    return Search(suggest=lambda trial: config, **given)


POINTS = ({"lr": 0.1}, {"lr": 0.2})


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ({"sampler": "tpe"}, {"sampler": TPE()}),
        ({"sampler": "gp", "first": POINTS}, {"sampler": GP(), "initial_points": POINTS}),
        ({"sampler": "grid", "seeds": 3}, {"sampler": Grid(), "seeds_per_point": 3}),
        ({"sampler": "chosen", "first": POINTS}, {"sampler": Fixed(points=POINTS)}),
        ({"also": [TRAINING_SECONDS]}, {"extra_objectives": [TRAINING_SECONDS]}),
        ({"also": [TRAINING_SECONDS], "reduction": 4}, {"extra_objectives": [TRAINING_SECONDS]}),
        ({"folds": 4}, {"num_folds": 4}),
        ({"reduction": 2.5}, {"pruner": ASHA(reduction_factor=2.5)}),
        ({"grace": 30}, {"pruner": ASHA(grace_period=30)}),
        ({"grace": 100}, {"pruner": NoPruner()}),
        ({"grace": None, "report_every": 100}, {"report_every": 100}),
        ({"scheduler": None}, {"pruner": ASHA()}),
        ({"scheduler": "none"}, {"pruner": NoPruner()}),
        ({"scheduler": "asha", "grace": 20}, {"pruner": ASHA(grace_period=20)}),
        ({"scheduler": "hyperband", "reduction": 4}, {"pruner": Hyperband(reduction_factor=4)}),
        ({"scheduler": "median", "grace": 30}, {"pruner": Median(grace_period=30)}),
    ],
)
def test_an_old_name_is_read_as_the_present_one(old: dict[str, Any], new: dict[str, Any]) -> None:
    with pytest.warns(OldSpellingWarning) as warned:
        found = terms(search(**old))
    assert len(warned) == 1
    assert found == terms(search(**new)) | {"pruner": found["pruner"]}
    assert found["pruner"] == search(**new).active_pruner


def test_another_warning_of_a_space_is_not_lost(tmp_path: Path) -> None:
    path = tmp_path / "space.py"
    path.write_text("import warnings\nwarnings.warn('mine', FutureWarning)\n" + OLD)
    with pytest.warns() as warned:
        load_search(path)
    assert [one.category for one in warned] == [FutureWarning, OldSpellingWarning]


OLD = """
from hpsearch.config import TrialConfig
from hpsearch.search.search import Search

SEARCH = Search(suggest=lambda trial: TrialConfig(), budget=9, report_every=3, trials=2, seeds=2,
                sampler="random", baseline=TrialConfig())
"""
