"""Faults inside a trial, for the workers of a test's own Ray; a trial asks for one by its seed.

Ray runs ``arm`` in each worker as it starts.
"""

import ctypes
import os
import signal
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from hpsearch.atomic_files import atomic_write, write_atomic
from hpsearch.training.loop import Progress, Report
from hpsearch.training.trial import CHECKPOINT_FILE, DescriptorTask, TrainingRun

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
SPACE = """
from hpsearch.config import Adam, L2Net, RandomTriplets, TrialConfig
from hpsearch.search.pruners import NoPruner
from hpsearch.search.samplers import Fixed
from hpsearch.search.search import Search

PATCHES = {patches}

def suggest(trial):
    return TrialConfig(descriptor=L2Net(width=0.03125, input_norm=True),
                       sampler=RandomTriplets(batch=2), optimizer=Adam(lr=1e-3), patches=PATCHES,
                       seed=trial.suggest_int("fault", 0, 99))

SEARCH = Search(suggest=suggest, budget=PATCHES, report_every=PATCHES // 6,
                validation_points=8, sampler=Fixed(points=[{{"fault": i}} for i in {seeds}]),
                baseline=TrialConfig(descriptor=L2Net(width=0.03125), patches=1_200),
                pruner=NoPruner())
"""
PATCHES = 6_120
"""1,020 steps."""
LARGEST = 8 << 30
"""Bytes that a trial eats at most, should nobody stop it."""
HELD, HELD_STEP_S = "held", 2.0
"""Mark: from how many patches on trials are held; and how long a step of a held trial takes."""
HUNG = "hung "
"""How the marks begin that name a process which hangs."""
KILLED_AT = (100, 250, 400, 600, 750, 900)


def arm() -> None:
    """Make training steps and checkpoints fail in the trials that ask for it."""
    DescriptorTask.step = _hurt_step(DescriptorTask.step)  # type: ignore[method-assign]
    TrainingRun.save = _hurt_save(TrainingRun.save)  # type: ignore[method-assign]


def faulty_space(faults: Sequence[str], *, patches: int = PATCHES) -> str:
    """A space with a trial for each fault, in this order."""
    return SPACE.format(patches=patches, seeds=[SEED[fault] for fault in faults])


@dataclass(frozen=True)
class Hold:
    """Holds trials, so that a test does not depend on how fast they are.

    A step of a held trial takes so long that no further report comes while the test does what it
    has to do. Between two steps the trial still looks whether it is to save and leave.
    """

    marks: Path

    def at(self, patches: int) -> None:
        """Hold trials that have seen so many patches."""
        write_atomic(self.marks / HELD, str(patches))

    def release(self) -> None:
        (self.marks / HELD).unlink()


def hung(marks: Path) -> list[int]:
    """Processes that have hung, the latest last."""
    found = sorted(marks.glob(f"{HUNG}*"), key=lambda path: path.stat().st_mtime)
    return [int(path.name.removeprefix(HUNG)) for path in found]


def assert_freed(pid: int) -> None:
    """A process ends, and not only when its sleep does."""
    deadline = time.monotonic() + 300
    while Path(f"/proc/{pid}").exists():
        assert time.monotonic() < deadline, "the process that hangs is still there"
        time.sleep(0.2)


def _hurt_step(step: Callable) -> Callable:
    def hurt(self: DescriptorTask, progress: Progress) -> object:
        _fault(self.config.seed, progress.step + 1)
        if progress.seen >= _held_from():
            time.sleep(HELD_STEP_S)
        return step(self, progress)

    return hurt


def _fault(seed: int, step: int) -> None:
    match next(name for name, number in SEED.items() if number == seed), step:
        case ("raises at step 1", 1) | ("raises at step 1000", 1000):
            raise ZeroDivisionError(f"in step {step}\nand more of it")
        case "hangs in C", 200:
            _mark(f"{HUNG}{os.getpid()}")
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


def _held_from() -> float:
    try:
        return float((Path(os.environ[MARKED]) / HELD).read_text())
    except (KeyError, FileNotFoundError):
        return float("inf")


def _eat() -> None:
    eaten = []
    for _ in range(LARGEST >> 26):
        eaten.append(np.ones(1 << 23))  # 64 MiB
        time.sleep(0.05)


def _hurt_save(save: Callable) -> Callable:
    def hurt(self: TrainingRun, folder: Path, report: Report | None = None) -> None:
        hurts = self.task.config.seed == SEED["raises while it saves"]
        if hurts and (folder / CHECKPOINT_FILE).exists():
            with atomic_write(folder / CHECKPOINT_FILE) as draft:
                draft.write_bytes(b"half a checkpoint")
                raise RuntimeError("in the middle of a checkpoint")
        save(self, folder, report)

    return hurt


def _mark(name: str) -> bool:
    """Whether this has not happened before."""
    path = Path(os.environ[MARKED]) / name
    if path.exists():
        return False
    path.touch()
    return True
