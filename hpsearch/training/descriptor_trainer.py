"""Training of a descriptor: data, network, loss and optimizer, one step at a time."""

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from hpsearch.config import (
    Augmentation,
    CustomSampler,
    Denoised,
    MinedTriplets,
    PKSampler,
    Sampler,
    Stepped,
    SteppedLoss,
    TrialConfig,
)
from hpsearch.data.augmentation import Prepared, apply_augmentation, prepare, sample_params
from hpsearch.data.samplers import Batch, sample
from hpsearch.losses import seed_library
from hpsearch.models import build_descriptor
from hpsearch.rng import rng_for
from hpsearch.shapes import Int
from hpsearch.training.batch_schedule import StageChange, StageController, current_sampler
from hpsearch.training.collapse_detection import BatchDispersion, CollapseDetector, batch_dispersion
from hpsearch.training.custom_parts import Change, augmented
from hpsearch.training.devices import Compute
from hpsearch.training.inputs import InputFn
from hpsearch.training.loop import Progress, StopReason, require_finite_weights
from hpsearch.training.objective import Objective, Phase, has_library_loss, uncapturable_part
from hpsearch.training.optimization import (
    WeightAverage,
    build_optimizer,
    lr_factor,
    restore_optimizer,
    set_lr,
)
from hpsearch.training.triplet_mining import Miner

DISPERSION_SAMPLE = 192
"""Number of patches described without dropout if a collapse is suspected."""


