"""Settings of a search that are changed at its start, such as ``budget=200_000``.

A name is a setting of the ``Search`` (``budget``, ``pruner.reduction_factor``), or one of every
trial's configuration (``descriptor.width``); ``trial.`` in front means the latter where both have
one of that name. A setting of the configuration is replaced after ``suggest`` has drawn it, and in
the baseline, wherever the configuration has it.
"""

import ast
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import is_dataclass
from typing import Any, TypeVar, get_args, get_type_hints

import optuna
from pydantic import BaseModel, TypeAdapter, ValidationError

from hpsearch.config import TrialConfig
from hpsearch.config.formatting import Flat, flatten
from hpsearch.errors import UserError
from hpsearch.search.search import NUM_DRAWS, Search
from hpsearch.untrusted import validation_sentence

TRIAL_PREFIX = "trial"
NOT_REPLACEABLE = ("suggest", "kind")
Model = TypeVar("Model")
Changes = Sequence[tuple[tuple[str, ...], Any]]
"""Path and value of each changed setting, in the order in which they are given."""


class _NoSuchSetting(KeyError):
    """Error of a path that a model does not have; its argument lists the settings there."""


def parse_overrides(texts: Sequence[str]) -> dict[str, Any]:
    """Parse texts such as ``budget=200_000`` into values by name.

    A value is a Python or JSON literal, and any other text is a string.

    Raises:
        UserError: if a text has no ``=``, or a name before it that no setting can have.

    Example:
        >>> parse_overrides(["budget=200_000", "pruner=none", "descriptor.input_norm=true"])
        {'budget': 200000, 'pruner': 'none', 'descriptor.input_norm': True}
    """
    found = dict[str, Any]()
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals or not all(part.isidentifier() for part in name.strip().split(".")):
            raise UserError(
                f"--set takes NAME=VALUE, such as --set budget=200_000, not {text!r}",
                code="invalid-override",
            )
        found[name.strip()] = _parse_value(value.strip())
    return found


def _parse_value(text: str) -> Any:
    for read in (ast.literal_eval, json.loads):
        try:
            value = read(text)
            json.dumps(value, allow_nan=False)
        except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
            continue
        return value
    return text


def with_overrides(search: Search, overrides: Mapping[str, Any]) -> Search:
    """Copy of a search with other settings, validated again.

    Args:
        search: the search as its file has it.
        overrides: values by name; see this module.

    Raises:
        UserError: with the name, if there is no such setting or its value is not valid.
    """
    if not overrides:
        return search
    own, changes = dict[str, Any](), list[tuple[tuple[str, ...], Any]]()
    for name, value in overrides.items():
        first, *rest = name.split(".")
        if first == TRIAL_PREFIX and rest:
            changes.append((tuple(rest), value))
        elif first not in Search.model_fields:
            changes.append(((first, *rest), value))
        else:
            current = search.with_changes(**own) if rest else search
            own[first] = _own_value(name, current, [first, *rest], value)
    _check_paths(search, changes)
    budget = own.get("budget", search.budget)
    baseline = _configured(own.pop("baseline", search.baseline), changes)
    if baseline.patches == search.budget:
        baseline = baseline.model_copy(update={"patches": budget})

    def suggest(trial: optuna.Trial) -> TrialConfig:
        drawn = search.suggest(trial)
        if not isinstance(drawn, TrialConfig):
            return drawn  # which suggest_config reports
        config = _configured(drawn, changes)
        same = config.patches == search.budget
        return config.model_copy(update={"patches": budget}) if same else config

    try:
        return search.with_changes(**own, baseline=baseline, suggest=suggest)
    except ValidationError as error:
        raise _invalid(", ".join(overrides), error) from error


def settings_without_effect(search: Search, overrides: Mapping[str, Any]) -> list[str]:
    """Names of overridden settings that the space draws, which then makes no difference.

    Args:
        search: the search as its file has it.
        overrides: values by name.
    """
    drawn = [flatten(config) for config in search.examples(NUM_DRAWS)]
    paths = {name: name.removeprefix(f"{TRIAL_PREFIX}.") for name in overrides}
    return [
        name
        for name, path in paths.items()
        if len({flat.get(path) for flat in drawn} - {None}) > 1
        and (name != path or path.split(".")[0] not in Search.model_fields)
    ]


def fixed_settings(search: Search, *, draws: int = NUM_DRAWS) -> dict[str, Flat]:
    """Find settings with a single value among randomly drawn configurations.

    This includes settings that follow from their variant. A rare value may be missed, so the caller
    compares each trial with the result.
    """
    seen: dict[str, set[Flat]] = {}
    for config in search.examples(draws):
        for name, value in flatten(config).items():
            seen.setdefault(name, set()).add(value)
    return {name: values.pop() for name, values in seen.items() if len(values) == 1}


