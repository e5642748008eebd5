"""The recorded space with a corner in which networks collapse: hard batches at high rates.

Of 82 random configurations of ``replay_space.py`` none collapsed, so they cannot show the benefit
of reporting a collapse to the sampler. Here Adam's rate may be up to 1, and recording begins in the
corner.
"""

from collections.abc import Mapping
from functools import partial
from typing import Any

import numpy as np
import replay_space

CORNER = 200
"""Points to begin with."""


def corner() -> list[Mapping[str, Any]]:
    """Batch hard and batch all with Adam, rates log-uniform from 3e-3 to 1; the rest at random."""
    rates = np.exp(np.random.default_rng(0).uniform(np.log(3e-3), np.log(1.0), CORNER))
    losses = ("batch_hard", "batch_all", "batch_hard")
    return [
        {"loss": losses[i % 3], "optimiser": "adam", "adam_lr": float(f"{rate:.3g}")}
        for i, rate in enumerate(rates)
    ]


SEARCH = replay_space.SEARCH.with_changes(
    suggest=partial(replay_space.suggest, highest_adam=1.0), initial_points=tuple(corner())
)
