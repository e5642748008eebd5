"""Placement: which trial runs where, and on what share of a node."""

import math
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from ray import tune
from ray.tune.search import Searcher

from hpsearch.errors import UserError
from hpsearch.execution.optuna_searcher import OptunaSearcher
from hpsearch.execution.retry_policy import RetryPolicy
from hpsearch.execution.shutdown import GracefulShutdown
from hpsearch.search.resources import (
    MAX_TRIALS_PER_GPU,
    MEMORY_SAFETY_MARGIN,
    MEMORY_SHARE_METRIC,
    Node,
    ResourceAllocation,
    Resources,
    _capacity,
    _total_resources,
    candidate_placements,
)


@dataclass
class ResourceAllocator:
    """Who runs where. Trials share a GPU as soon as the first has said how much memory it holds."""

    asked: Resources
    nodes: Sequence[Node]
    max_concurrent: int | None = None
    """Most trials at once; None for as many as fit."""
    _running: dict[str, ResourceAllocation] = field(default_factory=dict)
    _memory_share: float = 0.0
    _concurrency_cap: int | None = None
    """Most trials at once by the memory of the machines; None where it has never run out."""

    def __post_init__(self) -> None:
        self._placements = candidate_placements(self.asked, self.nodes)
        room = self.available_slots() if not self.shares_gpus else self._packed_capacity()
        if self.max_concurrent is not None and self.max_concurrent > room:
            asks = " or ".join(allocation.describe() for allocation in self._placements)
            raise UserError(
                f"{self.max_concurrent} trials at once do not fit: each asks for {asks}, and the "
                "cluster "
                f"has {_total_resources(self.nodes)}, which is room for {room}; lower "
                "--max-concurrent-trials, or "
                "add workers"
            )

    def update_nodes(self, nodes: Sequence[Node]) -> None:
        """Nodes have joined or left; what has no room now waits for its node to come back."""
        self.nodes = nodes
        with suppress(UserError):
            self._placements = candidate_placements(self.asked, nodes)
        self.record_memory(self._memory_share)

    @property
    def shares_gpus(self) -> bool:
        """Whether trials will share GPUs as their memory allows."""
        return self.asked.gpus is None and any(
            allocation.kind == "gpu" for allocation in self._placements
        )

    @property
    def has_running(self) -> bool:
        """Whether any trial holds a place."""
        return bool(self._running)

    def available_slots(self) -> int:
        """Trials that fit now."""
        return sum(_capacity(allocation, self.nodes) for allocation in self._placements)

    def acquire(self, trial: str) -> ResourceAllocation | None:
        """A place for a trial, of the kind that has most left; None while there is none."""
        most = [
            limit for limit in (self.max_concurrent, self._concurrency_cap) if limit is not None
        ]
        if most and len(self._running) >= min(most):
            return None
        left = {allocation.kind: self._free(allocation) for allocation in self._placements}
        allocation = max(self._placements, key=lambda allocation: left[allocation.kind])
        if left[allocation.kind] < 1 or not self._has_cpus(allocation):
            return None
        self._running[trial] = allocation
        return allocation

    def release(self, trial: str) -> ResourceAllocation | None:
        """A trial has ended; the place that it held. Once more does no harm."""
        return self._running.pop(trial, None)

    def reduce_gpu_sharing(self, allocation: ResourceAllocation) -> bool:
        """A trial found no memory here: later ones get twice as much, if the GPU was shared."""
        together = round(1 / allocation.gpus) if self.shares_gpus and allocation.gpus else 1
        if together > 1:
            self.record_memory((1 - 1e-9) / (MEMORY_SAFETY_MARGIN * (together // 2)))
        return together > 1

    def limit_concurrency(self) -> bool:
        """A machine ran out of memory: no more at once than run now, if any do.

        One that ran alone needs too much by itself; the others may then have all places again.
        """
        self._concurrency_cap = len(self._running) or None
        return self.has_running

    def record_memory(self, share: float) -> None:
        """Note the share of a GPU's memory that a trial holds; later trials are packed by it."""
        self._memory_share = max(self._memory_share, share)
        if self.shares_gpus and self._memory_share > 0:
            together = min(
                MAX_TRIALS_PER_GPU,
                max(1, math.floor(1 / (MEMORY_SAFETY_MARGIN * self._memory_share))),
            )
            self._placements = [
                allocation.model_copy(update={"gpus": 1 / together})
                if allocation.kind == "gpu"
                else allocation
                for allocation in self._placements
            ]

    def _free(self, allocation: ResourceAllocation) -> int:
        held = [running for running in self._running.values() if running.kind == allocation.kind]
        units = sum(
            max(1, round(running.gpus / allocation.gpus)) if allocation.gpus else 1
            for running in held
        )
        return _capacity(allocation, self.nodes) - units

    def _has_cpus(self, allocation: ResourceAllocation) -> bool:
        used = sum(running.cpus for running in self._running.values())
        return used + allocation.cpus <= sum(node.get("CPU", 0) for node in self.nodes) + 1e-9

    def _packed_capacity(self) -> int:
        packed = (
            allocation.model_copy(update={"gpus": 1 / MAX_TRIALS_PER_GPU})
            if allocation.kind == "gpu"
            else allocation
            for allocation in self._placements
        )
        return sum(_capacity(allocation, self.nodes) for allocation in packed)


METRIC_PREFIX = "metrics/"
NODE_POLL_S = 5.0
"""Seconds between two looks at which nodes there are."""


class ResourceAwareSearcher(Searcher):
    """Asks the study for a trial only when there is a place for it, and writes down which.

    Tune fixes what a trial holds when it is made and knows no "a GPU or a TPU"; so the place is
    chosen here, and is not the sampler's to choose.
    """

    def __init__(
        self,
        searcher: OptunaSearcher,
        allocator: ResourceAllocator,
        retry_policy: RetryPolicy,
        shutdown: GracefulShutdown,
        list_nodes: Callable[[], Sequence[Node]] | None = None,
    ) -> None:
        """Trials go to the nodes of ``list_nodes``; None for those that there were at first."""
        super().__init__(metric=searcher.metric, mode=searcher.mode)
        self._searcher, self._allocator, self._retry_policy, self._list_nodes = (
            searcher,
            allocator,
            retry_policy,
            list_nodes,
        )
        self._shutdown = shutdown
        self._polled_at = time.monotonic()
        self.exhausted = False
        """Whether the study has no more trials to begin."""

    def suggest(self, trial_id: str) -> Any:
        """The next trial with its place; None while there is no place."""
        if self._list_nodes is not None and time.monotonic() - self._polled_at > NODE_POLL_S:
            self._allocator.update_nodes(self._list_nodes())
            self._polled_at = time.monotonic()
        allocation = None if self._shutdown.in_progress else self._allocator.acquire(trial_id)
        if allocation is None:
            return None
        found = self._searcher.suggest(trial_id)
        if isinstance(found, dict):
            return {**found, "place": allocation.model_dump()}
        self._allocator.release(trial_id)
        if found == Searcher.FINISHED and self._allocator.has_running:
            return None  # one of those that run may have to begin again
        self.exhausted = found == Searcher.FINISHED
        return found

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        """Pass it on; the first report also says how much memory a trial holds."""
        result = _unflatten(result)
        share = result.get("metrics", {}).get(MEMORY_SHARE_METRIC)
        if share:
            self._allocator.record_memory(share)
        if "objective" in result:
            self._searcher.on_trial_result(trial_id, result)

    def on_trial_complete(
        self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False
    ) -> None:
        """The place is free; pass it on, unless the trial goes on from its checkpoint."""
        allocation = self._allocator.release(trial_id)
        if error and allocation and self._should_retry(trial_id, allocation):
            self._retry_policy.mark_retry(trial_id)
            self._searcher.requeue(trial_id)
            return
        whole = (
            {"reason": self._retry_policy.failure_reason(trial_id)}
            if error
            else _unflatten(result or {})
        )
        self._searcher.on_trial_complete(trial_id, result=whole, error=error)

    def _should_retry(self, trial_id: str, allocation: ResourceAllocation) -> bool:
        """Where there was no memory, with more room; else wherever there is a place."""
        if self._retry_policy.out_of_gpu_memory(trial_id):
            return self._allocator.reduce_gpu_sharing(allocation)
        if self._retry_policy.out_of_node_memory(trial_id):
            return self._allocator.limit_concurrency()
        return not self._retry_policy.should_not_retry(trial_id)

    def save(self, checkpoint_path: str) -> None:
        """Nothing: the study's storage has it all."""

    def restore(self, checkpoint_path: str) -> None:
        """Nothing: the study's storage has it all."""


def placement_group(config: dict[str, Any]) -> tune.PlacementGroupFactory:
    """What Tune reserves for a trial."""
    return tune.PlacementGroupFactory(
        [ResourceAllocation.model_validate(config["place"]).ray_bundle()]
    )


def _unflatten(result: Mapping[str, Any]) -> dict[str, Any]:
    """A result as the worker said it: Tune flattens what lies inside."""
    metrics = {
        k.removeprefix(METRIC_PREFIX): v for k, v in result.items() if k.startswith(METRIC_PREFIX)
    }
    return {**{k: v for k, v in result.items() if k not in metrics}, "metrics": metrics}
