"""Ensembles against the plain arithmetic they stand for."""

import numpy as np
import pytest
import torch

from hpsearch.config import L2Net
from hpsearch.errors import UserError
from hpsearch.models import Pipeline, build_descriptor, describe
from hpsearch.models.ensemble import Ensemble, mean_of, pca_ensemble, principal_directions
from hpsearch.models.serialization import EnsembleSpec, PipelineSpec, load_pipeline, save_pipeline

SETTINGS = (L2Net(width=0.125, input_norm=True), L2Net(width=0.125, unit_norm=True))


def members(settings=SETTINGS):
    return [
        Pipeline(denoiser=None, descriptor=build_descriptor(one, seed=i)).eval()
        for i, one in enumerate(settings)
    ]


def patches(number):
    return np.random.default_rng(number).integers(256, size=(number, 32, 32), dtype=np.uint8)


def unit(rows):
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def squared_distances(rows):
    return ((rows[:, None] - rows[None]) ** 2).sum(axis=2)


def test_a_mean_is_the_unit_mean_of_unit_descriptors():
    own, x = members(), patches(5)
    expected = unit(sum(unit(describe(member, x)) for member in own))
    np.testing.assert_allclose(describe(mean_of(own), x), expected, atol=1e-5)


def test_side_by_side_squared_distances_are_the_means_of_the_members():
    own, x = members(), patches(6)
    joined = Ensemble(own, descriptor_dim=2, unit_norm=False)
    with torch.no_grad():
        rows = joined.concat_descriptors(torch.from_numpy(x)).numpy()
    each = [squared_distances(unit(describe(member, x))) for member in own]
    np.testing.assert_allclose(squared_distances(rows), np.mean(each, axis=0), atol=1e-5)


def test_a_projection_on_all_that_varies_keeps_every_distance():
    own, x = members(), patches(300)
    joined = Ensemble(own, descriptor_dim=2, unit_norm=False)
    with torch.no_grad():
        rows = joined.concat_descriptors(torch.from_numpy(x)).numpy()
    ensemble, kept = pca_ensemble(own, rows, descriptor_dim=256)
    assert kept == pytest.approx(1)
    found = describe(ensemble, x[:20])
    np.testing.assert_allclose(
        squared_distances(found), squared_distances(rows[:20]), rtol=1e-3, atol=1e-5
    )


def test_principal_directions_are_those_of_the_singular_value_decomposition():
    rng = np.random.default_rng(0)
    rows = rng.standard_normal((200, 6)) @ rng.standard_normal((6, 6)) + 3
    found = principal_directions(rows, descriptor_dim=2)
    centered = rows - rows.mean(axis=0)
    _, strengths, expected = np.linalg.svd(centered, full_matrices=False)
    np.testing.assert_allclose(np.abs(found.directions), np.abs(expected[:2]), atol=1e-9)
    assert found.explained_variance == pytest.approx(
        (strengths[:2] ** 2).sum() / (strengths**2).sum()
    )
    projection = rows @ found.directions.T + found.offset
    np.testing.assert_allclose(projection.mean(axis=0), 0, atol=1e-9)


def test_the_signs_of_directions_are_fixed():
    rows = np.random.default_rng(0).standard_normal((50, 4))
    same = principal_directions(rows[::-1], descriptor_dim=4)
    np.testing.assert_allclose(
        same.directions, principal_directions(rows, descriptor_dim=4).directions, atol=1e-9
    )


def test_an_ensemble_is_saved_and_loaded(tmp_path):
    recipe = EnsembleSpec(
        members=tuple(PipelineSpec(denoiser=None, descriptor=one) for one in SETTINGS),
        combine="mean",
        descriptor_dim=128,
    )
    ensemble, x = mean_of(members()), patches(3)
    save_pipeline(ensemble, recipe, tmp_path)
    np.testing.assert_allclose(
        describe(load_pipeline(tmp_path), x), describe(ensemble, x), atol=1e-6
    )


def test_what_cannot_be_combined_is_refused():
    different = (SETTINGS[0], L2Net(width=0.125, descriptor_dim=64))
    with pytest.raises(UserError, match="128, 64 numbers have no mean"):
        mean_of(members(different))
    rows = np.zeros((300, 256))
    with pytest.raises(UserError, match="cannot be projected on 257"):
        principal_directions(rows, descriptor_dim=257)
    with pytest.raises(UserError, match=r"100 training patches .* 128 directions"):
        principal_directions(rows[:100], descriptor_dim=128)
