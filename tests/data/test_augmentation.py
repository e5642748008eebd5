import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from hpsearch.config import Augmentation
from hpsearch.data.augmentation import apply_augmentation, sample_params
from hpsearch.rng import rng_for

EVERYTHING = Augmentation(
    turns="patch", crop=0.3, brightness=40, contrast=0.5,
    rotation=10, scale=0.1, anisotropy=0.05, shift=0.1,
)  # fmt: skip


def patches(n, seed=0):
    rng = np.random.default_rng(seed)
    return torch.from_numpy(rng.integers(0, 256, (n, 1, 32, 32))).float()


def changed(settings, labels, x, seed=0):
    (changes,) = sample_params(settings, np.asarray(labels)[None], rng_for(seed, "augment", 0))
    return apply_augmentation(settings, x, changes)


def test_the_default_changes_nothing():
    x = patches(4)
    assert changed(Augmentation(), range(4), x) is x


def test_turns_are_the_eight_of_the_square_and_nothing_else():
    x = patches(1).expand(200, 1, 32, 32)
    got = {t.numpy().tobytes() for t in changed(Augmentation(turns="patch"), range(200), x)}
    square = x[0, 0].numpy()
    eight = {
        np.rot90(p, k).tobytes() for p in (square, square[:, ::-1], square[::-1]) for k in range(4)
    }
    assert got == eight


def test_a_point_turns_alike_in_every_call():
    settings = Augmentation(turns="point")
    labels = np.array([[3, 5, 3, 9], [3, 5, 3, 9], [5, 9, 5, 3]])
    calls = sample_params(settings, labels, rng_for(1, "augment", 0))
    turn = {}
    for call, points in zip(calls, labels, strict=True):
        for t, point in zip(call.turn, points, strict=True):
            assert turn.setdefault(point, t) == t
    many = sample_params(settings, np.arange(999)[None], rng_for(1, "augment", 0))[0].turn
    assert set(many) == set(range(8))


def test_brightness_and_contrast_are_what_was_drawn():
    settings = Augmentation(brightness=20, contrast=0.5)
    x = 100 + patches(3) / 10  # nothing clips
    (changes,) = sample_params(settings, np.arange(3)[None], rng_for(0, "augment", 0))
    y = apply_augmentation(settings, x, changes)
    for i in range(3):
        assert y[i].mean() - x[i].mean() == pytest.approx(changes.shift[i], abs=1e-3)
        assert y[i].std() / x[i].std() == pytest.approx(changes.gain[i], rel=1e-4)
        assert abs(changes.shift[i]) <= 20
        assert abs(np.log(changes.gain[i])) <= 0.5


def test_a_crop_is_a_part_scaled_up():
    """On a plane, bilinear scaling is exact, so the crop can be read off its corners."""
    x, y = torch.meshgrid(torch.arange(32.0) + 0.5, torch.arange(32.0) + 0.5, indexing="xy")
    plane = torch.stack([x, y])[:, None]
    settings = Augmentation(crop=0.4)
    (changes,) = sample_params(settings, np.zeros((1, 2), int), rng_for(2, "augment", 0))
    same = changes._replace(side=changes.side[[0, 0]], corner=changes.corner[[0, 0]])
    got = apply_augmentation(settings, plane, same)[
        :, 0, 8:24, 8:24
    ]  # away from the border's clamping
    side, (left, top) = 32 * same.side[0], same.corner[0]
    assert 0.6 <= same.side[0] <= 1
    expected_x = (32 - side) * left + side * x[8:24, 8:24] / 32
    expected_y = (32 - side) * top + side * y[8:24, 8:24] / 32
    torch.testing.assert_close(got[0], expected_x.float(), atol=1e-3, rtol=0)
    torch.testing.assert_close(got[1], expected_y.float(), atol=1e-3, rtol=0)


@given(st.integers(0, 1000))
def test_patches_stay_in_range_and_follow_the_stream(seed):
    x = patches(6, seed)
    y = changed(EVERYTHING, range(6), x, seed)
    assert y.shape == x.shape
    assert 0 <= y.min() <= y.max() <= 255
    torch.testing.assert_close(y, changed(EVERYTHING, range(6), x, seed), atol=0, rtol=0)


