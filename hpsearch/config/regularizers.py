"""Terms next to the loss: regularizers, and distillation from a trained model."""

from typing import Annotated, Literal

from pydantic import Field

from hpsearch.config.base import FrozenConfig


class SOSR(FrozenConfig):
    """Second-order similarity: neighbors of an anchor are as far as those of its positive.

    The mean over pairs i of √Σ_j (d(a_i, a_j) − d(p_i, p_j))², where j runs over the k nearest
    neighbors of a_i among the anchors and of p_i among the positives. It is 0 at a collapse, which
    the loss has to prevent. The published code also takes neighbors of a_i among the positives, and
    makes neighborhoods symmetric.

    Source: Tian et al., SOSNet, CVPR 2019.

    Example:
        >>> SOSR().collapse_value(128)
        0.0
    """

    kind: Literal["sosr"] = "sosr"
    neighbors: int = Field(default=8, ge=1, le=4095)
    """k, at most the pairs of a batch less one."""
    weight: float = Field(default=1.0, gt=0, le=100)

    def collapse_value(self, descriptor_dim: int) -> float:
        """Value of the term if all descriptors are equal."""
        return 0.0


class GOR(FrozenConfig):
    """Global orthogonal regularization (spread-out): descriptors of different points are apart.

    M₁² + [M₂ − 1/D]₊, where M₁ and M₂ are the mean and the mean square of the cosines of all pairs
    of different points in a batch, and D is the descriptor's dimension: the moments of random
    directions. The paper draws one negative of each anchor, which has the same expectation.

    Source: Zhang et al., Learning Spread-out Local Feature Descriptors, ICCV 2017.

    Example:
        >>> GOR(weight=0.5).collapse_value(128)
        0.99609375
    """

    kind: Literal["gor"] = "gor"
    weight: float = Field(default=1.0, gt=0, le=100)

    def collapse_value(self, descriptor_dim: int) -> float:
        """Value of the term if all descriptors are equal and not 0."""
        return self.weight * (2 - 1 / descriptor_dim)


class NormDifference(FrozenConfig):
    """HyNet's regularizer: mean of (‖a_i‖ − ‖p_i‖)² over pairs, before division by the norm.

    Source: Tian et al., NeurIPS 2020.
    """

    kind: Literal["norm_difference"] = "norm_difference"
    weight: float = Field(default=0.1, gt=0, le=100)

    def collapse_value(self, descriptor_dim: int) -> float:
        """Value of the term if all descriptors are equal."""
        return 0.0


Regularizer = Annotated[SOSR | GOR | NormDifference, Field(discriminator="kind")]


class Distillation(FrozenConfig):
    """Term by which the cosines between the patches of a batch become those of a trained model.

    The mean of (s_jk − t_jk)² over all pairs of patches of a call, where s and t are the cosines
    of the descriptors of the model in training and of the teacher. The dimensions of the two may
    differ. The reported loss is without this term, so that its collapse value is known.

    Source: Park et al., Relational Knowledge Distillation, CVPR 2019, with cosines of pairs.

    Example:
        >>> Distillation(model="teacher", weight=2.0).weight
        2.0
    """

    model: str = Field(min_length=1)
    """Folder of the teacher, readable on every worker; of a registered model, what ``mlflow
    artifacts download --artifact-uri models:/NAME@champion --dst-path FOLDER`` writes."""
    sha256: str | None = Field(default=None, pattern="^[0-9a-f]{64}$")
    """Expected SHA-256 of the teacher's weights; set it if the folder may change."""
    weight: float = Field(default=1.0, gt=0, le=1000)
