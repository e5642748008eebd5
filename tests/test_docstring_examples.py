"""Examples in docstrings of the science parts, run as doctests."""

import doctest
import importlib
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "hpsearch"
FOLDERS = (".", "config", "data", "models", "losses", "evaluation", "training", "reporting")

USED_BY_USERS = {
    "config.losses": {"BatchHard", "HardNet"},
    "config.networks": {"L2Net"},
    "config.optimizers": {"SGD", "Adam", "StepDecay", "Cosine", "ComputeConfig"},
    "config.sampling": {"PKSampler", "Stepped", "FixedSteps"},
    "config.trial": {"TrialConfig", "Augmentation"},
    "data.patch_store": {"PatchStore"},
    "data.splits": {"split_for"},
    "evaluation.protocol": {"evaluate"},
    "losses.build": {"build_loss"},
    "models.pipeline": {"Pipeline", "build_descriptor"},
}
"""Names that need an example, by module."""


def modules() -> list[str]:
    """Modules of the folders whose text contains an example."""
    files = [path for folder in FOLDERS for path in (PACKAGE / folder).glob("*.py")]
    return sorted(
        ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts)
        for path in files
        if ">>> " in path.read_text()
    )


@pytest.mark.parametrize("name", modules())
def test_the_examples_of_a_module_give_what_they_show(name):
    result = doctest.testmod(importlib.import_module(name))
    assert result.attempted > 0
    assert result.failed == 0


@pytest.mark.parametrize(("module", "names"), USED_BY_USERS.items())
def test_what_users_meet_has_an_example(module, names):
    found = importlib.import_module(f"hpsearch.{module}")
    assert {name for name in names if ">>> " not in (getattr(found, name).__doc__ or "")} == set()