def test_a_disturbed_patch_is_what_its_affine_map_shows():
    """On a plane, bilinear sampling is exact."""
    y, x = np.mgrid[:32, :32] + 0.5
    plane = torch.from_numpy(np.stack([x, y])[:, None]).float()
    settings = Augmentation(rotation=4, scale=0.05, anisotropy=0.03, shift=0.05)
    (drawn,) = sample_params(settings, np.zeros((1, 2), int), rng_for(3, "augment", 0))
    same = drawn._replace(jitter=drawn.jitter[[0, 0]])
    seen = apply_augmentation(settings, plane, same)[:, 0, 8:24, 8:24].numpy()
    unit = np.stack([x / 16 - 1, y / 16 - 1, np.ones_like(x)])[:, 8:24, 8:24]
    there = np.einsum("ij,jyx->iyx", same.jitter[0], unit)
    np.testing.assert_allclose(seen, 16 * (there[:2] + 1), atol=2e-3)


def test_disturbances_are_as_large_as_was_set():
    settings = Augmentation(rotation=9, scale=0.08, shift=0.1)
    (drawn,) = sample_params(settings, np.arange(20_000)[None], rng_for(0, "augment", 0))
    linear, shift = drawn.jitter[:, :2, :2], drawn.jitter[:, :2, 2]
    angle = np.rad2deg(np.arctan2(linear[:, 1, 0], linear[:, 0, 0]))
    size = np.log(np.linalg.det(linear)) / 2
    assert angle.std() == pytest.approx(9, rel=0.03)
    assert size.std() == pytest.approx(0.08, rel=0.03)
    assert shift.std(0) == pytest.approx([0.1, 0.1], rel=0.03)
    assert np.abs([angle.mean(), *shift.mean(0), size.mean()]).max() < 0.2


def test_a_shear_keeps_areas_and_is_as_large_as_was_set():
    (drawn,) = sample_params(
        Augmentation(shear=0.1), np.arange(20_000)[None], rng_for(0, "augment", 0)
    )
    linear = drawn.jitter[:, :2, :2]
    # A shear along any axis is the identity plus a matrix of rank 1 whose square is 0.
    rest = linear - np.eye(2)
    assert np.abs(rest @ rest).max() < 1e-12
    assert np.linalg.det(linear) == pytest.approx(1)
    assert np.linalg.norm(rest, axis=(1, 2)).std() > 0
    assert np.sqrt((rest**2).sum((1, 2)).mean()) == pytest.approx(0.1, rel=0.03)
    axis = np.degrees(np.arctan2(rest[:, 1, 1] - rest[:, 0, 0], rest[:, 0, 1] + rest[:, 1, 0]))
    assert np.histogram(axis, bins=4, range=(-180, 180))[0].min() > 4500, "along every axis"


def test_a_shear_leaves_the_other_deformations_alone():
    """Patches that were rotated and shifted alike before stay so."""
    plain, labels = Augmentation(rotation=5, shift=0.1), np.arange(50)[None]
    (one,) = sample_params(plain, labels, rng_for(1, "augment", 0))
    (two,) = sample_params(
        plain.model_copy(update={"shear": 0.1}), labels, rng_for(1, "augment", 0)
    )
    assert np.array_equal(one.jitter[:, :2, 2], two.jitter[:, :2, 2])
    shear = np.linalg.inv(one.jitter[:, :2, :2]) @ two.jitter[:, :2, :2]
    assert np.linalg.det(shear) == pytest.approx(1)
    assert np.abs(np.trace(shear, axis1=1, axis2=2) - 2).max() < 1e-9


def test_disturbances_leave_the_other_draws_alone():
    """What was trained without them is trained alike."""
    plain = Augmentation(turns="point", crop=0.3, brightness=40, contrast=0.5)
    labels = np.arange(12).reshape(2, 6)
    first = sample_params(plain, labels, rng_for(1, "augment", 0))
    second = sample_params(
        plain.model_copy(update={"rotation": 5.0}), labels, rng_for(1, "augment", 0)
    )
    for a, b in zip(first, second, strict=True):
        assert all(np.array_equal(x, y) for x, y in zip(a[:-1], b[:-1], strict=True))
        assert np.array_equal(a.jitter, np.broadcast_to(np.eye(3), (6, 3, 3)))
