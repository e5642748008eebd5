"""Where data, model and loss meet: the training of a descriptor, one step at a time."""

import copy
import io
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from hpsearch.config import Augmentation, MinedTriplets, Sampler, Stepped, TrialConfig, WarmStart
from hpsearch.data.augmentation import apply, draw
from hpsearch.data.patch_store import Patches
from hpsearch.data.samplers import Batch, sample
from hpsearch.losses import build_loss
from hpsearch.models import build_descriptor
from hpsearch.rng import stream
from hpsearch.shapes import Int
from hpsearch.training.artifact_cache import Artifacts, NotTrained, artifact_key
from hpsearch.training.batch_schedule import Move, Stepper, plain_sampler
from hpsearch.training.collapse_detection import CollapseDetector, Dispersion, dispersion
from hpsearch.training.devices import Compute
from hpsearch.training.inputs import Feed
from hpsearch.training.loop import Progress, Verdict, fit
from hpsearch.training.optimization import build_optimiser, rate_factor, restore_optimiser, set_rate
from hpsearch.training.triplet_mining import Miner

CODE = 1
"""Raise when the same settings would give other weights, so that old artifacts are left alone."""


def warm_weights(
    config: TrialConfig, train: Patches, feed: Feed, artifacts: Artifacts, compute: Compute
) -> dict[str, torch.Tensor] | None:
    """State dict that a trial begins with, found, or made and published; None for random weights.

    Raises:
        NotTrained: if the baseline collapses or diverges.
    """
    warm = config.warm_start
    if warm is None:
        return None

    def make() -> bytes:
        learner = Learner(_baseline(config, warm), train.sequence_of, feed, compute)
        for report in fit(learner, patches=warm.patches, report_every=warm.patches):
            if report.status != "completed":
                raise NotTrained(
                    f"the warm start {report.status}: {report.reason}; give it another learning "
                    "rate or begin with random weights"
                )
        buffer = io.BytesIO()
        state = learner.network.state_dict()
        torch.save({name: value.cpu() for name, value in state.items()}, buffer)
        return buffer.getvalue()

    key = artifact_key(kind="warm start", **_depends(config, warm, train))
    stored = artifacts.found_or_made(key, make)
    with artifacts.reading(key):
        found = torch.load(io.BytesIO(stored), map_location=compute.device, weights_only=True)
        build_descriptor(config.descriptor, seed=0).load_state_dict(found)
    return found


def _baseline(config: TrialConfig, warm: WarmStart) -> TrialConfig:
    return TrialConfig(
        input=config.input,
        descriptor=config.descriptor,
        loss=warm.loss,
        sampler=warm.sampler,
        optimiser=warm.optimiser,
        patches=warm.patches,
        seed=warm.seed,
    )


def _depends(config: TrialConfig, warm: WarmStart, train: Patches) -> dict[str, Any]:
    baseline = _baseline(config, warm)
    return {
        "config": baseline.model_dump(mode="json", exclude={"evaluate_on", "warm_start"}),
        "patches": train.store.fingerprint,
        "sequences": list(train.names),
        "code": CODE,
    }


LOOKED_AT = 192
"""Patches that are described once more where a collapse is suspected."""


