"""Recipes hold the numbers of their sources, and are trained by name."""

import re
from pathlib import Path

import pytest

from hpsearch.cli import app
from hpsearch.config import TrialConfig
from hpsearch.data.patch_store import PatchStore
from hpsearch.errors import UserError
from hpsearch.models import build_descriptor
from hpsearch.models.serialization import PipelineSpec, read_spec
from hpsearch.recipes import RECIPES, recipe

STATED = {  # patches a step, kind and rate of the optimizer, kind of loss, parameters
    "hardnet": (2048, "sgd", 10.0, "hardnet", 1_334_560),
    "hardnet-plus": (2048, "sgd", 10.0, "hardnet", 1_334_560),
    "hynet": (1024, "adam", 0.01, "hybrid_similarity", 1_336_355),
    "sosnet": (1024, "adam", 0.01, "hardnet", 1_334_560),
    "baseline": (150, "sgd", 0.1, "triplet", 1_336_032),
    "r1": (256, "adam", 0.001, "in_batch_hard", 1_336_032),
    "r2": (150, "sgd", 0.1, "triplet", 1_336_032),
    "r3": (1024, "adam", 2e-4, "batch_hard", 1_336_032),
}


def train(*words: object, home: Path) -> None:
    app([*("train", "--home", str(home)), *map(str, words)], standalone_mode=False)


@pytest.mark.parametrize("name", STATED)
def test_a_recipe_holds_the_numbers_of_its_source(name: str) -> None:
    config = recipe(name).config
    network = build_descriptor(config.descriptor, seed=0)
    weights = sum(p.numel() for p in network.parameters() if p.requires_grad)
    optimizer, loss = config.optimizer, config.loss
    found = (config.sampler.patches, optimizer.kind, optimizer.lr, loss.kind, weights)
    assert found == STATED[name]


def test_every_recipe_is_stated_and_survives_json() -> None:
    assert list(RECIPES) == list(STATED)
    for found in RECIPES.values():
        assert found.source
        known = not found.published.startswith("not found")
        assert re.search(r"\d\.\d" if known else "looked for in .*[0-9a-f]{7}", found.published)
        assert TrialConfig.model_validate_json(found.config.model_dump_json()) == found.config


def test_a_recipe_is_trained_by_name_with_what_its_source_leaves_open(
    tiny: PatchStore, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    few = ("--patches", 40, "--data", tiny.path, "--validation-points", 5, "--device", "cpu")
    train("--recipe", "baseline", *few, home=tmp_path)
    spec = read_spec(tmp_path / "trained" / "baseline")
    assert isinstance(spec, PipelineSpec)
    assert spec.descriptor == recipe("baseline").config.descriptor
    assert "verification 0.857, matching 0.341, retrieval 0.662" in capsys.readouterr().out

    with pytest.raises(UserError, match="a batch needs 128 distinct points"):
        train("--recipe", "r1", *few, home=tmp_path)
    assert "- the learning rate is not stated; here Adam's default" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("--recipe", "harnet"), "no recipe 'harnet'; choose one of: hardnet, hardnet-plus"),
        ((), "give one of TRIAL and --recipe"),
        (("x.json", "--recipe", "r1"), "give one of TRIAL and --recipe"),
        (("x.json", "--patches", 10), "--patches is for a recipe"),
    ],
)
def test_a_wrong_recipe_is_one_sentence(
    words: tuple[object, ...], sentence: str, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match=sentence):
        train(*words, home=tmp_path)
    assert not list(tmp_path.iterdir())


def test_the_page_about_losses_lists_every_recipe() -> None:
    page = (Path(__file__).parents[1] / "docs" / "losses.md").read_text()
    for name, found in RECIPES.items():
        assert f"| `{name}` | {found.source} | {found.published} |" in page


def test_the_help_names_every_recipe(capsys: pytest.CaptureFixture[str]) -> None:
    app(["train", "--help"], standalone_mode=False)
    said = capsys.readouterr().out
    assert all(name in said for name in RECIPES)
