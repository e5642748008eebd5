"""Base class of all settings: frozen, and an unknown key is an error."""

from pydantic import BaseModel, ConfigDict


class FrozenConfig(BaseModel):
    """A frozen value; a choice between settings is a union told apart by ``kind``."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)
