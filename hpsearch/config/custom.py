"""Settings of the user's own objects: a loss, sampler, network, augmentation or metric."""

import json
from collections.abc import Iterator, Mapping
from typing import Any, Literal

from pydantic import BaseModel, Field, JsonValue, field_validator, model_validator

from hpsearch.config.base import FrozenConfig

_NAME = r"[A-Za-z_][A-Za-z0-9_]*(\.[A-Za-z_][A-Za-z0-9_]*)*"
OBJECT_PATTERN = f"^({_NAME}:)?{_NAME}$"
"""Pattern of ``MODULE:NAME`` or ``NAME``."""


class Custom(FrozenConfig):
    """Object of the user's own code, wherever a setting of a trial accepts one.

    A class is called with ``params``, and its instance with what the setting gives; a function is
    called with both. Objects are built again for every batch, so they hold no state.

    Example:
        >>> Custom(object="my_losses:Ranked", params={"margin": 0.5}).module
        'my_losses'
    """

    kind: Literal["custom"] = "custom"
    object: str = Field(pattern=OBJECT_PATTERN)
    """``MODULE:NAME`` of a module next to the space file, or ``NAME`` of the space file itself."""
    params: Mapping[str, JsonValue] = Field(default_factory=dict)
    """Keyword arguments of the class or function, as values of JSON."""
    packages: tuple[str, ...] = ()
    """Packages that the object imports in addition to those of hpsearch, as for pip:
    ``"scipy>=1.11"``; checked on every node before trials start."""
    sha256: str | None = Field(default=None, pattern="^[0-9a-f]{64}$")
    """Digest of the object's source and of the modules next to it that it imports; filled in when
    the space draws a trial, so that it is part of the trial's identity."""

    def __hash__(self) -> int:
        return hash((type(self), self.model_dump_json()))

    @property
    def module(self) -> str:
        """Name of the module; empty for the space file itself."""
        return self.object.rpartition(":")[0]

    @property
    def name(self) -> str:
        """Name of the object in its module."""
        return self.object.rpartition(":")[2]

    @model_validator(mode="before")
    @classmethod
    def _read_plain(cls, values: Any) -> Any:
        """Accept a plain ``Custom`` where one of a certain kind is needed."""
        if isinstance(values, Custom) and not isinstance(values, cls):
            return {name: getattr(values, name) for name in Custom.model_fields}
        return values

    @field_validator("params", mode="before")
    @classmethod
    def _check_params(cls, values: Any) -> Any:
        if not isinstance(values, Mapping):
            return values
        try:
            return json.loads(json.dumps(dict(values), allow_nan=False))
        except (TypeError, ValueError) as error:
            raise ValueError(
                f"params travel to workers as JSON, and cannot hold one of these ({error}); give "
                "numbers, texts, lists or mappings, and build other values in the object"
            ) from error

    @field_validator("packages")
    @classmethod
    def _check_packages(cls, values: tuple[str, ...]) -> tuple[str, ...]:
        if not values:
            return values
        from packaging.requirements import InvalidRequirement, Requirement  # none on a bare worker

        try:
            for text in values:
                Requirement(text)
        except InvalidRequirement as error:
            raise ValueError(
                f"{values!r} are not packages as for pip ({str(error).splitlines()[0]}); write for "
                "example 'scipy>=1.11'"
            ) from error
        return values


class CustomLoss(Custom):
    """The user's own loss: descriptors (calls, n, d) to a scalar that is minimized.

    ``descriptors`` are float32: (3, n, d) of anchors, positives and negatives for triplets,
    (2, n, d) of anchors and positives for pairs, (1, P·K, d) point by point for P×K batches.
    """

    collapse_value: float | None = Field(default=None, ge=-1e9, le=1e9)
    """Loss of an encoder that maps every patch to one point; None stands for the loss of a batch of
    equal descriptors."""


class CustomNetwork(Custom):
    """The user's own network: a ``torch.nn.Module`` from gray levels (B, 1, 32, 32) to (B, d).

    Initial weights are those that the class sets, drawn with the seed of the trial. Its model is
    registered as an ONNX program, which needs no source.
    """

    descriptor_dim: int = Field(default=128, ge=2, le=4096)
    """d, numbers in a descriptor."""
    unit_norm: bool = True
    """Divide every descriptor by its Euclidean norm."""


class CustomAugmentation(Custom):
    """The user's own augmentation: called with (patches, points, rng), it returns patches.

    ``patches`` are gray levels (calls, n, 1, 32, 32) on the device of the trial, ``points``
    (calls, n) the numbers of their points, and ``rng`` a NumPy generator for this step.
    """


class CustomMetric(Custom):
    """The user's own metric of validation descriptors, reported as ``val/custom/LABEL``.

    Called with descriptors (rows, d), the point of each row and the sequence of each row, as NumPy
    arrays, it returns a number.
    """

    label: str = Field(pattern=r"^[A-Za-z_][A-Za-z0-9_-]{0,40}$")
    """Last part of the metric's name."""


def custom_parts(value: Any, name: str = "") -> Iterator[tuple[str, Custom]]:
    """Yield the user's own objects in a configuration, with the name of the setting."""
    if isinstance(value, Custom):
        yield name, value
    elif isinstance(value, BaseModel):
        for field in type(value).model_fields:
            yield from custom_parts(getattr(value, field), f"{name}.{field}" if name else field)
    elif isinstance(value, tuple):
        for number, item in enumerate(value):
            yield from custom_parts(item, f"{name}.{number}")


def with_replaced(value: Any, changes: Mapping[Custom, Custom]) -> Any:
    """Configuration with other custom objects in the place of those that ``changes`` names."""
    if isinstance(value, Custom):
        return changes.get(value, value)
    if isinstance(value, BaseModel):
        own = {name: getattr(value, name) for name in type(value).model_fields}
        new = {name: with_replaced(item, changes) for name, item in own.items()}
        changed = {name: item for name, item in new.items() if item is not own[name]}
        return value.model_copy(update=changed) if changed else value
    if isinstance(value, tuple):
        new_items = tuple(with_replaced(item, changes) for item in value)
        same = all(new is old for new, old in zip(new_items, value, strict=True))
        return value if same else new_items
    return value
