"""Runs that differ in their training seed alone belong together."""

from hpsearch.config import SGD, TrialConfig
from hpsearch.tracking.runs import Run, repeats


def run(number: int, rate: float, seed: int) -> Run:
    config = TrialConfig(optimiser=SGD(lr=rate), seed=seed)
    return Run(id=str(number), number=number, config=config, started=0.0)


def test_repeats_stand_together_in_order() -> None:
    runs = [run(0, 0.1, 0), run(1, 0.2, 0), run(2, 0.1, 1), run(3, 0.2, 1), run(4, 0.1, 2)]
    assert [[r.number for r in group] for group in repeats(runs)] == [[0, 2, 4], [1, 3]]
