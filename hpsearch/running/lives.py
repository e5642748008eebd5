"""Which trials begin again after their worker died, and why the others have failed."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from hpsearch.running.failures import death, memory_ran_out, went_with_notice

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
    _deaths: dict[str, int] = field(default_factory=dict)
    """Since a report that was further than any before, by the trial's name."""
    _hopeless: set[str] = field(default_factory=set)
    """By Tune's id, which is another each time that a trial begins."""
    _reasons: dict[str, str] = field(default_factory=dict)
    _squeezed: set[str] = field(default_factory=set)
    _crowded: set[str] = field(default_factory=set)
    _again: set[str] = field(default_factory=set)

    def hear(self, events: Iterable[Mapping[str, Any]]) -> None:
        """Learn from the ledger how far the trials had come in earlier sessions."""
        for event in events:
            if event["event"] == "report":
                self.progress(event["trial"], event["seen"])

    def progress(self, name: str, seen: int) -> None:
        """A report came; if it is new, deaths before it count no more."""
        if seen > self._furthest.get(name, 0):
            self._furthest[name] = seen
            self._deaths.pop(name, None)

    def give_up(self, trial_id: str, reason: str, *, squeezed: bool = False) -> None:
        """A trial has failed, whatever its worker does now.

        Args:
            squeezed: it found no memory on its accelerator.
        """
        self._hopeless.add(trial_id)
        self._reasons[trial_id] = reason
        if squeezed:
            self._squeezed.add(trial_id)

    def died(self, trial_id: str, name: str, said: str) -> None:
        """A trial's worker died; what Ray said of it."""
        if trial_id in self._hopeless:
            return
        if memory_ran_out(said):
            self._crowded.add(trial_id)
        if not went_with_notice(said):
            self._deaths[name] = self._deaths.get(name, 0) + 1
        times, why = self._deaths.get(name, 0), death(said)
        self._reasons[trial_id] = f"death {times} without getting further: {why}"
        if times <= 1:
            self._reasons[trial_id] = why
        if times > MOST_DEATHS:
            self._hopeless.add(trial_id)

    def hopeless(self, trial_id: str) -> bool:
        """Whether a trial would fail again."""
        return trial_id in self._hopeless

    def squeezed(self, trial_id: str) -> bool:
        """Whether a trial found no memory on its accelerator."""
        return trial_id in self._squeezed

    def crowded(self, trial_id: str) -> bool:
        """Whether a trial was killed because its machine had no memory left."""
        return trial_id in self._crowded

    def reason(self, trial_id: str) -> str:
        """Why a trial failed, or why its worker died."""
        return self._reasons.get(trial_id, "")

    def begin_again(self, trial_id: str) -> None:
        """It has been decided that a trial goes on."""
        self._again.add(trial_id)

    def begins_again(self, trial_id: str) -> bool:
        """Whether it does."""
        return trial_id in self._again
