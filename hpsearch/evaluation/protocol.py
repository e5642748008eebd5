"""The three tasks together: descriptors in, scores out."""

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
"""Points looked at, evenly spaced over the whole set."""


def point_dispersion(bank: DescriptorTable) -> Dispersion:
    """Spread of descriptors between points.

    - ``relative``: mean distance between the reference descriptors of different points, divided by
      their mean norm; about 1.41 for random unit vectors, 0 for a constant.
    - ``resultant``: length of the mean of the unit-normalized reference descriptors; 1 for a
      constant.
    - ``contrast``: mean distance to another point's views, divided by the mean distance to the
      other views of the same point; 1 if the patch does not matter, and for a constant.

    Each point is compared with the one half the set away. Zero-length descriptors count as equal to
    any other direction in ``resultant``.
    """
    points = len(bank.table)
    chosen = torch.arange(
        0, points, max(points // MAX_DISPERSION_POINTS, 1), device=bank.table.device
    )
    views = bank.table[chosen].double()
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
"""Bytes of working memory for one block of distances; larger ones are no faster on a CPU."""


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
    """Verification, matching and retrieval by the official protocol, equal distances included.

    Descriptors are taken as float32, as the official tool does. Distances are those of SciPy:
    float32 for verification, float64 for matching and retrieval. Matrix products only pre-select;
    whatever lies within their error bound of a decision is computed again, so that equal distances
    are exactly equal and keep the order of the list.

    Args:
        descriptors: by name, or in the order of ``tasks.names``; view order ref, e1..e5, h1..h5,
            t1..t5; any float or integer type; the number of points may differ between sequences.
        memory: bytes for a block of distances; the peak is a few blocks beside two copies of the
            descriptors.

    Raises:
        UserError: naming sequence, row and view: NaN or infinity, unequal dimension, missing views;
            or tasks that point outside the descriptors.

    Source: Balntas et al., HPatches, CVPR 2017; hpatches-benchmark, Python evaluation.
    """
    bank = DescriptorTable.from_arrays(descriptors, names=tasks.names, device=device)
    tasks.check(bank.counts)
    return Scores(
        names=tasks.names,
        points=bank.counts,
        verified=verify(bank, tasks, norm=norm),
        matched=match(bank, norm=norm, memory=memory),
        retrieved=retrieve(bank, tasks, norm=norm, memory=memory),
        dispersion=point_dispersion(bank),
    )
