"""Former module of `Limits`, which spaces of promotions of 0.1.0 import."""

from hpsearch.search.stopping import Limits

__all__ = ["Limits"]
