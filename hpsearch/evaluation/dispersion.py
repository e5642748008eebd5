"""Whether descriptors depend on the patch at all: the guard of every objective.

A constant encoder has retrieval mAP 1.0 by the official rules, so scores alone do not show
collapse, nor does the loss alone.
"""

import torch

from hpsearch.evaluation.descriptors import Bank
from hpsearch.evaluation.scores import Dispersion

SAMPLE = 4096
"""Points looked at, evenly spaced over the whole set."""


def dispersion(bank: Bank) -> Dispersion:
    """Spread of descriptors between points.

    - ``relative``: mean distance between the reference descriptors of different points, divided by
      their mean norm; about 1.41 for random unit vectors, 0 for a constant.
    - ``resultant``: length of the mean of the unit-normalised reference descriptors; 1 for a
      constant.
    - ``contrast``: mean distance to another point's views, divided by the mean distance to the
      other views of the same point; 1 if the patch does not matter, and for a constant.

    Each point is compared with the one half the set away. Zero-length descriptors count as equal to
    any other direction in ``resultant``.
    """
    points = len(bank.table)
    chosen = torch.arange(0, points, max(points // SAMPLE, 1), device=bank.table.device)
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
        relative=_ratio(apart, norm.mean(), otherwise=0.0),
        resultant=float(unit.mean(dim=0).norm() + zero),
        contrast=_ratio(
            negative, positive, otherwise=1.0 if float(negative) == 0 else float("1e9")
        ),
    )


def _ratio(numerator: torch.Tensor, denominator: torch.Tensor, *, otherwise: float) -> float:
    return float(numerator / denominator) if float(denominator) > 0 else otherwise
