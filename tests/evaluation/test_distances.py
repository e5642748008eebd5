import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.spatial import distance as scipy_distance

from hpsearch.evaluation.descriptor_table import DescriptorTable
from hpsearch.evaluation.distances import CenteredCoordinates, indexed_distance
from hpsearch.evaluation.neighbor_screens import HalfPrecisionScreen, ProductScreen
from hpsearch.evaluation.verification import _pair_distances

CDIST = {"l2": "euclidean", "l1": "cityblock"}


@st.composite
def tables(draw):
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    shape = (draw(st.integers(1, 30)), draw(st.integers(1, 200)))
    values = rng.standard_normal(shape) * draw(st.sampled_from([1e-20, 1e-3, 1.0, 1e4]))
    values += draw(st.sampled_from([0.0, 1.0, 1e3]))
    if draw(st.booleans()):
        values = np.round(values)
    if draw(st.booleans()):
        values[:] = values[0]
    if draw(st.booleans()):  # a far outlier; whole numbers stay whole
        outlier = rng.integers(len(values)), rng.integers(values.shape[1])
        values[outlier] = draw(st.sampled_from([4096.0, 2.0**24 + 2, 4e18, 1e38, -3e38]))
    return values.astype(np.float32)


@given(tables(), st.sampled_from(["l2", "l1"]))
def test_distances_are_scipys_to_the_last_bit(table, norm):
    points = torch.from_numpy(table)
    row, column = np.indices((len(table), len(table))).reshape(2, -1)
    found = indexed_distance(
        points, torch.from_numpy(row), points, torch.from_numpy(column), norm=norm
    )
    expected = scipy_distance.cdist(table, table, CDIST[norm])
    assert np.array_equal(found.numpy().reshape(expected.shape), expected)


@pytest.mark.parametrize(("norm", "name"), [("l2", "euclidean"), ("l1", "cityblock")])
def test_verification_distances_are_scipys_in_float32(norm, name):
    table = np.random.default_rng(0).standard_normal((40, 16, 128)).astype(np.float32)
    bank = DescriptorTable.from_arrays([table], names=["v_a"], device="cpu")
    rows = table.reshape(-1, 128)
    first, second = np.random.default_rng(1).integers(len(rows), size=(2, 3000))
    found = _pair_distances(bank, first, second, norm=norm)
    scipy_pair = getattr(scipy_distance, name)
    expected = np.array([scipy_pair(rows[i], rows[j]) for i, j in zip(first, second, strict=True)])
    # BLAS may round the last bit of the L2 norm otherwise
    allowed = 0 if norm == "l1" else 1
    assert (
        np.abs(found.view(np.int32) - expected.astype(np.float32).view(np.int32)).max() <= allowed
    )
    assert (found == expected).mean() > 0.99


@given(tables(), st.sampled_from(["l2", "l1"]), st.sampled_from([torch.float32, torch.float64]))
def test_approximations_stay_within_their_tolerance(table, norm, dtype):
    points = torch.from_numpy(table)
    frame = CenteredCoordinates.fit(points, norm=norm, dtype=dtype)
    transformed = frame.transform(points)
    weight = frame.squared_norms(transformed)
    block = transformed.new_empty((len(transformed), len(transformed)))
    found = frame.approximate(transformed, transformed, weight=weight, out=block).double()
    exact = torch.from_numpy(
        scipy_distance.cdist(table, table, "sqeuclidean" if norm == "l2" else "cityblock")
    )
    power = 2 if norm == "l2" else 1
    exact = exact * frame.scale**power
    if norm == "l2":
        centered = (points.double() - frame.center.double()) * frame.scale
        exact = exact - centered.square().sum(dim=1)[:, None]
    tolerance = frame.tolerance(weight, weight.max(), dimension=table.shape[1], exact=frame.exact)
    slack = 1e-13 * (1 + exact.abs() + weight)  # of the reference itself
    assert ((found - exact).abs() <= tolerance.double()[:, None] + slack).all()
    assert not frame.exact or (found == exact).all()


def test_only_small_whole_numbers_are_exact():
    """Squares of whole numbers are promised exact only below 2^24 after summing."""
    grid = torch.arange(12.0).reshape(4, 3)
    for table, exact in (
        (grid, True),
        (grid * 16, True),
        (grid * 1000, False),
        (grid * 4e17, False),
        (grid + 0.5, False),
        (grid * 0 + 0.3, False),
        (torch.tensor([[0.0], [1e-45]]), False),
    ):
        frame = CenteredCoordinates.fit(table, norm="l2", dtype=torch.float32)
        assert frame.exact is exact, table
    frame = CenteredCoordinates.fit(grid * 1000, norm="l2", dtype=torch.float64)
    assert frame.exact


@pytest.mark.parametrize("pairs", [1, 2, 512, 513])
def test_the_last_pair_of_a_step_is_summed_like_the_others(pairs):
    """NumPy sums a single column in another order than several."""
    table = np.random.default_rng(0).standard_normal((30, 777)).astype(np.float32)
    row, column = np.random.default_rng(1).integers(30, size=(2, pairs))
    points = torch.from_numpy(table)
    found = indexed_distance(
        points, torch.from_numpy(row), points, torch.from_numpy(column), norm="l2"
    )
    expected = scipy_distance.cdist(table, table)[row, column]
    assert np.array_equal(found.numpy(), expected)


@given(tables(), st.sampled_from(["l2", "l1"]), st.booleans())
def test_every_screen_keeps_the_nearest(table, norm, half):
    points = torch.from_numpy(table)
    frame = CenteredCoordinates.fit(points, norm=norm, dtype=torch.float32)
    if half and (norm == "l1" or frame.exact):
        return
    # several views of different size in one frame
    reference, targets = points[::2].contiguous(), points[len(points) // 3 :].contiguous()
    screen = (HalfPrecisionScreen if half else ProductScreen)(reference, frame)
    row, column = screen.prepare(targets, rows=len(reference))(slice(0, len(reference)))
    distance = scipy_distance.cdist(reference.numpy(), targets.numpy(), CDIST[norm])
    kept = set(zip(row.tolist(), column.tolist(), strict=True))
    for i, own in enumerate(distance):
        nearest = np.flatnonzero(own == own.min())
        expected = nearest[:1] if frame.exact else nearest  # exact: only the first in case of ties
        assert {(i, int(j)) for j in expected} <= kept
