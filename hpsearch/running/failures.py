"""Why a trial failed, in words for its user."""

import platform
import shutil
import traceback
from collections.abc import Iterable
from pathlib import Path

import torch

from hpsearch.errors import UserError
from hpsearch.running.checkpointed import Preempted

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
