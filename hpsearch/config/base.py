"""Base class of settings: frozen, strict about unknown keys, and with field names of 0.1.0."""

import warnings
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self

from pydantic import BaseModel, ConfigDict, GetCoreSchemaHandler, model_validator
from pydantic_core import CoreSchema, core_schema

from hpsearch.errors import OldSpellingWarning

_MODE: ContextVar[Literal["classes", "all", "none"]] = ContextVar("_MODE", default="classes")
"""Old names that cause a warning: those of classes and of a ``Search``, or those of fields too."""


class FrozenConfig(BaseModel):
    """Base class of frozen settings; unions of settings are discriminated by ``kind``."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    former_names: ClassVar[Mapping[str, str]] = {}
    """Names that fields had in version 0.1.0, by their present ones; both are read."""
    later_fields: ClassVar[frozenset[str]] = frozenset()
    """Fields that 0.1.0 did not have; a digest omits them while they have their defaults."""

    @model_validator(mode="before")
    @classmethod
    def _read_former_names(cls, values: Any) -> Any:
        if not cls.former_names or not isinstance(values, Mapping):
            return values
        return cls._with_present_names(values)

    @classmethod
    def _with_present_names(cls, values: Mapping[str, Any]) -> dict[str, Any]:
        found = dict(values)
        for name, former in cls.former_names.items():
            if former in found:
                if name in found:
                    raise ValueError(f"{former} is the old name of {name}; leave one of them out")
                found[name] = found.pop(former)
                if _MODE.get() == "all":
                    warn_of_old_name(f"{former}= is {name}=")
        return found

    def model_copy(self, *, update: Mapping[str, Any] | None = None, deep: bool = False) -> Self:
        """A copy with other values, which are not checked; names of 0.1.0 are read here too."""
        present = self._with_present_names(update) if update and self.former_names else update
        return super().model_copy(update=present, deep=deep)

    if not TYPE_CHECKING:  # a type checker is to know the present names alone

        def __getattr__(self, name: str) -> Any:
            for present, former in type(self).former_names.items():
                if name == former:
                    return getattr(self, present)
            return super().__getattr__(name)


class Params(dict[str, str | float | int | bool | None]):
    """Arguments by name, as a setting: hashable, because settings are."""

    def __hash__(self) -> int:  # type: ignore[override]
        return hash(frozenset(self.items()))

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_after_validator_function(
            cls, handler(dict[str, str | float | int | bool | None])
        )


@contextmanager
def old_names_warned() -> Iterator[None]:
    """Warn of old names of fields too, which are read silently from stored files."""
    token = _MODE.set("all")
    try:
        yield
    finally:
        _MODE.reset(token)


@contextmanager
def old_names_silent() -> Iterator[None]:
    """Disable warnings of old names, in code that was checked when it was loaded."""
    token = _MODE.set("none")
    try:
        yield
    finally:
        _MODE.reset(token)


def warn_of_old_name(sentence: str, *, stacklevel: int = 3) -> None:
    """Issue one ``OldSpellingWarning``, for example of ``"SxK is PKSampler"``."""
    if _MODE.get() != "none":
        warnings.warn(f"old names: {sentence}", OldSpellingWarning, stacklevel=stacklevel)


def dump_former_names(value: Any, *, exclude: Collection[str] = ()) -> Any:
    """Convert settings to JSON values under the names of 0.1.0.

    Digests of settings are computed from these, so that they do not change between versions and a
    shared denoiser of an earlier version is found. ``exclude`` names omitted fields of ``value``.
    """
    if isinstance(value, FrozenConfig):
        fields = type(value).model_fields
        unset = {
            name for name in value.later_fields if getattr(value, name) == fields[name].default
        }
        return {
            value.former_names.get(name, name): dump_former_names(getattr(value, name))
            for name in fields
            if name not in exclude and name not in unset
        }
    if isinstance(value, tuple):
        return [dump_former_names(item) for item in value]
    return value
