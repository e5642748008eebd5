"""Named random streams, so that adding a consumer never moves the others."""

import numpy as np


def rng_for(seed: int, role: str, step: int) -> np.random.Generator:
    """Generator that is a pure function of its three arguments.

    Batch number ``step`` comes from its own stream, so a resumed run needs no sampler state.
    """
    # A spawn key is hashed apart from the entropy, so (1, 2) and a long seed cannot coincide.
    return np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(step, *role.encode())))