@dataclass(eq=False)
class Learner:
    """A descriptor, how it is trained, and everything that its next step depends on."""

    config: TrialConfig
    sequence_of: Int[np.ndarray, " points"]
    """Sequence of each training point."""
    feed: Feed
    """Training patches by local row."""
    compute: Compute

    def __post_init__(self) -> None:
        config = self.config
        network = build_descriptor(config.descriptor, seed=config.seed)
        self.network = self.compute.place(network)
        self.forward = self.compute.forward(self.network)
        self.optimiser = build_optimiser(config.optimiser, self.network.parameters())
        self.detector = CollapseDetector(config.loss.collapse_value)
        self.stepper = (
            Stepper(config.sampler, config.loss.collapse_value)
            if isinstance(config.sampler, Stepped)
            else None
        )
        self.miner = (
            Miner(config.sampler, self.sequence_of, config.seed)
            if isinstance(config.sampler, MinedTriplets)
            else None
        )
        self._before_stage: dict[str, Any] | None = None
        self._latest: tuple[Tensor, Tensor] | None = None
        self._drawn: tuple[Batch, float] | None = None

    def step(self, progress: Progress) -> tuple[Tensor, int]:
        """Forward each call of the batch on its own, pay, move the weights."""
        share = progress.seen / self.config.patches
        sampler = plain_sampler(
            self.config.sampler, share=share, stage=self.stepper.stage if self.stepper else 0
        )
        batch = self._draw(sampler, progress, share)
        set_rate(self.optimiser, self.rate(progress))
        torch.manual_seed(_dropout_seed(self.config.seed, progress.step))
        self.network.train()
        with self.compute.step():
            calls = self._patches(batch, progress.step, share)
            descriptors = torch.stack([self.forward(patches) for patches in calls])
            loss = build_loss(self.config.loss, sampler)(descriptors)
            self.optimiser.zero_grad()
            loss.backward()
            self.optimiser.step()
            paid, found = loss.detach(), descriptors.detach().flatten(0, 1)
        self._latest = (found, torch.from_numpy(batch.labels.ravel()))
        self._drawn = (batch, share)
        used = batch.rows.size
        if self.stepper:
            self._follow(self.stepper.add(paid, used=used, seen=progress.seen + used))
        return paid, used

    def rate(self, progress: Progress) -> float:
        """Learning rate of the next step."""
        factor = rate_factor(self.config.schedule, seen=progress.seen, budget=self.config.patches)
        return self.config.optimiser.lr * factor

    def dispersion(self) -> Dispersion:
        """Of the latest training batch."""
        assert self._latest is not None, "a step comes first"
        descriptors, labels = self._latest
        return dispersion(descriptors, labels.to(descriptors.device))

    def looked_at(self) -> Dispersion:
        """As ``dispersion``; where it is narrow, points are told apart without dropout's noise."""
        now = self.dispersion()
        if not now.narrow:
            return now
        assert self._drawn is not None, "a step comes first"
        batch, share = self._drawn
        some = slice(max(2, LOOKED_AT // len(batch.rows)))
        quiet = self._describe(batch.rows[:, some].ravel(), share)
        labels = torch.from_numpy(batch.labels[:, some].ravel()).to(quiet.device)
        return now._replace(ratio=max(now.ratio, dispersion(quiet, labels).ratio))

    @property
    def on_trial(self) -> bool:
        """Whether a stepped schedule has just begun a stage, and may still undo it."""
        return self._before_stage is not None

    def check(self, loss: float) -> Verdict | None:
        """Whether the descriptor has collapsed; not while the stepped schedule may undo it."""
        if self.on_trial:
            return None
        now = self.looked_at()
        if not self.detector.look(now, loss):
            return None
        return Verdict(
            "collapsed",
            f"loss {loss:.3g} at its collapse value {self.config.loss.collapse_value:.3g}, "
            f"relative dispersion {now.relative:.2g}, resultant length {now.resultant:.3f}, "
            f"d(a,n)/d(a,p) {now.ratio:.2f}",
        )

    def evaluate(self) -> dict[str, float]:
        """How the latest batch is dispersed, and the stage of a stepped schedule."""
        now = self.dispersion()
        metrics = {"train/dispersion": now.relative, "train/resultant": now.resultant}
        if self.stepper:
            metrics["train/stage"] = float(self.stepper.stage)
        return metrics

    def worst(self) -> dict[str, float]:
        """Nothing; what a failed descriptor scores is for who scores it."""
        return {}

    def state(self) -> dict[str, Any]:
        """Everything that the next step depends on, beside the progress."""
        return {
            **self._weights(),
            "narrow_looks": self.detector.ratios,
            "stepper": self.stepper.state() if self.stepper else None,
            "before_stage": self._before_stage,
            "miner": self.miner.state() if self.miner else None,
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from ``state``."""
        self._load_weights(state)
        self.detector.ratios = state.get("narrow_looks", [])
        self._before_stage = state.get("before_stage")
        if self.stepper and state.get("stepper"):
            self.stepper.restore(state["stepper"])
        if self.miner and state.get("miner"):
            self.miner.restore(state["miner"])

    def _draw(self, sampler: Sampler, progress: Progress, share: float) -> Batch:
        rng = stream(self.config.seed, "batch", progress.step)
        if self.miner and self.miner.due(seen=progress.seen, budget=self.config.patches):
            self.miner.mine(partial(self._describe, share=share), seen=progress.seen)
        if self.miner and self.miner.rows is not None:
            return self.miner.batch(rng)
        return sample(sampler, self.sequence_of, rng, progress=share)

    @torch.no_grad()
    def _describe(self, rows: np.ndarray, share: float) -> Tensor:
        return self.network.eval()(self.feed(rows, share))

    def _patches(self, batch: Batch, number: int, share: float) -> list[Tensor]:
        calls = [self.feed(rows, share) for rows in batch.rows]
        settings = self.config.augmentation
        if settings == Augmentation():
            return calls
        changes = draw(settings, batch.labels, stream(self.config.seed, "augmentation", number))
        return [apply(settings, *pair) for pair in zip(calls, changes, strict=True)]

    def _follow(self, move: Move) -> None:
        """Keep the weights that a new stage began with until it has proved itself."""
        assert self.stepper is not None
        if move == "on":
            self._before_stage = copy.deepcopy(self._weights())
        elif move == "undo":
            assert self._before_stage is not None, "an unproven stage began with kept weights"
            self._load_weights(self._before_stage)
        if self.stepper.proven:
            self._before_stage = None

    def _weights(self) -> dict[str, Any]:
        return {"network": self.network.state_dict(), "optimiser": self.optimiser.state_dict()}

    def _load_weights(self, state: dict[str, Any]) -> None:
        self.network.load_state_dict(state["network"])
        restore_optimiser(self.optimiser, state["optimiser"])


def _dropout_seed(seed: int, step: int) -> int:
    """One number a step, so that a resumed run drops the same features without saved state."""
    return int(np.random.SeedSequence(seed, spawn_key=(step,)).generate_state(1)[0])
