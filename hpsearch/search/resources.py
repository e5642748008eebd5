"""Where trials run: what each asks for, how many fit on a cluster, and who runs where."""

import math
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
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


@dataclass
class Fleet:
    """Who runs where. Trials share a GPU as soon as the first has said how much memory it holds."""

    asked: Resources
    nodes: Sequence[Node]
    at_once: int | None = None
    """Most trials at once; None for as many as fit."""
    _running: dict[str, Place] = field(default_factory=dict)
    _share: float = 0.0
    _crowd: int | None = None
    """Most trials at once by the memory of the machines; None where it has never run out."""

    def __post_init__(self) -> None:
        self._places = places(self.asked, self.nodes)
        room = self.room() if not self.packs else self._packed_room()
        if self.at_once is not None and self.at_once > room:
            asks = " or ".join(place.words() for place in self._places)
            raise UserError(
                f"{self.at_once} trials at once do not fit: each asks for {asks}, and the cluster "
                f"has {_cluster(self.nodes)}, which is room for {room}; lower --concurrent, or "
                "add workers"
            )

    def see(self, nodes: Sequence[Node]) -> None:
        """Nodes have joined or left; what has no room now waits for its node to come back."""
        self.nodes = nodes
        with suppress(UserError):
            self._places = places(self.asked, nodes)
        self.learn(self._share)

    @property
    def packs(self) -> bool:
        """Whether trials will share GPUs as their memory allows."""
        return self.asked.gpus is None and any(place.kind == "gpu" for place in self._places)

    @property
    def busy(self) -> bool:
        """Whether any trial holds a place."""
        return bool(self._running)

    def room(self) -> int:
        """Trials that fit now."""
        return sum(_room(place, self.nodes) for place in self._places)

    def take(self, trial: str) -> Place | None:
        """A place for a trial, of the kind that has most left; None while there is none."""
        most = [limit for limit in (self.at_once, self._crowd) if limit is not None]
        if most and len(self._running) >= min(most):
            return None
        left = {place.kind: self._left(place) for place in self._places}
        place = max(self._places, key=lambda place: left[place.kind])
        if left[place.kind] < 1 or not self._has_cpus(place):
            return None
        self._running[trial] = place
        return place

    def give_back(self, trial: str) -> Place | None:
        """A trial has ended; the place that it held. Once more does no harm."""
        return self._running.pop(trial, None)

    def spread(self, place: Place) -> bool:
        """A trial found no memory here: later ones get twice as much, if the GPU was shared."""
        together = round(1 / place.gpus) if self.packs and place.gpus else 1
        if together > 1:
            self.learn((1 - 1e-9) / (MARGIN * (together // 2)))
        return together > 1

    def thin_out(self) -> bool:
        """A machine ran out of memory: no more at once than run now, if any do.

        One that ran alone needs too much by itself; the others may then have all places again.
        """
        self._crowd = len(self._running) or None
        return self.busy

    def learn(self, share: float) -> None:
        """Note the share of a GPU's memory that a trial holds; later trials are packed by it."""
        self._share = max(self._share, share)
        if self.packs and self._share > 0:
            together = min(MOST_ON_ONE, max(1, math.floor(1 / (MARGIN * self._share))))
            self._places = [
                place.model_copy(update={"gpus": 1 / together}) if place.kind == "gpu" else place
                for place in self._places
            ]

    def _left(self, place: Place) -> int:
        held = [running for running in self._running.values() if running.kind == place.kind]
        units = sum(
            max(1, round(running.gpus / place.gpus)) if place.gpus else 1 for running in held
        )
        return _room(place, self.nodes) - units

    def _has_cpus(self, place: Place) -> bool:
        used = sum(running.cpus for running in self._running.values())
        return used + place.cpus <= sum(node.get("CPU", 0) for node in self.nodes) + 1e-9

    def _packed_room(self) -> int:
        packed = (
            place.model_copy(update={"gpus": 1 / MOST_ON_ONE}) if place.kind == "gpu" else place
            for place in self._places
        )
        return sum(_room(place, self.nodes) for place in packed)


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
