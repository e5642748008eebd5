"""What draws the points of a search, by name."""

import warnings
from typing import Literal

import numpy as np
import optuna

from hpsearch.search.tpe import FrugalTPE, Known

SamplerName = Literal["tpe", "random", "gp", "nsga2", "grid", "chosen"]
LISTED: tuple[SamplerName, ...] = ("grid", "chosen")
"""These draw nothing: their points are known before the search begins."""
POPULATION = 10
"""Of NSGA-II. Optuna's 50 would be random search for most of a search of a hundred trials."""


def build_sampler(
    name: SamplerName, *, seed: int, point: int, known: Known | None = None
) -> optuna.samplers.BaseSampler:
    """The sampler that draws the ``point``-th point of a search.

    Each point has a random stream of its own, so that a search that goes on after a crash draws
    what it would have drawn, and never the same point twice, with nothing to remember but the
    study.

    Args:
        known: what the samplers of earlier points have read of the study.
    """
    stream = int(np.random.SeedSequence([seed, point]).generate_state(1)[0])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        match name:
            case "tpe":
                # group: in a conditional space, names that occur together are modelled together;
                # no liar: it counts trials that run as bad ones, the promising too, and replays
                # of recorded searches need fewer patches without it
                return FrugalTPE(seed=stream, known=known or Known(), n_startup_trials=6)
            case "gp":
                return optuna.samplers.GPSampler(
                    seed=stream, n_startup_trials=6, deterministic_objective=False
                )
            case "nsga2":
                return optuna.samplers.NSGAIISampler(seed=stream, population_size=POPULATION)
            case "random" | "grid" | "chosen":
                return optuna.samplers.RandomSampler(seed=stream)
