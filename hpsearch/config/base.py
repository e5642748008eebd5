"""Base class of all settings: frozen, and an unknown key is an error."""

from pydantic import BaseModel, ConfigDict


class FrozenConfig(BaseModel):
    """Base class of frozen settings; unions of settings are discriminated by ``kind``."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)
