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
from hpsearch.execution.shutdown import TrialInterrupted

OOM_MESSAGES = ("DefaultCPUAllocator: can't allocate memory", "RESOURCE_EXHAUSTED")
"""How torch on the CPU, and XLA, say that there is no memory: in a RuntimeError."""


class DiskFullError(UserError):
    """A disk is full: the search stops and can go on."""


def describe_fullest_disk(paths: Iterable[Path]) -> str:
    """Which of the disks has least room, in words."""
    free_bytes = {path: shutil.disk_usage(path).free for path in paths if path.exists()}
    fullest = min(free_bytes, key=lambda path: free_bytes[path])
    return f"the disk that holds {fullest} on {platform.node()} is full"


def is_out_of_memory(error: BaseException) -> bool:
    """Whether a trial has found no memory, of the machine or of its accelerator."""
    if isinstance(error, (MemoryError, torch.OutOfMemoryError)):
        return True
    return isinstance(error, RuntimeError) and any(word in str(error) for word in OOM_MESSAGES)


def is_transient(error: BaseException) -> bool:
    """Whether the same trial may do on another try: disks and networks recover.

    Anything else would be raised again: training from a checkpoint repeats itself to the bit.
    """
    return isinstance(error, OSError)


def format_trial_error(error: BaseException) -> str:
    """What a trial raised; for an error that is not its user's, with the line that raised it."""
    if isinstance(error, UserError):
        return str(error)
    message = " ".join(str(error).split("\n")[0].split())[:300]
    if is_out_of_memory(error):
        where = "GPU memory" if isinstance(error, torch.OutOfMemoryError) else "memory"
        return f"out of {where} ({message or 'no message'}); {_oom_advice(where)}"
    location = traceback.extract_tb(error.__traceback__)[-1]
    at = f"{Path(location.filename).name}:{location.lineno}"
    return f"{type(error).__name__}: {message or 'no message'} ({at})"


def describe_worker_death(ray_error: str) -> str:
    """Why a worker died, by what Ray said of it."""
    if is_node_oom(ray_error):
        return f"the machine ran out of memory, so Ray killed its worker; {_oom_advice('memory')}"
    if was_preempted(ray_error):
        return "its machine was taken away, after notice"
    if "ray::" in ray_error:  # raised by the trial: a disk or a network that did not recover
        return ray_error.strip().splitlines()[-1][:300]
    if "its node has died" in ray_error:
        return "its machine went away"
    return (
        "its worker process died: the system kills what takes too much memory, else native code "
        "has crashed"
    )


def is_node_oom(ray_error: str) -> bool:
    """Whether Ray killed a worker because its machine had no memory left."""
    return "running low on memory" in ray_error


def was_preempted(ray_error: str) -> bool:
    """Whether a trial left a machine that was about to go."""
    return f"{TrialInterrupted.__name__}: " in ray_error


def _oom_advice(where: str) -> str:
    if where == "GPU memory":
        return "lower the batch, or give each trial more of a GPU with --gpus-per-trial"
    return "lower the batch, or run fewer trials at once with --max-concurrent-trials"


MAX_DEATHS_WITHOUT_PROGRESS = 5
"""Deaths of a trial's worker, without a report further than any before, after which it goes on."""


@dataclass
class RetryPolicy:
    """A trial whose worker died, with its machine or without, goes on from its checkpoint.

    It may do so any number of times as long as it comes further between, so that a search on
    machines that come and go loses nobody; a trial that kills its worker at the same step each time
    ends. A trial that raised has no second try, since it would raise again.
    """

    _furthest_seen: dict[str, int] = field(default_factory=dict)
    """Patches seen, by the trial's name."""
    _deaths: dict[str, int] = field(default_factory=dict)
    """Since a report that was further than any before, by the trial's name."""
    _not_retried: set[str] = field(default_factory=set)
    """By Tune's id, which is another each time that a trial begins."""
    _reasons: dict[str, str] = field(default_factory=dict)
    _gpu_oom: set[str] = field(default_factory=set)
    _node_oom: set[str] = field(default_factory=set)
    _retried: set[str] = field(default_factory=set)

    def load_history(self, events: Iterable[Mapping[str, Any]]) -> None:
        """Learn from the ledger how far the trials had come in earlier sessions."""
        for event in events:
            if event["event"] == "report":
                self.record_progress(event["trial"], event["seen"])

    def record_progress(self, name: str, seen: int) -> None:
        """A report came; if it is new, deaths before it count no more."""
        if seen > self._furthest_seen.get(name, 0):
            self._furthest_seen[name] = seen
            self._deaths.pop(name, None)

    def mark_failed(self, trial_id: str, reason: str, *, out_of_gpu_memory: bool = False) -> None:
        """A trial has failed, whatever its worker does now.

        Args:
            out_of_gpu_memory: it found no memory on its accelerator.
        """
        self._not_retried.add(trial_id)
        self._reasons[trial_id] = reason
        if out_of_gpu_memory:
            self._gpu_oom.add(trial_id)

    def record_worker_death(self, trial_id: str, name: str, ray_error: str) -> None:
        """A trial's worker died; what Ray said of it."""
        if trial_id in self._not_retried:
            return
        if is_node_oom(ray_error):
            self._node_oom.add(trial_id)
        if not was_preempted(ray_error):
            self._deaths[name] = self._deaths.get(name, 0) + 1
        times, why = self._deaths.get(name, 0), describe_worker_death(ray_error)
        self._reasons[trial_id] = f"death {times} without getting further: {why}"
        if times <= 1:
            self._reasons[trial_id] = why
        if times > MAX_DEATHS_WITHOUT_PROGRESS:
            self._not_retried.add(trial_id)

    def should_not_retry(self, trial_id: str) -> bool:
        """Whether a trial would fail again."""
        return trial_id in self._not_retried

    def out_of_gpu_memory(self, trial_id: str) -> bool:
        """Whether a trial found no memory on its accelerator."""
        return trial_id in self._gpu_oom

    def out_of_node_memory(self, trial_id: str) -> bool:
        """Whether a trial was killed because its machine had no memory left."""
        return trial_id in self._node_oom

    def failure_reason(self, trial_id: str) -> str:
        """Why a trial failed, or why its worker died."""
        return self._reasons.get(trial_id, "")

    def mark_retry(self, trial_id: str) -> None:
        """It has been decided that a trial goes on."""
        self._retried.add(trial_id)

    def will_retry(self, trial_id: str) -> bool:
        """Whether it does."""
        return trial_id in self._retried