def _own_value(name: str, search: Search, path: Sequence[str], value: Any) -> Any:
    """Value of a field of the search in which the setting at ``path`` is replaced."""
    first, *rest = path
    if first in NOT_REPLACEABLE:
        raise UserError(
            f"--set {name}: change {first} in the space's file instead", code="invalid-override"
        )
    current = search.active_pruner if first == "pruner" else getattr(search, first)
    try:
        if not rest:
            found = _of_kind(Search.model_fields[first].annotation, value)
            if isinstance(found, str) and _annotations(current):
                parts = ", ".join(f"{name}.{part}" for part in _annotations(current))
                raise UserError(f"it has parts; set one of {parts}", code="invalid-setting")
            return found
        if isinstance(current, Mapping):
            return {**current, ".".join(rest): value}
        return _replaced(current, rest, value)
    except _NoSuchSetting as error:
        hint = (
            f"; that of a trial is {TRIAL_PREFIX}.{name}"
            if first in TrialConfig.model_fields
            else ""
        )
        raise _unknown(name, str(error.args[0]), hint) from None
    except (ValidationError, UserError) as error:
        raise _invalid(name, error) from error


def _check_paths(search: Search, changes: Changes) -> None:
    """Check that some configuration has each setting, and that its value is valid there."""
    if not changes:
        return
    configs, used = [search.baseline, *search.examples(NUM_DRAWS)], set[tuple[str, ...]]()
    for config in configs:
        _configured(config, changes, used)
    for path, _ in changes:
        if path == ("patches",):
            raise _unknown("patches", "", "; set the search's budget")
        if path not in used:
            own = [*Search.model_fields] if len(path) == 1 else []
            known = ", ".join([*own, _settings_near(configs, path)])
            raise _unknown(".".join(path), known, "")


def _settings_near(configs: Sequence[TrialConfig], path: Sequence[str]) -> str:
    """Names of the settings at the level where a path leads nowhere."""
    for config in configs:
        try:
            _replaced(config, path, None)
        except _NoSuchSetting as error:
            return str(error.args[0])
        except (ValidationError, UserError):
            continue
    return ""


def _configured(
    config: TrialConfig, changes: Changes, used: set[tuple[str, ...]] | None = None
) -> TrialConfig:
    """Configuration with the changes of the settings that it has, validated as a whole.

    Args:
        config: as it was drawn.
        changes: paths and values.
        used: receives the paths that the configuration has.

    Raises:
        UserError: if a value is not valid, or does not go with the others.
    """
    fields = type(config).model_fields
    values = {name: getattr(config, name) for name in fields}
    for path, value in changes:
        first, *rest = path
        try:
            if first not in fields:
                continue
            annotation = fields[first].annotation
            new = _replaced(values[first], rest, value) if rest else _of_kind(annotation, value)
        except _NoSuchSetting:
            continue
        except (ValidationError, UserError) as error:
            raise _invalid(".".join(path), error) from error
        values[first] = new
        if used is not None:
            used.add(tuple(path))
    try:
        return TrialConfig(**values)
    except ValidationError as error:
        raise _invalid(", ".join(".".join(path) for path, _ in changes), error) from error


def _replaced(model: Model, path: Sequence[str], value: Any) -> Model:
    """Copy of a model with another value at a path, validated again.

    Raises:
        _NoSuchSetting: if the model has no such setting.
        pydantic.ValidationError: if the value is not valid.
    """
    first, *rest = path
    fields = _annotations(model)
    if first not in fields or first in NOT_REPLACEABLE:
        raise _NoSuchSetting(", ".join(name for name in fields if name not in NOT_REPLACEABLE))
    new = _replaced(getattr(model, first), rest, value) if rest else _of_kind(fields[first], value)
    values = {name: getattr(model, name) for name in fields} | {first: new}
    return TypeAdapter(type(model)).validate_python(values)


def _annotations(model: object) -> dict[str, Any]:
    """Types of the settings of a model or a dataclass by name; none of another value."""
    if isinstance(model, BaseModel):
        return {name: field.annotation for name, field in type(model).model_fields.items()}
    return get_type_hints(type(model)) if is_dataclass(model) else {}


def _of_kind(annotation: Any, value: Any) -> Any:
    """Value for a field: ``hardnet`` is ``HardNet()`` in a union that has this kind.

    One text for a field of several is a tuple of it.

    Raises:
        UserError: with the kinds that there are, if a union of kinds has no such one.
    """
    if not isinstance(value, str):
        return value
    if annotation == tuple[str, ...]:
        return (value,)
    kinds = list(_kinds(annotation))
    if value in kinds:
        return TypeAdapter(annotation).validate_python({"kind": value})
    if value == "none" and type(None) in get_args(annotation):
        return None
    if kinds:
        raise UserError(f"{value!r} is not one of {', '.join(kinds)}", code="invalid-setting")
    return value


def _kinds(annotation: Any) -> Iterator[str]:
    """Kinds of the models in a union."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        if "kind" in annotation.model_fields:
            yield from get_args(annotation.model_fields["kind"].annotation)
        return
    for part in get_args(getattr(annotation, "__value__", annotation)):
        yield from _kinds(part)


def _unknown(name: str, known: str, hint: str) -> UserError:
    listed = f"; there are {known}" if known else ""
    return UserError(
        f"--set {name}: there is no such setting{listed}{hint}", code="no-such-setting"
    )


def _invalid(name: str, error: ValidationError | UserError) -> UserError:
    sentence = validation_sentence(error) if isinstance(error, ValidationError) else str(error)
    code = error.code if isinstance(error, UserError) else "invalid-setting"
    return UserError(f"--set {name}: {sentence}", code=code)
