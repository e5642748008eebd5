"""Base class of all settings: frozen, and an unknown key is an error."""

from pydantic import BaseModel, ConfigDict, ValidationError


class Setting(BaseModel):
    """A frozen value; a choice between settings is a union told apart by ``kind``."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


def validation_sentence(error: ValidationError) -> str:
    """A pydantic error as one sentence that names the first setting that is wrong."""
    first = error.errors()[0]
    where = ".".join(str(part) for part in first["loc"]) or error.title
    if first["type"] == "extra_forbidden":
        return f"there is no setting {where!r}; remove it or correct its name"
    cause = first.get("ctx", {}).get("error")
    if not first["loc"] and cause is not None:
        return str(cause)  # of a check of ours over several settings
    return f"setting {where!r} is wrong: {first['msg']} (got {first.get('input')!r})"
