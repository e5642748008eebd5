"""What a trial asks for, and where it may run."""

import math
from collections.abc import Mapping, Sequence
from typing import Literal

from pydantic import Field

from hpsearch.config.base import Setting
from hpsearch.errors import UserError

Kind = Literal["cpu", "gpu", "tpu"]
Device = Literal["auto", "cpu", "cuda", "xla"]
Node = Mapping[str, float]
"""What a node has, by Ray's names: CPU, GPU, TPU."""

MEMORY_SHARE = "device/memory_share"
"""Metric: share of its GPU's memory that a trial holds, in (0, 1]."""
MARGIN = 1.25
"""Trials that come later may need more than those before."""
MOST_ON_ONE = 8
"""Trials on one GPU, however small: each has a CUDA context, and they share its processors."""
NAMES: dict[Kind, str] = {"cpu": "CPU", "gpu": "GPU", "tpu": "TPU"}


class Resources(Setting):
    """What a trial asks for; None is found from the cluster."""

    cpus: float = Field(default=1, gt=0)
    gpus: float | None = Field(default=None, ge=0)
    """Below 1, trials share a GPU; by default as many as their memory allows."""
    tpus: int | None = Field(default=None, ge=0)
    """Chips."""
    device: Device = "auto"

    def settled(self, stated: Device) -> "Resources":
        """With a search's own device, unless these name one."""
        return self if self.device != "auto" else self.model_copy(update={"device": stated})


ONE_CPU = Resources()
"""One core, beside the accelerators that there are."""


class Place(Setting):
    """What one trial holds while it runs."""

    kind: Kind
    cpus: float
    gpus: float = 0
    tpus: float = 0

    def bundle(self) -> dict[str, float]:
        """In Ray's words."""
        asked = {"CPU": self.cpus, "GPU": self.gpus, "TPU": self.tpus}
        return {name: amount for name, amount in asked.items() if amount}

    def fits(self, node: Node) -> int:
        """How many find room on a node at once; a trial's share of a GPU is of one GPU."""
        return min(_times(amount, node.get(name, 0)) for name, amount in self.bundle().items())

    def words(self) -> str:
        """As a user would say it."""
        return _amounts(self.bundle())


def places(asked: Resources, nodes: Sequence[Node]) -> list[Place]:
    """What a trial may hold: one of these. Accelerators first; CPUs alone if there are none.

    Raises:
        UserError: naming what is missing, if a trial fits on no node.
    """
    found = wishes(asked, nodes)
    for place in found:
        if not any(place.fits(node) for node in nodes):
            raise UserError(
                f"a trial asks for {place.words()}, but no node of the cluster has that much; "
                f"there are {_cluster(nodes)}; ask for less, or add a worker"
            )
    return found


def wishes(asked: Resources, nodes: Sequence[Node]) -> list[Place]:
    """What a trial may hold, whether there is a node for it or not: one of these."""
    there = {kind: sum(node.get(name, 0) for node in nodes) for kind, name in NAMES.items()}
    found = []
    if asked.gpus or (asked.gpus is None and _wanted("gpu", asked, there["gpu"])):
        found.append(Place(kind="gpu", cpus=asked.cpus, gpus=asked.gpus or 1))
    if asked.tpus or (asked.tpus is None and _wanted("tpu", asked, there["tpu"])):
        found.append(Place(kind="tpu", cpus=asked.cpus, tpus=asked.tpus or 1))
    return found or [Place(kind="cpu", cpus=asked.cpus)]


def _wanted(kind: Kind, asked: Resources, there: float) -> bool:
    """Whether trials go on accelerators of a kind, of which nothing else is said."""
    if asked.device == "auto":
        explicit = asked.gpus or asked.tpus
        return there > 0 and not explicit
    return asked.device == {"gpu": "cuda", "tpu": "xla"}.get(kind)


def _room(place: Place, nodes: Sequence[Node]) -> int:
    return sum(place.fits(node) for node in nodes)


def _times(amount: float, there: float) -> int:
    """How often an amount fits; a fraction is of one whole device, which leaves a rest."""
    if amount < 1:
        return math.floor(there + 1e-9) * math.floor(1 / amount + 1e-9)
    return math.floor(there / amount + 1e-9)


def _cluster(nodes: Sequence[Node]) -> str:
    total = {name: sum(node.get(name, 0) for node in nodes) for name in NAMES.values()}
    words = _amounts({name: amount for name, amount in total.items() if amount or name == "CPU"})
    return f"{words} on {len(nodes)} nodes" if len(nodes) > 1 else words


def _amounts(amounts: Mapping[str, float]) -> str:
    words = [
        f"{amount:g} {name}{'' if amount <= 1 and amount else 's'}"
        for name, amount in amounts.items()
    ]
    return " and ".join(words)
