"""Learning rates as pure functions of patches seen, so that resuming cannot shift them."""

import math

from hpsearch.config import Constant, Cosine, Exponential, Schedule, StepDecay


def rate_factor(schedule: Schedule, *, seen: int, budget: int) -> float:
    """What the optimiser's rate is multiplied by, in [0, 1].

    Args:
        schedule: the shape of the curve.
        seen: patches seen before the step, at most ``budget``.
        budget: patches that the whole training sees.
    """
    share = seen / budget
    rise = min(1.0, share / schedule.warm_up) if schedule.warm_up else 1.0
    return rise * _decay(schedule, share)


def _decay(schedule: Schedule, share: float) -> float:
    match schedule:
        case Constant():
            return 1.0
        case StepDecay(at=at, factor=factor):
            return factor ** sum(share >= start for start in at)
        case Cosine(final=final):
            return final + (1 - final) * (1 + math.cos(math.pi * share)) / 2
        case Exponential(final=final):
            return final**share
