"""The user's own augmentation and metrics in a training, and the rehearsal of all own objects."""

import math
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from hpsearch.config import (
    Custom,
    CustomAugmentation,
    CustomLoss,
    CustomMetric,
    CustomNetwork,
    CustomSampler,
    Sampler,
    TrialConfig,
    sampling_stages,
)
from hpsearch.config.custom import custom_parts
from hpsearch.config.custom_import import build_object, own_code
from hpsearch.data.samplers import sample
from hpsearch.errors import UserError
from hpsearch.losses import CALLS_OF_FORM, build_loss, collapse_value
from hpsearch.models import Pipeline, build_descriptor
from hpsearch.models.serialization import save_program
from hpsearch.patch_views import VIEWS
from hpsearch.shapes import Float, Int
from hpsearch.training.validation import EvaluationSet, PatchPairSet

Calls = list[Float[Tensor, "n 1 32 32"]]
Change = Callable[[Calls], Calls]
"""Function that changes the patches of a step."""
REHEARSED_POINTS, REHEARSED_SEQUENCES = 4096, 16
"""Size of the made-up training set on which a sampler is rehearsed."""


def augmented(
    settings: CustomAugmentation,
    calls: Calls,
    *,
    points: Int[np.ndarray, "calls n"],
    rng: np.random.Generator,
) -> Calls:
    """Patches of a step after the user's own augmentation.

    Raises:
        UserError: if it fails, or returns another shape than it is given.
    """
    patches = torch.stack(calls)
    with own_code(settings, "augmentation"):
        found = build_object(settings, role="augmentation")(patches, points, rng)
    if not isinstance(found, Tensor) or found.shape != patches.shape:
        got = tuple(found.shape) if isinstance(found, Tensor) else type(found).__name__
        raise UserError(
            f"augmentation {settings.object} must return a tensor of shape "
            f"{tuple(patches.shape)}, as it is given, not {got}; correct it",
            code="custom-wrong-shape",
        )
    return list(found.to(patches.device, patches.dtype))


def own_metrics(
    metrics: Sequence[CustomMetric],
    validation: EvaluationSet | PatchPairSet,
    descriptors: Float[np.ndarray, "rows d"],
) -> dict[str, float]:
    """Values of the user's own metrics, by name in reports.

    Raises:
        UserError: if one fails, or is not a finite number.
    """
    if not metrics:
        return {}
    patches = validation.patches
    if isinstance(validation, EvaluationSet):
        points = np.repeat(validation.points, VIEWS)
    else:
        points = patches.points_of(validation.rows)
    sequences = patches.sequence_of[points]
    return {
        f"val/custom/{one.label}": _metric_value(one, descriptors, points, sequences)
        for one in metrics
    }


def _metric_value(
    settings: CustomMetric, descriptors: np.ndarray, points: np.ndarray, sequences: np.ndarray
) -> float:
    with own_code(settings, "metric"):
        found = float(build_object(settings, role="metric")(descriptors, points, sequences))
    if not math.isfinite(found):
        raise UserError(
            f"metric {settings.object} returned {found}; return a finite number",
            code="custom-not-finite",
        )
    return found


def rehearse(configs: Sequence[TrialConfig]) -> None:
    """Build and call every own object of some trials once, on made-up data.

    Raises:
        UserError: naming the first object that is not found, fails, or returns something else than
            its kind has to.
    """
    seen = set[object]()
    for config in configs:
        labels = [metric.label for metric in config.metrics]
        if repeated := next((one for one in labels if labels.count(one) > 1), None):
            raise UserError(
                f"two metrics of a trial have the label {repeated!r}; rename one of them",
                code="custom-label-repeated",
            )
        for _, part in custom_parts(config):
            key = (part, sampling_stages(config.sampler), config.descriptor.descriptor_dim)
            if key not in seen:
                seen.add(key)
                _rehearse_part(part, config)


def _rehearse_part(part: Custom, config: TrialConfig) -> None:
    rng, dim = np.random.default_rng(0), config.descriptor.descriptor_dim
    match part:
        case CustomLoss():
            for sampler in sampling_stages(config.sampler):
                _rehearse_loss(part, sampler, dim)
        case CustomNetwork():
            _rehearse_network(part)
        case CustomSampler():
            sequence_of = np.arange(REHEARSED_POINTS) * REHEARSED_SEQUENCES // REHEARSED_POINTS
            for progress in (0.0, 0.99):
                sample(part, sequence_of, rng, progress=progress)
        case CustomAugmentation():
            calls, count, _ = _batch_shape(sampling_stages(config.sampler)[0], dim)
            patches = torch.from_numpy(rng.uniform(0, 255, (calls, count, 1, 32, 32))).float()
            points = np.tile(np.arange(count), (calls, 1))
            found = augmented(part, list(patches), points=points, rng=rng)
            _require_finite(part, "patches of augmentation", torch.stack(found))
        case CustomMetric():
            points = np.repeat(np.arange(8), VIEWS)
            descriptors = rng.normal(size=(len(points), dim)).astype(np.float32)
            _metric_value(part, descriptors, points, points // 4)


def _rehearse_loss(loss: CustomLoss, sampler: Sampler, dim: int) -> None:
    generator = torch.Generator().manual_seed(0)
    descriptors = torch.randn(_batch_shape(sampler, dim), generator=generator)
    descriptors = torch.nn.functional.normalize(descriptors, dim=-1).requires_grad_()
    with torch.random.fork_rng(devices=[]):
        found = build_loss(loss, sampler)(descriptors)
        _require_finite(loss, "loss", found)
        if not found.requires_grad:
            raise UserError(
                f"loss {loss.object} does not depend on the descriptors it is given; compute it "
                "with torch, without detach or item",
                code="custom-no-gradient",
            )
        with own_code(loss, "loss"):
            (gradient,) = torch.autograd.grad(found, descriptors)
        _require_finite(loss, "gradient of loss", gradient)
    collapse_value(loss, sampler)


def _rehearse_network(settings: CustomNetwork) -> None:
    generator = torch.Generator().manual_seed(0)
    patches = torch.randint(256, (4, 1, 32, 32), generator=generator).float()
    network = build_descriptor(settings, seed=0)
    with torch.random.fork_rng(devices=[]):
        _require_finite(settings, "descriptors of network", network(patches))
    if not any(p.requires_grad for p in network.parameters()):
        raise UserError(
            f"network {settings.object} has no weights to train; assign its layers in __init__",
            code="custom-no-weights",
        )
    with tempfile.TemporaryDirectory() as folder:  # its model is registered as a program
        save_program(Pipeline(denoiser=None, descriptor=network), Path(folder))


def _require_finite(part: Custom, what: str, found: Tensor) -> None:
    if not torch.isfinite(found).all():
        raise UserError(
            f"the {what} {part.object} is not finite on random input; look for roots, logarithms "
            "and divisions of 0",
            code="custom-not-finite",
        )


def _batch_shape(sampler: Sampler, dim: int) -> tuple[int, int, int]:
    """Shape (calls, n, d) of the descriptors of a batch."""
    calls = CALLS_OF_FORM[type(sampler)]
    return calls, sampler.patches // calls, dim
