"""The spaces we ship: whatever they draw can be built and trained, and grids are what they say."""

from functools import cache
from pathlib import Path

import numpy as np
import optuna
import pytest
import torch
from torch import nn

from hpsearch.config import (
    Denoised,
    Denoiser,
    Descriptor,
    DnCNN,
    DnCNNTransfer,
    L2Net,
    Stepped,
    TrialConfig,
)
from hpsearch.data.samplers import Batch, sample
from hpsearch.losses import build_loss
from hpsearch.models.pipeline import build_denoiser, build_descriptor
from hpsearch.search.search import Search
from hpsearch.search.space_file import load_search
from hpsearch.training.batch_schedule import current_sampler
from hpsearch.training.optimization import build_optimizer, lr_factor

FOLDER = Path(__file__).parents[2] / "search_spaces"
SPACES = sorted(FOLDER.glob("*.py"))
POINTS = np.repeat(np.arange(4), 300)
"""Sequence of each training point of the embedded set ``mini``, on which every space runs."""
DRAWS = 200


def drawn(search: Search, count: int, *, seed: int = 0) -> list[TrialConfig]:
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=seed))
    return [search.suggest_config(study.ask()) for _ in range(count)]


@cache
def descriptor(settings: Descriptor) -> nn.Module:
    return build_descriptor(settings, seed=0)


@cache
def denoiser(settings: Denoiser) -> nn.Module:
    return build_denoiser(settings, seed=0)


def batches(config: TrialConfig) -> list[Batch]:
    """The first, a middle, and a late one; each stage of a stepped schedule."""
    stages = range(len(config.sampler.stages) if isinstance(config.sampler, Stepped) else 1)
    rng = np.random.default_rng(0)
    return [
        sample(current_sampler(config.sampler, share=s, stage=i), POINTS, rng, progress=s)
        for i in stages
        for s in (0.0, 0.5, 0.99)
    ]


def build(config: TrialConfig) -> None:
    shape = config.descriptor.model_copy(update={"dropout": 0.0})  # weights do not depend on it
    network = descriptor(shape)
    build_optimizer(config.optimizer, network.parameters())
    assert 0 <= lr_factor(config.schedule, seen=config.patches // 2, budget=config.patches) <= 1
    if isinstance(config.input, Denoised):
        settings = config.input.denoiser
        build_optimizer(settings.optimizer, denoiser(settings.network).parameters())
        assert settings.batch <= settings.patches
    sizes = [batch.rows.size for batch in batches(config)]
    assert max(sizes) == config.sampler.patches
    assert max(sizes) * 20 <= config.patches, "too few steps to learn anything"


@pytest.mark.parametrize("path", SPACES, ids=lambda path: path.stem)
def test_whatever_is_drawn_can_be_built(path: Path) -> None:
    for config in drawn(load_search(path), DRAWS):
        build(config)


@pytest.mark.parametrize("path", SPACES, ids=lambda path: path.stem)
def test_each_loss_of_a_space_is_finite(path: Path) -> None:
    loss_values = set()
    for config in drawn(load_search(path), DRAWS):
        kinds = (config.loss.kind, config.sampler.kind)
        if kinds in loss_values:
            continue
        loss_values.add(kinds)
        calls = batches(config)[0].rows.shape
        descriptors = torch.randn(*calls, 8, generator=torch.Generator().manual_seed(0))
        if config.descriptor.unit_norm:
            descriptors = nn.functional.normalize(descriptors, dim=-1)
        sampler = current_sampler(config.sampler, share=0.0)
        assert torch.isfinite(build_loss(config.loss, sampler)(descriptors))


@pytest.mark.parametrize("path", SPACES, ids=lambda path: path.stem)
def test_the_points_to_try_first_are_in_the_space(path: Path) -> None:
    load_search(path).validate_space()


@pytest.mark.parametrize(("name", "trials"), [("percentile", 15), ("triplets", 18), ("inputs", 30)])
def test_a_grid_has_every_combination_with_every_seed(name: str, trials: int) -> None:
    search = load_search(FOLDER / f"{name}.py")
    assert search.num_trials() == trials
    assert search.seeds_per_point == 3
    points = [tuple(point.values()) for point in search.planned_points]
    assert len(set(points)) == len(points) == trials // 3


def test_figure_3_varies_q_alone() -> None:
    search = load_search(FOLDER / "percentile.py")
    assert [point["q"] for point in search.planned_points] == [0, 2, 5, 10, 15]
    losses = {config.loss.model_copy(update={"quantile": 0}) for config in drawn(search, 20)}
    assert len(losses) == 1


def test_the_curriculum_is_ten_tough_epochs_and_five_far_ones_of_fifty() -> None:
    search = load_search(FOLDER / "triplets.py")
    sampler = next(
        config.sampler
        for config in drawn(search, 100)
        if config.sampler.model_dump().get("far_from") == 0.9
    )
    assert sampler.model_dump()["tough_until"] == 10 / 50


def test_the_space_of_losses_has_them_all() -> None:
    losses = {config.loss.kind for config in drawn(load_search(FOLDER / "losses.py"), DRAWS)}
    assert len(losses) == 8


def test_a_pretrained_dncnn_joins_the_denoisers(tmp_path: Path) -> None:
    weights, space = tmp_path / "front.pt", tmp_path / "space.py"
    torch.save(build_denoiser(DnCNN(), seed=1).state_dict(), weights)
    text = (FOLDER / "denoisers.py").read_text()
    assert "PRETRAINED: str | None = None" in text
    space.write_text(text.replace("str | None = None", f"str | None = {str(weights)!r}"))
    search = load_search(space)
    search.validate_space()
    configs = drawn(search, 40)
    networks = [c.input.denoiser.network for c in configs if isinstance(c.input, Denoised)]
    transfer = next(network for network in networks if isinstance(network, DnCNNTransfer))
    assert denoiser(transfer)(torch.zeros(1, 1, 32, 32)).shape == (1, 1, 32, 32)


@pytest.mark.parametrize("path", SPACES, ids=lambda path: path.stem)
def test_a_space_stands_on_its_own(path: Path, tmp_path: Path) -> None:
    """Copied elsewhere it still loads: that is how users begin one of theirs."""
    copy = tmp_path / "mine.py"
    copy.write_text(path.read_text())
    assert isinstance(load_search(copy).baseline.descriptor, L2Net)
