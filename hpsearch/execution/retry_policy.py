"""Retry policy: classification of failures, and which trials are retried."""

import platform
import shutil
import traceback
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from hpsearch.errors import UserError
from hpsearch.execution.shutdown import TrialInterrupted

OOM_MESSAGES = ("DefaultCPUAllocator: can't allocate memory", "RESOURCE_EXHAUSTED")
"""Parts of messages with which torch on the CPU, and XLA, report exhausted memory."""


class DiskFullError(UserError):
    """Full disk, on which a search stops; it can be resumed."""


def describe_fullest_disk(paths: Iterable[Path]) -> str:
    """Describe the disk with the least free space."""
    free_bytes = {path: shutil.disk_usage(path).free for path in paths if path.exists()}
    fullest = min(free_bytes, key=lambda path: free_bytes[path])
    return f"the disk that holds {fullest} on {platform.node()} is full"


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether an error means exhausted memory, of the machine or of its accelerator."""
    if isinstance(error, (MemoryError, torch.OutOfMemoryError)):
        return True
    return isinstance(error, RuntimeError) and any(word in str(error) for word in OOM_MESSAGES)


def is_transient(error: BaseException) -> bool:
    """Return whether another attempt may succeed: disks and networks recover.

    Anything else would be raised again: training from a checkpoint repeats itself to the bit.
    """
    return isinstance(error, OSError)


def format_trial_error(error: BaseException) -> str:
    """Describe an error of a trial; one that is not the user's with the line that raised it."""
    if isinstance(error, UserError):
        return str(error)
    message = " ".join(str(error).split("\n")[0].split())[:300]
    if is_out_of_memory(error):
        where = "GPU memory" if isinstance(error, torch.OutOfMemoryError) else "memory"
        return f"out of {where} ({message or 'no message'}); {_oom_advice(where)}"
    location = traceback.extract_tb(error.__traceback__)[-1]
    at = f"{Path(location.filename).name}:{location.lineno}"
    return f"{type(error).__name__}: {message or 'no message'} ({at})"


def describe_worker_death(ray_error: str, *, killed_for_memory: bool = False) -> str:
    """Describe why a worker died, from the text of Ray's error.

    Args:
        ray_error: text of Ray's error.
        killed_for_memory: whether the system killed it because memory ran out.
    """
    if killed_for_memory:
        return f"memory ran out, so the system killed its worker; {_oom_advice('memory')}"
    if is_node_oom(ray_error):
        return f"the machine ran out of memory, so Ray killed its worker; {_oom_advice('memory')}"
    if was_preempted(ray_error):
        return "its machine was taken away, after notice"
    if "ray::" in ray_error:  # raised by the trial: a disk or a network that did not recover
        return ray_error.strip().splitlines()[-1][:300]
    if "its node has died" in ray_error:
        return "its machine went away"
    return "its worker process died: native code has crashed, or something killed it"


def is_unexplained_death(ray_error: str) -> bool:
    """Return whether a worker process died and Ray does not know why."""
    explained = (is_node_oom(ray_error), was_preempted(ray_error), "ray::" in ray_error)
    return not any(explained) and "its node has died" not in ray_error


def is_node_oom(ray_error: str) -> bool:
    """Return whether Ray killed a worker because its machine ran out of memory."""
    return "running low on memory" in ray_error


def was_preempted(ray_error: str) -> bool:
    """Return whether a trial saved and stopped after a preemption notice."""
    return f"{TrialInterrupted.__name__}: " in ray_error


def _oom_advice(where: str) -> str:
    if where == "GPU memory":
        return "lower the batch, or give each trial more of a GPU with --gpus-per-trial"
    return "lower the batch, or run fewer trials at once with --max-concurrent-trials"


MAX_DEATHS_WITHOUT_PROGRESS = 5
"""Worker deaths in a row, without a report further than any before, after which to retry."""


@dataclass
class RetryPolicy:
    """Rules for the retry of a trial whose worker died, with its machine or without.

    A retried trial resumes from its checkpoint. There is no limit as long as it gets further each
    time, so that a search on preemptible machines loses no trial; one that kills its worker at the
    same step each time fails. A trial that raised is not retried, since it would raise again.
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

    def load_history(self, events: Iterable[Mapping[str, Any]]) -> None:
        """Load from the event log how far the trials had come in earlier sessions."""
        for event in events:
            if event["event"] == "report":
                self.record_progress(event["trial"], event["seen"])

    def record_progress(self, name: str, seen: int) -> None:
        """Record a report; if it is the furthest so far, forget the deaths before it."""
        if seen > self._furthest_seen.get(name, 0):
            self._furthest_seen[name] = seen
            self._deaths.pop(name, None)

    def mark_failed(self, trial_id: str, reason: str, *, out_of_gpu_memory: bool = False) -> None:
        """Fail a trial for good, whatever its worker does now.

        Args:
            out_of_gpu_memory: whether memory of its accelerator ran out.
        """
        self._not_retried.add(trial_id)
        self._reasons[trial_id] = reason
        if out_of_gpu_memory:
            self._gpu_oom.add(trial_id)

    def record_worker_death(
        self,
        trial_id: str,
        name: str,
        ray_error: str,
        was_killed_for_memory: Callable[[], bool] = lambda: False,
    ) -> None:
        """Record the death of a trial's worker.

        Args:
            trial_id: Tune's.
            name: of the trial.
            ray_error: text of Ray's error.
            was_killed_for_memory: called if the error gives no reason; returns whether the system
                killed the worker because memory ran out.
        """
        if trial_id in self._not_retried:
            return
        killed = is_unexplained_death(ray_error) and was_killed_for_memory()
        if killed or is_node_oom(ray_error):
            self._node_oom.add(trial_id)
        if not was_preempted(ray_error):
            self._deaths[name] = self._deaths.get(name, 0) + 1
        times = self._deaths.get(name, 0)
        why = describe_worker_death(ray_error, killed_for_memory=killed)
        self._reasons[trial_id] = f"death {times} without getting further: {why}"
        if times <= 1:
            self._reasons[trial_id] = why
        if times > MAX_DEATHS_WITHOUT_PROGRESS:
            self._not_retried.add(trial_id)

    def should_not_retry(self, trial_id: str) -> bool:
        """Return whether a trial would fail again."""
        return trial_id in self._not_retried

    def out_of_gpu_memory(self, trial_id: str) -> bool:
        """Return whether memory of a trial's accelerator ran out."""
        return trial_id in self._gpu_oom

    def out_of_node_memory(self, trial_id: str) -> bool:
        """Return whether a trial was killed because its machine ran out of memory."""
        return trial_id in self._node_oom

    def failure_reason(self, trial_id: str) -> str:
        """Describe why a trial failed, or why its worker died."""
        return self._reasons.get(trial_id, "")
