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
from hpsearch.execution.optuna_searcher import StudySearch
from hpsearch.execution.retry_policy import Lives
from hpsearch.execution.shutdown import Farewell
from hpsearch.search.resources import (
    MARGIN,
    MEMORY_SHARE,
    MOST_ON_ONE,
    Node,
    Place,
    Resources,
    _cluster,
    _room,
    places,
)


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


INSIDE = "metrics/"
PAUSE = 5.0
"""Seconds between two looks at which nodes there are."""


class PlacedSearch(Searcher):
    """Asks the study for a trial only when there is a place for it, and writes down which.

    Tune fixes what a trial holds when it is made and knows no "a GPU or a TPU"; so the place is
    chosen here, and is not the sampler's to choose.
    """

    def __init__(
        self,
        study: StudySearch,
        fleet: Fleet,
        lives: Lives,
        farewell: Farewell,
        look: Callable[[], Sequence[Node]] | None = None,
    ) -> None:
        """Trials go where ``look`` says that there are nodes; None for where there were some."""
        super().__init__(metric=study.metric, mode=study.mode)
        self._study, self._fleet, self._lives, self._look = study, fleet, lives, look
        self._farewell = farewell
        self._looked = time.monotonic()
        self.exhausted = False
        """Whether the study has no more trials to begin."""

    def suggest(self, trial_id: str) -> Any:
        """The next trial with its place; None while there is no place."""
        if self._look is not None and time.monotonic() - self._looked > PAUSE:
            self._fleet.see(self._look())
            self._looked = time.monotonic()
        place = None if self._farewell.begun else self._fleet.take(trial_id)
        if place is None:
            return None
        found = self._study.suggest(trial_id)
        if isinstance(found, dict):
            return {**found, "place": place.model_dump()}
        self._fleet.give_back(trial_id)
        if found == Searcher.FINISHED and self._fleet.busy:
            return None  # one of those that run may have to begin again
        self.exhausted = found == Searcher.FINISHED
        return found

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        """Pass it on; the first report also says how much memory a trial holds."""
        result = _whole(result)
        share = result.get("metrics", {}).get(MEMORY_SHARE)
        if share:
            self._fleet.learn(share)
        if "objective" in result:
            self._study.on_trial_result(trial_id, result)

    def on_trial_complete(
        self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False
    ) -> None:
        """The place is free; pass it on, unless the trial goes on from its checkpoint."""
        place = self._fleet.give_back(trial_id)
        if error and place and self._goes_on(trial_id, place):
            self._lives.begin_again(trial_id)
            self._study.put_back(trial_id)
            return
        whole = {"reason": self._lives.reason(trial_id)} if error else _whole(result or {})
        self._study.on_trial_complete(trial_id, result=whole, error=error)

    def _goes_on(self, trial_id: str, place: Place) -> bool:
        """Where there was no memory, with more room; else wherever there is a place."""
        if self._lives.squeezed(trial_id):
            return self._fleet.spread(place)
        if self._lives.crowded(trial_id):
            return self._fleet.thin_out()
        return not self._lives.hopeless(trial_id)

    def save(self, checkpoint_path: str) -> None:
        """Nothing: the study's storage has it all."""

    def restore(self, checkpoint_path: str) -> None:
        """Nothing: the study's storage has it all."""


def bundles(config: dict[str, Any]) -> tune.PlacementGroupFactory:
    """What Tune reserves for a trial."""
    return tune.PlacementGroupFactory([Place.model_validate(config["place"]).bundle()])


def _whole(result: Mapping[str, Any]) -> dict[str, Any]:
    """A result as the worker said it: Tune flattens what lies inside."""
    metrics = {k.removeprefix(INSIDE): v for k, v in result.items() if k.startswith(INSIDE)}
    return {**{k: v for k, v in result.items() if k not in metrics}, "metrics": metrics}
