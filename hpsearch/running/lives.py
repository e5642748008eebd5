"""Which trials begin again after their worker died, and why the others have failed."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from ray.tune.experiment import Trial as TuneTrial

from hpsearch.running.failures import death, went_with_notice

MOST_DEATHS = 5
"""Deaths of a trial's worker, without a report further than any before, after which it goes on."""


@dataclass
class Lives:
    """A trial whose worker died, with its machine or without, goes on from its checkpoint.

    It may do so any number of times as long as it comes further between, so that a search on
    machines that come and go loses nobody; a trial that kills its worker at the same step each time
    ends. A trial that raised has no second try, since it would raise again.
    """

    _furthest: dict[str, int] = field(default_factory=dict)
    """Patches seen, by the trial's name."""
    _given_up: dict[str, str] = field(default_factory=dict)
    """Why, by Tune's id."""
    _deaths: dict[str, str] = field(default_factory=dict)
    _squeezed: set[str] = field(default_factory=set)
    _spared: set[str] = field(default_factory=set)

    def hear(self, events: Iterable[Mapping[str, Any]]) -> None:
        """Learn from the ledger how far the trials had come in earlier sessions."""
        for event in events:
            if event["event"] == "report":
                self._furthest[event["trial"]] = event["seen"]

    def progress(self, trial: TuneTrial, seen: int) -> None:
        """A report came; if it is new, deaths before it count no more."""
        name = trial.config["id"]
        if seen > self._furthest.get(name, 0):
            self._furthest[name] = seen
            trial.max_failures = trial.num_failures + MOST_DEATHS

    def give_up(self, trial: TuneTrial, reason: str, *, squeezed: bool = False) -> None:
        """The next death of this trial is its last.

        Args:
            squeezed: it found no memory on its accelerator.
        """
        trial.max_failures = trial.num_failures
        self._given_up[trial.trial_id] = reason
        if squeezed:
            self._squeezed.add(trial.trial_id)

    def died(self, trial: TuneTrial) -> None:
        """Note that a trial's worker died, and why."""
        error = trial.get_pickled_error()
        why, times = death(error), _deaths(trial)
        if went_with_notice(error):
            trial.max_failures += 1  # it is not the trial's fault, and nothing is lost
        self._deaths[trial.trial_id] = (
            f"{times} times in a row without getting further: {why}" if times > 1 else why
        )

    def reason(self, trial_id: str) -> str:
        """Why a trial failed, or why its worker died last."""
        return self._given_up.get(trial_id) or self._deaths.get(trial_id, "")

    def squeezed(self, trial_id: str) -> bool:
        """Whether a trial failed because it found no memory on its accelerator."""
        return trial_id in self._squeezed

    def spare(self, trial_id: str) -> None:
        """A trial that failed where it was begins again elsewhere."""
        self._spared.add(trial_id)

    def spared(self, trial_id: str) -> bool:
        """Whether it does."""
        return trial_id in self._spared


def _deaths(trial: TuneTrial) -> int:
    """Of its worker since it last came further."""
    return trial.num_failures - trial.max_failures + MOST_DEATHS