@dataclass(eq=False)
class DescriptorTrainer:
    """Trainer of a descriptor, with the complete state of the next step."""

    config: TrialConfig
    sequence_of: Int[np.ndarray, " points"]
    """Sequence of each training point."""
    input_fn: InputFn
    """Function from local rows to training patches on the device."""
    compute: Compute
    first_rows: Int[np.ndarray, " points+1"] | None = None
    """Local row of the first patch of each training point, as for ``sample``."""

    def __post_init__(self) -> None:
        config = self.config
        if what := uncapturable_part(config):
            self.compute = self.compute.without_graphs(what)
        network = build_descriptor(config.descriptor, seed=config.seed)
        self.network = self.compute.to_device(network)
        self.forward = self.compute.forward(self.network)
        self.launcher = self.compute.launcher()
        self.optimizer = build_optimizer(
            config.optimizer, self.network.parameters(), captured=self.compute.uses_graphs
        )
        self.average = WeightAverage(config.ema, self.network) if config.ema else None
        self.objective = Objective(config, self.compute, self.network)
        sampler, loss = config.sampler, config.loss
        stepped = next((x for x in (sampler, loss) if isinstance(x, Stepped | SteppedLoss)), None)
        self.stage_controller = (
            StageController(stepped, self.objective.stage_values) if stepped else None
        )
        self._phase = self.objective.phase(current_sampler(sampler, share=0.0), share=0.0, stage=0)
        self.detector = CollapseDetector(self.collapse_value)
        self.miner = (
            Miner(config.sampler, self.sequence_of, config.seed, first_rows=self.first_rows)
            if isinstance(config.sampler, MinedTriplets)
            else None
        )
        self._stage_snapshot: dict[str, Any] | None = None
        self._latest_descriptors: tuple[Tensor, Tensor] | None = None
        self._latest_batch: tuple[Batch, float] | None = None

    def step(self, progress: Progress) -> tuple[Tensor, int]:
        """Train on one batch: forward each call separately, compute the loss, update the weights.

        Returns:
            Detached loss on the device, and number of patches used.
        """
        share = progress.seen / self.config.patches
        stage = self.stage_controller.stage if self.stage_controller else 0
        sampler = current_sampler(self.config.sampler, share=share, stage=stage)
        phase = self._phase = self.objective.phase(sampler, share=share, stage=stage)
        batch = self._sample_batch(sampler, progress, share)
        self._prepare(progress)
        with self.compute.step():
            loss_values, found = self.launcher(
                (phase, self._first_input(share)),
                partial(self._train, phase, share, self._own_augmentation(batch, progress)),
                self._inputs(batch, progress.step),
            )
        self._latest_descriptors = (found, torch.from_numpy(batch.labels.ravel()))
        self._latest_batch = (batch, share)
        used = batch.rows.size
        if self.stage_controller:
            change = self.stage_controller.record_loss(
                loss_values,
                used=used,
                seen=progress.seen + used,
                next_loss=partial(self._untrained_loss, progress=progress, share=share),
            )
            self._apply_stage_change(change)
        return loss_values, used

    @property
    def scored_network(self) -> nn.Module:
        """Network to evaluate and to register: the average of the weights, if one is kept."""
        return self.average.network if self.average else self.network

    @property
    def collapse_value(self) -> float:
        """Loss of an encoder that maps every patch to one point, in the latest step's phase."""
        return self.objective.collapse_value(self._phase.stage, self._phase.sampler)

    def start_from(self, weights: Mapping[str, Tensor]) -> None:
        """Load the weights of a warm start."""
        self.network.load_state_dict(weights)
        if self.average:
            self.average.network.load_state_dict(weights)

    def learning_rate(self, progress: Progress) -> float:
        """Learning rate of the next step."""
        factor = lr_factor(self.config.schedule, seen=progress.seen, budget=self.config.patches)
        return self.config.optimizer.lr * factor

    def latest_batch(self) -> tuple[Tensor, Tensor]:
        """Descriptors and point numbers of the latest training batch, on the device."""
        assert self._latest_descriptors is not None, "requires a step"
        descriptors, labels = self._latest_descriptors
        return descriptors, labels.to(descriptors.device)

    def dispersion(self) -> BatchDispersion:
        """Dispersion of the latest training batch."""
        return batch_dispersion(*self.latest_batch())

    def dispersion_without_dropout(self) -> BatchDispersion:
        """Dispersion of the latest batch; its contrast without dropout if it is degenerate."""
        now = self.dispersion()
        if not now.is_degenerate:
            return now
        assert self._latest_batch is not None, "requires a step"
        batch, share = self._latest_batch
        sample_columns = slice(max(2, DISPERSION_SAMPLE // len(batch.rows)))
        descriptors = self._describe(batch.rows[:, sample_columns].ravel(), share)
        labels = torch.from_numpy(batch.labels[:, sample_columns].ravel()).to(descriptors.device)
        return now._replace(
            contrast=max(now.contrast, batch_dispersion(descriptors, labels).contrast)
        )

    @property
    def stage_unconfirmed(self) -> bool:
        """True if a stepped schedule has started a stage that it may still undo."""
        return self._stage_snapshot is not None

    def check(self, loss: float) -> StopReason | None:
        """Reason to stop if the descriptor has collapsed; None while a stage may be undone."""
        if self.stage_unconfirmed:
            return None
        now = self.dispersion_without_dropout()
        self.detector.collapse_value = self.collapse_value
        if not self.detector.update(now, loss):
            return None
        return StopReason(
            "collapsed",
            f"loss {loss:.3g} at its collapse value {self.collapse_value:.3g}, "
            f"relative dispersion {now.relative:.2g}, resultant length {now.resultant:.3f}, "
            f"d(a,n)/d(a,p) {now.contrast:.2f}",
        )

    def evaluate(self) -> dict[str, float]:
        """Metrics of training: dispersion of the latest batch, and stage of a stepped schedule.

        Raises:
            NotFiniteError: if the weights are not finite.
        """
        require_finite_weights(self.network)
        now = self.dispersion()
        metrics = {"train/dispersion": now.relative, "train/resultant": now.resultant}
        if self.stage_controller:
            metrics["train/stage"] = float(self.stage_controller.stage)
        return metrics

    def failure_metrics(self) -> dict[str, float]:
        """Return no metrics; ``DescriptorTask`` adds the scores of a failed descriptor."""
        return {}

    def state(self) -> dict[str, Any]:
        """State for a checkpoint: everything the next step depends on, except the progress."""
        return {
            **self._weights_state(),
            "narrow_looks": self.detector.contrasts,
            "stepper": self.stage_controller.state() if self.stage_controller else None,
            "before_stage": self._stage_snapshot,
            "miner": self.miner.state() if self.miner else None,
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Restore the state of a checkpoint."""
        self._load_weights(state)
        self.detector.contrasts = state.get("narrow_looks", [])
        self._stage_snapshot = state.get("before_stage")
        if self.stage_controller and state.get("stepper"):
            self.stage_controller.restore(state["stepper"])
        if self.miner and state.get("miner"):
            self.miner.restore(state["miner"])

    def _prepare(self, progress: Progress) -> None:
        """Set what a step reads from outside: rates, random generators and training mode."""
        set_lr(self.optimizer, self.learning_rate(progress))
        if self.average:
            self.average.prepare(progress.step)
        seed = _dropout_seed(self.config.seed, progress.step)
        if has_library_loss(self.config):
            seed_library(seed)
        self.compute.seed(seed)
        if not self.network.training:
            self.network.train()

    def _own_augmentation(self, batch: Batch, progress: Progress) -> Change | None:
        """The user's own augmentation of a batch, if there is one."""
        settings = self.config.augmentation.custom
        if settings is None:
            return None
        rng = rng_for(self.config.seed, "own augmentation", progress.step)
        return partial(augmented, settings, points=batch.labels, rng=rng)

    def _sample_batch(
        self, sampler: Sampler | CustomSampler, progress: Progress, share: float
    ) -> Batch:
        rng = rng_for(self.config.seed, "batch", progress.step)
        if self.miner and self.miner.due(seen=progress.seen, budget=self.config.patches):
            self.miner.mine(partial(self._describe, share=share), seen=progress.seen)
        if self.miner and self.miner.rows is not None:
            return self.miner.batch(rng)
        return sample(sampler, self.sequence_of, rng, progress=share, first_rows=self.first_rows)

    @torch.no_grad()
    def _describe(self, rows: np.ndarray, share: float) -> Tensor:
        return self.network.eval()(self.input_fn(rows, share))

    @torch.no_grad()
    def _untrained_loss(self, sampler: PKSampler, progress: Progress, share: float) -> float:
        """Loss of one further batch as training would see it, leaving the network as it is."""
        rng = rng_for(self.config.seed, "next stage", progress.step)
        batch = sample(sampler, self.sequence_of, rng, progress=share)
        running = [buffer.clone() for buffer in self.network.buffers()]
        own = self._own_augmentation(batch, progress)
        calls = self._training_patches(share, own, self._inputs(batch, progress.step))
        outputs = [self.network(patches) for patches in calls]
        for buffer, before in zip(self.network.buffers(), running, strict=True):
            buffer.copy_(before)
        phase = self.objective.phase(sampler, share=share, stage=0)
        return float(self.objective(phase, calls, outputs)[1])

    def _inputs(self, batch: Batch, number: int) -> list[Tensor]:
        """Inputs of a step on the host: row numbers of each call, then augmentation parameters."""
        rows, settings = torch.from_numpy(batch.rows), self.config.augmentation
        if settings.model_copy(update={"custom": None}) == Augmentation():
            return [rows]
        drawn = sample_params(
            settings, batch.labels, rng_for(self.config.seed, "augmentation", number)
        )
        changes = zip(*(prepare(call) for call in drawn), strict=True)
        return [rows, *(torch.stack(calls) for calls in changes)]

    def _train(
        self, phase: Phase, share: float, own: Change | None, inputs: Sequence[Tensor]
    ) -> tuple[Tensor, ...]:
        """Compute a step on the device; returns loss and descriptors."""
        calls = self._training_patches(share, own, inputs)
        outputs = [self.forward(patches) for patches in calls]
        loss, reported = self.objective(phase, calls, outputs)
        self.optimizer.zero_grad()
        loss.backward()
        if self.config.gradient_clip is not None:
            nn.utils.clip_grad_norm_(self.network.parameters(), self.config.gradient_clip)
        self.optimizer.step()
        if self.average:
            self.average.update(self.network)
        return reported, torch.cat(outputs).detach()

    def _training_patches(
        self, share: float, own: Change | None, inputs: Sequence[Tensor]
    ) -> list[Tensor]:
        """Augmented patches of each call of the network."""
        rows, *changes = inputs
        calls = [self.input_fn(one, share) for one in rows]
        drawn = zip(calls, *changes, strict=True) if changes else ()
        calls = [
            apply_augmentation(self.config.augmentation, x, Prepared(*call)) for x, *call in drawn
        ] or calls
        return calls if own is None else own(calls)

    def _first_input(self, share: float) -> bool:
        """True while patches are from the first input of a fine-tuning (clean patches)."""
        settings = self.config.input
        return isinstance(settings, Denoised) and share < settings.clean_warmup

    def _apply_stage_change(self, move: StageChange) -> None:
        """Snapshot the weights at the start of a stage, and restore them if it is undone."""
        assert self.stage_controller is not None
        if move == "on":
            self._stage_snapshot = copy.deepcopy(self._weights_state())
        elif move == "undo":
            assert self._stage_snapshot is not None, "an unconfirmed stage has a snapshot"
            self._load_weights(self._stage_snapshot)
        if self.stage_controller.proven:
            self._stage_snapshot = None

    def _weights_state(self) -> dict[str, Any]:
        return {
            "network": self.network.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "average": self.average.network.state_dict() if self.average else None,
            "losses": self.objective.state(),
        }

    def _load_weights(self, state: dict[str, Any]) -> None:
        self.network.load_state_dict(state["network"])
        former = "optimiser" in state  # a checkpoint of 0.1.0
        restore_optimizer(self.optimizer, state["optimiser" if former else "optimizer"])
        if self.average:
            self.average.network.load_state_dict(state["average"])
        if "losses" in state:
            self.objective.restore(state["losses"])
        self.launcher.forget()  # the optimizer has new tensors


def _dropout_seed(seed: int, step: int) -> int:
    """Seed of dropout by step, so that a resumed run drops the same features without state."""
    return int(np.random.SeedSequence(seed, spawn_key=(step,)).generate_state(1)[0])
