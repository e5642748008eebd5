"""What every trial of a space has in common: no column is needed for it."""

import optuna

from hpsearch.config.flat import Flat, flatten
from hpsearch.search.search import Search

DRAWS = 64


def constants(search: Search, *, draws: int = DRAWS) -> dict[str, Flat]:
    """Settings that have one value wherever they occur among configurations drawn at random.

    A setting that follows from its variant is such a one. A rare value may be missed; who uses this
    compares each trial with the values.
    """
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=search.seed))
    for point in search.first:
        study.enqueue_trial(dict(point))
    seen: dict[str, set[Flat]] = {}
    for _ in range(draws + len(search.first)):
        for name, value in flatten(search.draw(study.ask())).items():
            seen.setdefault(name, set()).add(value)
    return {name: values.pop() for name, values in seen.items() if len(values) == 1}
