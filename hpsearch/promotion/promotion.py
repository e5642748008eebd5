"""Former name of `hpsearch.promotion.retraining_plan`, which promotions of 0.1.0 import."""

from hpsearch.promotion.retraining_plan import chosen_search

__all__ = ["chosen_search"]
