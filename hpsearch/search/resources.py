"""Resource request of a trial, and its possible allocations."""

import math
from collections.abc import Mapping, Sequence
from typing import Literal

from pydantic import Field

from hpsearch.config.base import FrozenConfig
from hpsearch.errors import UserError

Kind = Literal["cpu", "gpu", "tpu"]
Device = Literal["auto", "cpu", "cuda", "xla"]
Node = Mapping[str, float]
"""Resources of a node by Ray's names: CPU, GPU, TPU."""

MEMORY_SHARE_METRIC = "device/memory_share"
"""Metric: share of a GPU's memory that a trial uses, in (0, 1]."""
MEMORY_SAFETY_MARGIN = 1.25
"""Factor on the measured memory share, since later trials may need more."""
MAX_TRIALS_PER_GPU = 8
"""Maximum number of trials per GPU; each needs a CUDA context and shares its processors."""
RAY_NAMES: dict[Kind, str] = {"cpu": "CPU", "gpu": "GPU", "tpu": "TPU"}
DEVICE_OF_KIND: dict[Kind, Device] = {"cpu": "cpu", "gpu": "cuda", "tpu": "xla"}


class Resources(FrozenConfig):
    """Resource request of a trial; None is derived from the cluster."""

    cpus: float = Field(default=1, gt=0)
    gpus: float | None = Field(default=None, ge=0)
    """GPUs per trial. Below 1, trials share a GPU; None for as many trials as fit its memory."""
    tpus: int | None = Field(default=None, ge=0)
    """TPU chips per trial."""
    device: Device = "auto"

    def with_default_device(self, stated: Device) -> "Resources":
        """Return the request with the search's device, if it has none of its own."""
        return self if self.device != "auto" else self.model_copy(update={"device": stated})


ONE_CPU = Resources()
"""One CPU core, in addition to the available accelerators."""


class ResourceAllocation(FrozenConfig):
    """Resources that one trial holds while it runs."""

    kind: Kind
    cpus: float
    gpus: float = 0
    tpus: float = 0

    @property
    def threads(self) -> int:
        """Number of torch's threads in the trial's process: one for each whole CPU."""
        return max(1, int(self.cpus))

    def ray_bundle(self) -> dict[str, float]:
        """Bundle of a Ray placement group."""
        asked = {"CPU": self.cpus, "GPU": self.gpus, "TPU": self.tpus}
        return {name: amount for name, amount in asked.items() if amount}

    def capacity_on(self, node: Node) -> int:
        """Number of such trials that fit on a node; a share of a GPU is of one GPU."""
        return min(
            _multiples(amount, node.get(name, 0)) for name, amount in self.ray_bundle().items()
        )

    def describe(self) -> str:
        """Describe the resources for a message, as in ``1 CPU and 0.5 GPU``."""
        return _format_amounts(self.ray_bundle())


def candidate_placements(asked: Resources, nodes: Sequence[Node]) -> list[ResourceAllocation]:
    """Possible allocations of a trial on the nodes: with accelerators, else CPUs alone.

    Args:
        asked: resource request.
        nodes: nodes of the cluster.

    Raises:
        UserError: with what is missing, if a trial fits on no node.
    """
    found = requested_placements(asked, nodes)
    for allocation in found:
        if not any(allocation.capacity_on(node) for node in nodes):
            raise UserError(
                f"a trial requests {allocation.describe()}, but no node of the cluster has that "
                f"much; there are {_total_resources(nodes)}; request less, or add a worker",
                code="insufficient-resources",
            )
    return found


def requested_placements(asked: Resources, nodes: Sequence[Node]) -> list[ResourceAllocation]:
    """Possible allocations of a trial, whether or not a node has them."""
    there = {kind: sum(node.get(name, 0) for node in nodes) for kind, name in RAY_NAMES.items()}
    found = []
    if asked.gpus or (asked.gpus is None and _uses_accelerator("gpu", asked, there["gpu"])):
        found.append(ResourceAllocation(kind="gpu", cpus=asked.cpus, gpus=asked.gpus or 1))
    if asked.tpus or (asked.tpus is None and _uses_accelerator("tpu", asked, there["tpu"])):
        found.append(ResourceAllocation(kind="tpu", cpus=asked.cpus, tpus=asked.tpus or 1))
    return found or [ResourceAllocation(kind="cpu", cpus=asked.cpus)]


def _uses_accelerator(kind: Kind, asked: Resources, available: float) -> bool:
    """Return whether trials use a kind of accelerator that the request leaves open."""
    if asked.device == "auto":
        explicit = asked.gpus or asked.tpus
        return available > 0 and not explicit
    return asked.device == {"gpu": "cuda", "tpu": "xla"}.get(kind)


def _capacity(allocation: ResourceAllocation, nodes: Sequence[Node]) -> int:
    return sum(allocation.capacity_on(node) for node in nodes)


def _multiples(amount: float, available: float) -> int:
    """Number of times an amount fits; a fraction is one of a single device."""
    if amount < 1:
        return math.floor(available + 1e-9) * math.floor(1 / amount + 1e-9)
    return math.floor(available / amount + 1e-9)


def _total_resources(nodes: Sequence[Node]) -> str:
    total = {name: sum(node.get(name, 0) for node in nodes) for name in RAY_NAMES.values()}
    words = _format_amounts(
        {name: amount for name, amount in total.items() if amount or name == "CPU"}
    )
    return f"{words} on {len(nodes)} nodes" if len(nodes) > 1 else words


def _format_amounts(amounts: Mapping[str, float]) -> str:
    words = [
        f"{amount:g} {name}{'' if amount <= 1 and amount else 's'}"
        for name, amount in amounts.items()
    ]
    return " and ".join(words)
