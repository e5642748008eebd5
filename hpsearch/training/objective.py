"""Objective of a descriptor's training: loss, regularizers, and distillation from a teacher."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from hpsearch.config import (
    AngularModulation,
    CustomSampler,
    Distillation,
    Library,
    NormDifference,
    Sampler,
    SteppedLoss,
    TrialConfig,
    builtin_form,
    loss_stages,
    sampling_stages,
)
from hpsearch.config.custom import custom_parts
from hpsearch.defaults import SPEC_FILE
from hpsearch.errors import UserError
from hpsearch.losses import (
    build_loss,
    build_regularization,
    collapse_value,
    initial_state,
    similarity_difference,
)
from hpsearch.losses.pair_losses import WARM_UP_SHARE
from hpsearch.models.serialization import load_pipeline, weights_file
from hpsearch.shapes import Float
from hpsearch.training.batch_schedule import current_loss_stage
from hpsearch.training.devices import Compute


@dataclass(frozen=True)
class Phase:
    """Settings of one step that decide how the loss is computed."""

    sampler: Sampler
    stage: int
    """Number of the loss among the stages of the loss."""
    weighted: bool
    """True after the first tenth of the budget, for ``AngularModulation`` alone."""


@dataclass(eq=False)
class Objective:
    """Objective of a trial, with the state of its losses.

    Raises:
        UserError: if a loss of pytorch-metric-learning, or the teacher, cannot be had here.
    """

    config: TrialConfig
    compute: Compute
    network: nn.Module
    """Descriptor network in training."""
    states: list[Tensor] = field(init=False)
    """State of each loss, on the device."""

    def __post_init__(self) -> None:
        self.losses = loss_stages(self.config.loss)
        self.states = [initial_state(loss, self.compute.device) for loss in self.losses]
        self._collapse_values = {
            (stage, sampler): collapse_value(loss, sampler) + self.config.regularizer_collapse_value
            for stage, loss in enumerate(self.losses)
            for sampler in sampling_stages(self.config.sampler)
        }
        terms = self.config.regularizers
        self.recorder = (
            NormRecorder(self.network)
            if any(isinstance(term, NormDifference) for term in terms)
            else None
        )
        self.teacher = (
            load_teacher(self.config.distillation).to(self.compute.device)
            if self.config.distillation
            else None
        )

    def phase(self, sampler: Sampler | CustomSampler, *, share: float, stage: int) -> Phase:
        """Phase of the next step; arguments as of ``current_loss_stage``."""
        number = current_loss_stage(self.config.loss, share=share, stage=stage)
        modulated = isinstance(self.losses[number], AngularModulation)
        return Phase(builtin_form(sampler), number, modulated and share >= WARM_UP_SHARE)

    def collapse_value(self, stage: int, sampler: Sampler) -> float:
        """Loss and regularizers of an encoder that maps every patch to one point."""
        return self._collapse_values[stage, sampler]

    @property
    def stage_values(self) -> list[float]:
        """Collapse value of each stage of a stepped loss, or of stepped batches."""
        first, *_ = samplers = sampling_stages(self.config.sampler)
        if isinstance(self.config.loss, SteppedLoss):
            return [self.collapse_value(stage, first) for stage in range(len(self.losses))]
        return [self.collapse_value(0, sampler) for sampler in samplers]

    def __call__(
        self, phase: Phase, patches: Sequence[Tensor], outputs: Sequence[Tensor]
    ) -> tuple[Float[Tensor, ""], Float[Tensor, ""]]:
        """Loss to train on, and the loss to report, which is without the term of distillation.

        Args:
            phase: phase of this step.
            patches: inputs of the network, one tensor a call.
            outputs: descriptors, one tensor a call.
        """
        descriptors, sampler = torch.stack(list(outputs)), phase.sampler
        share = WARM_UP_SHARE if phase.weighted else 0.0
        loss = build_loss(
            self.losses[phase.stage], sampler, state=self.states[phase.stage], share=share
        )(descriptors)
        if self.config.regularizers:
            norms = self.recorder.take() if self.recorder else None
            loss = loss + build_regularization(self.config.regularizers, sampler)(
                descriptors, norms
            )
        if self.teacher is None or self.config.distillation is None:
            return loss, loss.detach()
        with torch.no_grad():
            theirs = torch.stack([self.teacher(x.squeeze(1)) for x in patches])
        with torch.autocast(descriptors.device.type, enabled=False):
            difference = similarity_difference(descriptors, theirs)
        return loss + self.config.distillation.weight * difference, loss.detach()

    def state(self) -> list[Tensor]:
        """State of each loss, for a checkpoint."""
        return [state.clone() for state in self.states]

    def restore(self, states: Sequence[Tensor]) -> None:
        """Restore the states of a checkpoint, in place, because graphs read them."""
        for mine, stored in zip(self.states, states, strict=True):
            mine.copy_(stored)


def has_library_loss(config: TrialConfig) -> bool:
    """True if a loss is of pytorch-metric-learning, which cannot run in a CUDA graph."""
    return any(isinstance(loss, Library) for loss in loss_stages(config.loss))


def uncapturable_part(config: TrialConfig) -> str:
    """Part of a trial that cannot run in a CUDA graph, for a message; empty if all of it can."""
    own = next((part for _, part in custom_parts(config)), None)
    return "loss 'library'" if has_library_loss(config) else f"{own.object}" if own else ""


class NormRecorder:
    """Recorder of the norms of descriptors before the network divides by them, in training.

    Args:
        network: descriptor whose last layer before the division is ``final_norm``.

    Raises:
        UserError: if the network has no such layer.
    """

    def __init__(self, network: nn.Module) -> None:
        layer = getattr(network, "final_norm", None)
        if not isinstance(layer, nn.Module):
            raise UserError(
                "regularizer 'norm_difference' needs a descriptor with a layer final_norm, whose "
                f"output is divided by its norm, but {type(network).__name__} has none; leave the "
                "regularizer out, or choose another descriptor"
            )
        self.norms: list[Tensor] = []
        layer.register_forward_hook(self._record)

    def _record(self, layer: nn.Module, inputs: Any, output: Tensor) -> None:
        if layer.training:
            self.norms.append(torch.linalg.vector_norm(output.float(), dim=1))

    def take(self) -> Float[Tensor, "calls n"]:
        """Norms of the calls since the last time."""
        found, self.norms = torch.stack(self.norms), []
        return found


def load_teacher(settings: Distillation) -> nn.Module:
    """Load the pipeline to learn from, in evaluation mode; no code from it is executed.

    Raises:
        UserError: if the folder contains no pipeline, or its weights have another SHA-256.
    """
    folder = Path(settings.model)
    # Of a registered model, MLflow writes the pipeline into a folder inside the downloaded one.
    found = sorted(
        path.parent for path in (*folder.glob(SPEC_FILE), *folder.glob(f"*/{SPEC_FILE}"))
    )
    if not found:
        raise UserError(
            f"there is no model to learn from in {settings.model!r}; give a folder that every "
            "worker can read, such as a registered model that was downloaded there"
        )
    if settings.sha256 is not None:
        stored = hashlib.sha256(weights_file(found[0]).read_bytes()).hexdigest()
        if stored != settings.sha256:
            raise UserError(
                f"the weights of {settings.model!r} have SHA-256 {stored}, not {settings.sha256}; "
                "correct one of them"
            )
    return load_pipeline(found[0]).requires_grad_(False)
