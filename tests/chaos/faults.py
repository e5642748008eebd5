"""Faults inside a trial, for the workers of a test's own Ray; a trial asks for one by its seed.

Ray runs ``arm`` in each worker as it starts.
"""

import ctypes
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from hpsearch.files import whole
from hpsearch.training.loop import Progress, Report
from hpsearch.training.tasks import DescriptorTask
from hpsearch.training.trial import CHECKPOINT, Trial

MARKED = "HPSEARCH_TEST_MARKS"
"""Environment variable: a folder for what faults must remember."""
SEED = {
    "none": 0,
    "raises at step 1": 1,
    "raises at step 1000": 2,
    "raises while it saves": 3,
    "hangs in C": 4,
    "is killed again and again": 5,
    "kills itself at one step": 6,
    "asks NumPy for too much": 7,
    "asks torch for too much": 8,
    "eats all memory": 9,
}
LARGEST = 8 << 30
"""Bytes that a trial eats at most, should nobody stop it."""
KILLED_AT = (100, 250, 400, 600, 750, 900)


def arm() -> None:
    """Make training steps and checkpoints fail in the trials that ask for it."""
    DescriptorTask.step = _hurt_step(DescriptorTask.step)  # type: ignore[method-assign]
    Trial.save = _hurt_save(Trial.save)  # type: ignore[method-assign]


def _hurt_step(step: Callable) -> Callable:
    def hurt(self: DescriptorTask, progress: Progress) -> object:
        _fault(self.config.seed, progress.step + 1)
        return step(self, progress)

    return hurt


def _fault(seed: int, step: int) -> None:
    match next(name for name, number in SEED.items() if number == seed), step:
        case ("raises at step 1", 1) | ("raises at step 1000", 1000):
            raise ZeroDivisionError(f"in step {step}\nand more of it")
        case "hangs in C", 200:
            _mark(f"pid of {seed}", str(os.getpid()))
            ctypes.PyDLL(None).sleep(3_600)  # and holds Python's lock
        case "is killed again and again", at if at in KILLED_AT and _mark(f"killed at {at}"):
            os.kill(os.getpid(), signal.SIGKILL)
        case "kills itself at one step", 200:
            os.kill(os.getpid(), signal.SIGKILL)
        case "asks NumPy for too much", 200:
            np.zeros(1 << 50)
        case "asks torch for too much", 200:
            torch.zeros(1 << 50)
        case "eats all memory", 60:
            _eat()


def _eat() -> None:
    eaten = []
    for _ in range(LARGEST >> 26):
        eaten.append(np.ones(1 << 23))  # 64 MiB
        time.sleep(0.05)


def _hurt_save(save: Callable) -> Callable:
    def hurt(self: Trial, folder: Path, report: Report | None = None) -> None:
        hurts = self.task.config.seed == SEED["raises while it saves"]
        if hurts and (folder / CHECKPOINT).exists():
            with whole(folder / CHECKPOINT) as draft:
                draft.write_bytes(b"half a checkpoint")
                raise RuntimeError("in the middle of a checkpoint")
        save(self, folder, report)

    return hurt


def _mark(name: str, content: str = "") -> bool:
    """Whether this has not happened before."""
    path = Path(os.environ[MARKED]) / name
    if path.exists():
        return False
    path.write_text(content)
    return True
