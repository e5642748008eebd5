"""A search of thousands of trials, many at a time, with its study in a file: cost of the driver.

Recorded curves stand for training, so all that is measured is sampling, stopping, and the study.
"""

import resource
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from replay import Replay, Report, Row, Table, as_result

from hpsearch.execution.optuna_searcher import OptunaSearcher
from hpsearch.search.pruners import PrunerWithHistory, build_pruner
from hpsearch.search.space_file import load_search


@dataclass
class Metered:
    """Our bridge with its study in a file; any row stands for any number of trials."""

    table: Table
    bridge: OptunaSearcher
    every: int
    ended: int = 0
    marks: list[tuple[int, float, float, float]] = field(default_factory=list)
    """Trials that have ended; CPU seconds, wall seconds and MB so far."""
    seconds: dict[str, float] = field(default_factory=dict)
    """CPU seconds by activity."""

    def __post_init__(self) -> None:
        self._mark()

    def ask(self, name: str) -> Row | None:
        config = self._timed("suggest", self.bridge.suggest, name)
        if not isinstance(config, dict):
            return None
        return self.table.rows[self.table.nearest(self.bridge._running[name].params)]

    def report(self, name: str, report: Report) -> None:
        self._timed("report", self.bridge.on_trial_result, name, as_result(report))

    def end(self, name: str, report: Report) -> None:
        self._timed("end", self.bridge.on_trial_complete, name, as_result(report))
        self.ended += 1
        if self.ended % self.every == 0:
            self._mark()

    def _timed(self, what: str, function: Any, *arguments: Any) -> Any:
        began = time.process_time()
        result = function(*arguments)
        self.seconds[what] = self.seconds.get(what, 0.0) + time.process_time() - began
        return result

    def _mark(self) -> None:
        megabytes = resident()
        self.marks.append((self.ended, time.process_time(), time.perf_counter(), megabytes))


def resident() -> float:
    """Memory of this process in MB; its maximum so far if the present value is not available."""
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        return pages * resource.getpagesize() / 1e6
    except OSError:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3


def scaled(
    table: Table, space: Path, folder: Path, *, trials: int, at_once: int, marks: int = 8
) -> Metered:
    """Run it; the study lands in ``folder``."""
    search = load_search(space)
    pruner = build_pruner(
        search.active_pruner, grace_period=search.first_report, budget=search.budget
    )
    bridge = OptunaSearcher(folder, space=space, trials=trials)
    metered = Metered(table, bridge, trials // marks)
    history = PrunerWithHistory(pruner, direction="maximize", name="scale")
    Replay(metered, history, workers=at_once).run()
    return metered
