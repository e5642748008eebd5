"""Placement: which trial runs where, and on what share of a node."""

import math
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from ray import tune

from hpsearch.errors import UserError
from hpsearch.search.resources import (
    MAX_TRIALS_PER_GPU,
    MEMORY_SAFETY_MARGIN,
    Node,
    ResourceAllocation,
    Resources,
    _capacity,
    _total_resources,
    candidate_placements,
)


@dataclass
class ResourceAllocator:
    """Resources of the running trials; they share a GPU once the first has reported its memory."""

    asked: Resources
    nodes: Sequence[Node]
    max_concurrent: int | None = None
    """Maximum number of concurrent trials; None for as many as fit."""
    _running: dict[str, ResourceAllocation] = field(default_factory=dict)
    _held: Counter[ResourceAllocation] = field(default_factory=Counter)
    """Number of running trials by allocation: few, however many trials run."""
    _capacities: dict[ResourceAllocation, int] = field(default_factory=dict)
    """Number of trials that fit on the nodes, by allocation; Tune asks many times a second."""
    _memory_share: float = 0.0
    _concurrency_cap: int | None = None
    """Maximum number of concurrent trials after a machine ran out of memory; None before."""

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
        """Set the nodes; what fits on none of them now waits until its node is back."""
        self.nodes = nodes
        self._capacities.clear()
        with suppress(UserError):
            self._placements = candidate_placements(self.asked, nodes)
        self.record_memory(self._memory_share)

    @property
    def shares_gpus(self) -> bool:
        """True if trials may share GPUs, as far as their memory allows."""
        return self.asked.gpus is None and any(
            allocation.kind == "gpu" for allocation in self._placements
        )

    @property
    def has_running(self) -> bool:
        """True if any trial is running."""
        return bool(self._running)

    def available_slots(self) -> int:
        """Return the number of trials that fit on the nodes."""
        return sum(_capacity(allocation, self.nodes) for allocation in self._placements)

    def acquire(self, trial: str) -> ResourceAllocation | None:
        """Allocate resources of the kind with the most free capacity; None while none is free."""
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
        self._held[allocation] += 1
        return allocation

    def release(self, trial: str) -> ResourceAllocation | None:
        """Free and return the resources of a trial; None if it holds none."""
        allocation = self._running.pop(trial, None)
        if allocation is not None:
            self._held[allocation] -= 1
        return allocation

    def reduce_gpu_sharing(self, allocation: ResourceAllocation) -> bool:
        """Double the GPU share of later trials when GPU memory ran out, if the GPU was shared."""
        together = round(1 / allocation.gpus) if self.shares_gpus and allocation.gpus else 1
        if together > 1:
            self.record_memory((1 - 1e-9) / (MEMORY_SAFETY_MARGIN * (together // 2)))
        return together > 1

    def limit_concurrency(self) -> bool:
        """Limit concurrency to the trials that run now, if any do, as a machine ran out of memory.

        A trial that ran alone needs too much by itself; the limit is then lifted for the others.
        """
        self._concurrency_cap = len(self._running) or None
        return self.has_running

    def record_memory(self, share: float) -> None:
        """Record the share of a GPU's memory that a trial uses; later ones are packed by it."""
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
        units = sum(
            number * (max(1, round(held.gpus / allocation.gpus)) if allocation.gpus else 1)
            for held, number in self._held.items()
            if held.kind == allocation.kind
        )
        if allocation not in self._capacities:
            self._capacities[allocation] = _capacity(allocation, self.nodes)
        return self._capacities[allocation] - units

    def _has_cpus(self, allocation: ResourceAllocation) -> bool:
        used = sum(number * held.cpus for held, number in self._held.items())
        return used + allocation.cpus <= sum(node.get("CPU", 0) for node in self.nodes) + 1e-9

    def _packed_capacity(self) -> int:
        packed = (
            allocation.model_copy(update={"gpus": 1 / MAX_TRIALS_PER_GPU})
            if allocation.kind == "gpu"
            else allocation
            for allocation in self._placements
        )
        return sum(_capacity(allocation, self.nodes) for allocation in packed)


def placement_group(config: dict[str, Any]) -> tune.PlacementGroupFactory:
    """Build the resource request of a trial for Ray Tune, from its configuration there."""
    return tune.PlacementGroupFactory(
        [ResourceAllocation.model_validate_json(config["place"]).ray_bundle()]
    )
