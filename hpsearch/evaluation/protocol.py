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
from hpsearch.shapes import Num

MAX_DISPERSION_POINTS = 4096
"""Number of sampled points, evenly spaced over the whole set."""


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
    points = len(descriptors.table)
    chosen = torch.arange(
        0, points, max(points // MAX_DISPERSION_POINTS, 1), device=descriptors.table.device
    )
    views = descriptors.table[chosen].double()
    ref = views[:, 0]
    other = views.roll(max(len(chosen) // 2, 1), dims=0)
    norm = ref.norm(dim=1)
    apart = (ref - other[:, 0]).norm(dim=1).mean()
    negative = (ref[:, None] - other[:, 1:]).norm(dim=2).mean()
    positive = (ref[:, None] - views[:, 1:]).norm(dim=2).mean()
    unit = ref / norm.clamp_min(torch.finfo(torch.float64).tiny)[:, None]
    zero = (norm == 0).double().mean()
    return Dispersion(
        relative=_safe_ratio(apart, norm.mean(), otherwise=0.0),
        resultant=float(unit.mean(dim=0).norm() + zero),
        contrast=_safe_ratio(
            negative, positive, otherwise=1.0 if float(negative) == 0 else float("1e9")
        ),
    )


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
