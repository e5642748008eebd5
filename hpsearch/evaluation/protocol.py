"""Evaluation by the HPatches protocol: verification, matching and retrieval."""

from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from hpsearch.evaluation.descriptor_table import DescriptorTable
from hpsearch.evaluation.matching import match
from hpsearch.evaluation.retrieval import retrieve
from hpsearch.evaluation.scores import Dispersion, Scores
from hpsearch.evaluation.tasks import Tasks
from hpsearch.evaluation.verification import verify
from hpsearch.patch_views import VIEWS
from hpsearch.shapes import Float, Num

MAX_DISPERSION_POINTS = 4096
"""Number of sampled points, evenly spaced over the whole set; less than twice as many are used."""

DISPERSION_CHUNK = 16
"""Points per step; their views and distances take half a megabyte at 128 dimensions."""


def point_dispersion(descriptors: DescriptorTable) -> Dispersion:
    """Spread of descriptors between points.

    - ``relative``: mean distance between the reference descriptors of different points, divided by
      their mean norm; about 1.41 for random unit vectors, 0 for a constant.
    - ``resultant``: length of the mean of the unit-normalized reference descriptors; 1 for a
      constant.
    - ``contrast``: mean distance to another point's views, divided by the mean distance to the
      other views of the same point; 1 if the descriptor is independent of the patch, or constant.

    Each point is compared with the one half of the set away. Zero-length descriptors count as equal
    to any direction in ``resultant``.
    """
    table = descriptors.table
    step = max(len(table) // MAX_DISPERSION_POINTS, 1)
    reference = table[::step, 0].double()
    norm = reference.norm(dim=1)
    apart, *others = _view_distances(table[::step])
    negative, positive = (distances.mean() for distances in others)
    zero = (norm == 0).double().mean()
    unit = reference.div_(norm.clamp_min(torch.finfo(torch.float64).tiny)[:, None])
    return Dispersion(
        relative=_safe_ratio(apart.mean(), norm.mean(), otherwise=0.0),
        resultant=float(unit.mean(dim=0).norm() + zero),
        contrast=_safe_ratio(
            negative, positive, otherwise=1.0 if float(negative) == 0 else float("1e9")
        ),
    )


def _view_distances(
    views: Float[Tensor, "n 16 d"],
) -> tuple[Float[Tensor, " n"], Float[Tensor, "n 15"], Float[Tensor, "n 15"]]:
    """Distances of each reference to another point's, to its other views, and to its own.

    A few points at a time, so that the float64 copies stay in a core's cache.
    """
    points, half = len(views), max(len(views) // 2, 1)
    apart, negative, positive = (
        views.new_empty(shape, dtype=torch.float64)
        for shape in ((points,), (points, VIEWS - 1), (points, VIEWS - 1))
    )
    for start in range(0, points, DISPERSION_CHUNK):
        index = torch.arange(start, min(start + DISPERSION_CHUNK, points), device=views.device)
        own, other = views[index].double(), views[(index - half) % points].double()
        reference = own[:, :1]
        distances = other.sub_(reference).norm(dim=2)
        apart[index], negative[index] = distances[:, 0], distances[:, 1:]
        positive[index] = own[:, 1:].sub(reference).norm(dim=2)
    return apart, negative, positive


def _safe_ratio(numerator: torch.Tensor, denominator: torch.Tensor, *, otherwise: float) -> float:
    return float(numerator / denominator) if float(denominator) > 0 else otherwise


DEFAULT_BLOCK_BYTES = 2**25
"""Default bytes of working memory for a block of distances; more is not faster on a CPU."""


@torch.inference_mode()
def evaluate(
    descriptors: Mapping[str, Num[np.ndarray | Tensor, "n 16 d"]]
    | Sequence[Num[np.ndarray | Tensor, "n 16 d"]],
    tasks: Tasks,
    *,
    norm: Literal["l2", "l1"] = "l2",
    device: str | torch.device = "cpu",
    memory: int = DEFAULT_BLOCK_BYTES,
) -> Scores:
    """Verification, matching and retrieval by the official protocol, including ties.

    Descriptors are converted to float32, as in the official tool. Distances are those of SciPy:
    float32 for verification, float64 for matching and retrieval. Matrix products only pre-select;
    distances within their error bound of a decision are recomputed, so that equal distances are
    exactly equal and keep the order of the list.

    Args:
        descriptors: by name, or in the order of ``tasks.names``; view order ref, e1..e5, h1..h5,
            t1..t5; any float or integer type; the number of points may differ between sequences.
        tasks: task lists.
        norm: norm of the distance.
        device: device of the computation.
        memory: bytes for a block of distances; the peak is a few blocks plus two copies of the
            descriptors.

    Raises:
        UserError: naming sequence, row and view: NaN or infinity, unequal dimension, missing views;
            or tasks with indices outside the descriptors.

    Example:
        >>> from hpsearch.evaluation.tasks import TaskSizes, sample_tasks
        >>> sizes = TaskSizes(pairs=20, queries=4, distractors=8)
        >>> tasks = sample_tasks(["i_a", "v_b"], [10, 10], seed=0, sizes=sizes)
        >>> rng = np.random.default_rng(0)
        >>> scores = evaluate([rng.random((10, 16, 8)) for _ in tasks.names], tasks)
        >>> 0 <= scores.mean <= 1
        True

    Source: Balntas et al., HPatches, CVPR 2017; hpatches-benchmark, Python evaluation.
    """
    table = DescriptorTable.from_arrays(descriptors, names=tasks.names, device=device)
    tasks.check(table.counts)
    return Scores(
        names=tasks.names,
        points=table.counts,
        verified=verify(table, tasks, norm=norm),
        matched=match(table, norm=norm, memory=memory),
        retrieved=retrieve(table, tasks, norm=norm, memory=memory),
        dispersion=point_dispersion(table),
    )
