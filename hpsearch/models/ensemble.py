"""Ensembles: several pipelines combined into one descriptor.

Each member's descriptors are scaled to unit length and concatenated; one linear layer computes the
ensemble's descriptor from them. The layer is either their mean or their projection on the principal
directions of training patches. A pair's squared distance between concatenated rows is the mean of
the members' squared distances, and the projection preserves as much of it as its dimension allows.
"""

from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from hpsearch.errors import UserError
from hpsearch.models.descriptors import l2_normalize
from hpsearch.models.pipeline import Compression, Pipeline, describe
from hpsearch.shapes import Float, Num, UInt8

Combine = Literal["mean", "concatenate"]


class Ensemble(nn.Module):
    """Network from raw patches (N, 32, 32) to one descriptor of several pipelines.

    Args:
        members: pipelines from (N, 32, 32) to (N, d); d may differ.
        descriptor_dim: dimension of the ensemble's descriptor.
        unit_norm: True to scale the result to unit length.
    """

    def __init__(
        self, members: Sequence[Pipeline], *, descriptor_dim: int, unit_norm: bool
    ) -> None:
        super().__init__()
        self.members = nn.ModuleList(members)
        width = sum(output_dim(member) for member in members)
        with torch.random.fork_rng(devices=[]):  # weights are replaced later
            self.combine = nn.Linear(width, descriptor_dim)
        self.unit_norm = unit_norm

    def forward(self, patches: Num[Tensor, "n 32 32"]) -> Float[Tensor, "n d"]:
        y = self.combine(self.concat_descriptors(patches))
        return l2_normalize(y) if self.unit_norm else y

    def concat_descriptors(self, patches: Num[Tensor, "n 32 32"]) -> Float[Tensor, "n w"]:
        """Members' unit descriptors, concatenated to one row of unit length."""
        rows = [l2_normalize(member(patches)) for member in self.members]
        return torch.cat(rows, dim=1) * len(rows) ** -0.5


class Projection(NamedTuple):
    """Linear projection: rows times directions, plus an offset."""

    directions: Float[np.ndarray, "d w"]
    offset: Float[np.ndarray, " d"]
    explained_variance: float
    """Explained share of the variance, in (0, 1]."""


def mean_of(members: Sequence[Pipeline]) -> Ensemble:
    """Build an ensemble that averages the members' unit descriptors, scaled to unit length.

    Raises:
        UserError: if their dimensions differ.
    """
    lengths = [output_dim(member) for member in members]
    if len(set(lengths)) > 1:
        shown = ", ".join(map(str, lengths))
        raise UserError(f"descriptors of {shown} numbers have no mean; use --combine concatenate")
    ensemble = Ensemble(members, descriptor_dim=lengths[0], unit_norm=True)
    every = torch.eye(lengths[0]).repeat(1, len(members)) * len(members) ** -0.5
    return _with_projection(ensemble, every, torch.zeros(lengths[0]))


def pca_ensemble(
    members: Sequence[Pipeline], rows: Float[np.ndarray, "n w"], *, descriptor_dim: int
) -> tuple[Ensemble, float]:
    """Build a PCA ensemble; returns it with the explained share of the variance.

    Args:
        members: the pipelines.
        rows: output of ``Ensemble.concat_descriptors`` for training patches.
        descriptor_dim: dimension of the result, at most the rows' width.
    """
    found = principal_directions(rows, descriptor_dim=descriptor_dim)
    ensemble = Ensemble(members, descriptor_dim=descriptor_dim, unit_norm=False)
    directions, offset = (torch.from_numpy(x.astype(np.float32)) for x in found[:2])
    return _with_projection(ensemble, directions, offset), found.explained_variance


def principal_directions(rows: Float[np.ndarray, "n w"], *, descriptor_dim: int) -> Projection:
    """Principal component analysis by the covariance, in float64.

    Raises:
        UserError: if ``descriptor_dim`` exceeds the row length or the number of rows.
    """
    if not descriptor_dim <= rows.shape[1]:
        raise UserError(
            f"{rows.shape[1]} numbers cannot be projected on {descriptor_dim}; lower the number of "
            "dimensions"
        )
    if len(rows) <= descriptor_dim:
        raise UserError(
            f"{len(rows)} training patches cannot determine {descriptor_dim} directions; "
            "use more data"
        )
    wide = rows.astype(np.float64)
    mean = wide.mean(axis=0)
    covariance = np.cov(wide, rowvar=False)
    variance, vectors = np.linalg.eigh(covariance)  # eigenvalues ascend
    directions = vectors[:, ::-1][:, :descriptor_dim].T
    # The sign of an eigenvector is arbitrary: without a rule it could depend on the library.
    directions *= np.sign(directions[np.arange(descriptor_dim), np.abs(directions).argmax(axis=1)])[
        :, None
    ]
    kept = float(variance[::-1][:descriptor_dim].sum() / variance.sum())
    return Projection(directions, -directions @ mean, kept)


def compressed(
    pipeline: Pipeline,
    patches: UInt8[np.ndarray, "n 32 32"],
    *,
    descriptor_dim: int,
    device: torch.device | str = "cpu",
) -> Pipeline:
    """Pipeline with a compression that is fitted to its descriptors of training patches.

    Args:
        pipeline: pipeline without a compression, on ``device``.
        patches: training patches, more than ``descriptor_dim``.
        descriptor_dim: numbers in a compressed descriptor.
        device: device of the pipeline.

    Raises:
        UserError: if ``descriptor_dim`` exceeds the descriptor's, or there are too few patches.
    """
    rows = torch.from_numpy(describe(pipeline, patches, device=device))
    found = principal_directions(l2_normalize(rows).numpy(), descriptor_dim=descriptor_dim)
    projection = Compression(rows.shape[1], descriptor_dim)
    with torch.no_grad():
        projection.project.weight.copy_(torch.from_numpy(found.directions.copy()))
        projection.project.bias.copy_(torch.from_numpy(found.offset))
    return Pipeline(
        denoiser=pipeline.denoiser,
        descriptor=pipeline.descriptor,
        compression=projection.to(device),
    ).eval()


def output_dim(member: nn.Module) -> int:
    """Dimension of a pipeline's descriptor."""
    with torch.no_grad():
        return member.eval()(torch.zeros(1, 32, 32)).shape[1]


def _with_projection(
    ensemble: Ensemble, directions: Float[Tensor, "d w"], offset: Float[Tensor, " d"]
) -> Ensemble:
    with torch.no_grad():
        ensemble.combine.weight.copy_(directions)
        ensemble.combine.bias.copy_(offset)
    return ensemble.eval()
