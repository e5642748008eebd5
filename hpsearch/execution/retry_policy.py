"""Retry policy: classification of failures, and which trials are retried."""

import platform
import shutil
import traceback
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from hpsearch.errors import UserError
from hpsearch.execution.shutdown import Preempted

MEMORY_WORDS = ("DefaultCPUAllocator: can't allocate memory", "RESOURCE_EXHAUSTED")
"""How torch on the CPU, and XLA, say that there is no memory: in a RuntimeError."""


class Halted(UserError):
    """A disk is full: the search stops and can go on."""


def full_disk(paths: Iterable[Path]) -> str:
    """Which of the disks has least room, in words."""
    room = {path: shutil.disk_usage(path).free for path in paths if path.exists()}
    fullest = min(room, key=lambda path: room[path])
    return f"the disk that holds {fullest} on {platform.node()} is full"


def lacks_memory(error: BaseException) -> bool:
    """Whether a trial has found no memory, of the machine or of its accelerator."""
    if isinstance(error, (MemoryError, torch.OutOfMemoryError)):
        return True
    return isinstance(error, RuntimeError) and any(word in str(error) for word in MEMORY_WORDS)


def may_pass(error: BaseException) -> bool:
    """Whether the same trial may do on another try: disks and networks recover.

    Anything else would be raised again: training from a checkpoint repeats itself to the bit.
    """
    return isinstance(error, OSError)


def words(error: BaseException) -> str:
    """What a trial raised; for an error that is not its user's, with the line that raised it."""
    if isinstance(error, UserError):
        return str(error)
    said = " ".join(str(error).split("\n")[0].split())[:300]
    if lacks_memory(error):
        where = "GPU memory" if isinstance(error, torch.OutOfMemoryError) else "memory"
        return f"out of {where} ({said or 'no message'}); {_remedy(where)}"
    place = traceback.extract_tb(error.__traceback__)[-1]
    at = f"{Path(place.filename).name}:{place.lineno}"
    return f"{type(error).__name__}: {said or 'no message'} ({at})"


def death(said: str) -> str:
    """Why a worker died, by what Ray said of it."""
    if memory_ran_out(said):
        return f"the machine ran out of memory, so Ray killed its worker; {_remedy('memory')}"
    if went_with_notice(said):
        return "its machine was taken away, after notice"
    if "ray::" in said:  # raised by the trial: a disk or a network that did not recover
        return said.strip().splitlines()[-1][:300]
    if "its node has died" in said:
        return "its machine went away"
    return (
        "its worker process died: the system kills what takes too much memory, else native code "
        "has crashed"
    )


def memory_ran_out(said: str) -> bool:
    """Whether Ray killed a worker because its machine had no memory left."""
    return "running low on memory" in said


def went_with_notice(said: str) -> bool:
    """Whether a trial left a machine that was about to go."""
    return f"{Preempted.__name__}: " in said


def _remedy(where: str) -> str:
    if where == "GPU memory":
        return "lower the batch, or give each trial more of a GPU with --gpus-per-trial"
    return "lower the batch, or run fewer trials at once with --concurrent"


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
