"""Old name of `hpsearch.models.serialization`, named by models that 0.1.0 registered."""

from hpsearch.models.serialization import _load_pyfunc

__all__ = ["_load_pyfunc"]
