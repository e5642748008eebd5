"""Named random streams: adding a consumer does not change the numbers of the others."""

import numpy as np


def rng_for(seed: int, role: str, step: int) -> np.random.Generator:
    """Random generator for one role and step; a pure function of its three arguments.

    Each step has its own stream, so a resumed run needs no sampler state.

    Example:
        >>> a, b = rng_for(0, "batch", 7), rng_for(0, "batch", 7)
        >>> bool((a.random(3) == b.random(3)).all())
        True
    """
    # A spawn key is hashed separately from the entropy, so (1, 2) and a long seed cannot coincide.
    return np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(step, *role.encode())))
