"""Former name of `hpsearch.models.serialization`, which models registered by 0.1.0 name."""

from hpsearch.models.serialization import _load_pyfunc

__all__ = ["_load_pyfunc"]
