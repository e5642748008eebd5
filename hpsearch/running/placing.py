"""Between Tune, which starts trials, and the fleet that they run on."""

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ray import tune
from ray.tune.search import Searcher

from hpsearch.running.farewell import Farewell
from hpsearch.running.lives import Lives
from hpsearch.running.optuna_bridge import StudySearch
from hpsearch.search.resources import MEMORY_SHARE, Fleet, Node, Place

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
