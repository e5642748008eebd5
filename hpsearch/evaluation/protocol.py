"""The three tasks together: descriptors in, scores out."""

from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from hpsearch.evaluation.descriptors import Bank
from hpsearch.evaluation.dispersion import dispersion
from hpsearch.evaluation.matching import match
from hpsearch.evaluation.retrieval import retrieve
from hpsearch.evaluation.scores import Scores
from hpsearch.evaluation.tasks import Tasks
from hpsearch.evaluation.verification import verify
from hpsearch.shapes import Num

BLOCK = 2**25
"""Bytes of working memory for one block of distances; larger ones are no faster on a CPU."""


@torch.inference_mode()
def evaluate(
    descriptors: Mapping[str, Num[np.ndarray | Tensor, "n 16 d"]]
    | Sequence[Num[np.ndarray | Tensor, "n 16 d"]],
    tasks: Tasks,
    *,
    norm: Literal["l2", "l1"] = "l2",
    device: str | torch.device = "cpu",
    memory: int = BLOCK,
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
    bank = Bank.of(descriptors, names=tasks.names, device=device)
    tasks.check(bank.counts)
    return Scores(
        names=tasks.names,
        points=bank.counts,
        verified=verify(bank, tasks, norm=norm),
        matched=match(bank, norm=norm, memory=memory),
        retrieved=retrieve(bank, tasks, norm=norm, memory=memory),
        dispersion=dispersion(bank),
    )
