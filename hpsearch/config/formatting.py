"""Formatting of configurations: flat names, short summaries, and differences.

The functions are generic, so that new variants need no code here; only the three parts that every
summary shows have their own format.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from hpsearch.config.base import FrozenConfig
from hpsearch.config.custom import Custom
from hpsearch.config.sampling import FixedSteps, PKSampler, RandomTriplets, Stepped
from hpsearch.config.trial import TrialConfig

Flat = str | float | int | bool

ALWAYS_SHOWN = ("loss", "sampler", "optimizer")
"""Parts of a summary that are shown even if they are equal to the baseline's."""
NEVER_SHOWN = ("patches",)
"""Parts that are never shown, because all trials of a search have the same budget."""
SYMBOLS = {"alpha": "α"}


def flatten(config: TrialConfig) -> dict[str, Flat]:
    """Flat dictionary of all settings by readable name; injective.

    A union's kind is the value of the union's own name: ``{"loss": "batch_hard",
    "loss.margin": "soft", "loss.margin.alpha": 0.0, "sampler": "sxk", "sampler.groups": 64, …}``.
    An absent optional setting is ``"none"``.
    """
    return dict(_flatten_value(config, ""))


def present_names(flat: Mapping[str, Flat]) -> dict[str, Flat]:
    """Values as of ``flatten`` under the present names, if 0.1.0 named them."""
    former = {
        old: new
        for kind in FrozenConfig.__subclasses__()
        if kind.__module__.startswith(f"{__package__}.")
        for new, old in kind.former_names.items()
    }
    return {
        ".".join(former.get(part, part) for part in name.split(".")): value
        for name, value in flat.items()
    }


def summary(config: TrialConfig) -> str:
    """Short summary of a configuration: ``soft batch hard · S×K 64×4 · adam 2e-3 · denoised``.

    Loss, sampler and optimizer always; anything else where it differs from the baseline. The
    budget is left out and numbers are rounded, so two configurations may have the same summary.
    """
    return " · ".join(_summary_parts(config).values())


def diff_summaries(configs: Sequence[TrialConfig]) -> list[str]:
    """Summaries without the parts that all ``configs`` share; full summaries if all are equal.

    A detail that all of one variant share, such as the same momentum of every SGD, is omitted too.
    """
    parts = [_summary_parts(config) for config in configs]
    names = [name for name in _union_of_keys(parts) if _varies(name, parts)]
    if not names:
        return [summary(config) for config in configs]
    details = {
        name: _distinguishing(name, [getattr(config, name) for config in configs]) for name in names
    }
    return [
        " · ".join(details[name][row] for name in names if name in part and details[name][row])
        or " · ".join(_summary_part(name, getattr(config, name)) for name in names)
        for row, (config, part) in enumerate(zip(configs, parts, strict=True))
    ]


def varying_keys(configs: Sequence[TrialConfig]) -> list[str]:
    """Flat names whose values differ between ``configs``, in the order of the configuration.

    A setting that only some configurations have counts as differing.
    """
    flats = [flatten(config) for config in configs]
    return [name for name in _union_of_keys(flats) if _varies(name, flats)]


def format_value(value: Flat) -> str:
    """Format a value in few characters: ``2e-3``, ``0.1``, ``20,000``, ``batch hard``, ``yes``.

    Example:
        >>> format_value(0.002), format_value(20000), format_value(True)
        ('2e-3', '20,000', 'yes')
    """
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        return _format_number(value)
    return value.replace("_", " ")


def _flatten_value(value: Any, name: str) -> Iterator[tuple[str, Flat]]:
    if isinstance(value, BaseModel):
        for field in type(value).model_fields:
            yield from _flatten_value(getattr(value, field), _join(name, field))
    elif isinstance(value, Mapping):
        for key, item in value.items():
            yield from _flatten_value(item, _join(name, str(key)))
    elif isinstance(value, list | tuple):
        yield name, len(value)
        for number, item in enumerate(value):
            yield from _flatten_value(item, _join(name, str(number)))
    else:
        yield name, "none" if value is None else value


def _join(name: str, field: str) -> str:
    if field == "kind":
        return name
    return f"{name}.{field}" if name else field


def _union_of_keys(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Keys of all rows, in an order consistent with every row."""
    names: list[str] = []
    for row in rows:
        position = 0
        for name in row:
            if name in names:
                position = names.index(name) + 1
            else:
                names.insert(position, name)
                position += 1
    return names


def _varies(name: str, rows: Sequence[Mapping[str, Any]]) -> bool:
    first = rows[0]
    return any(name not in row or name not in first or row[name] != first[name] for row in rows)


class _SummaryPart(NamedTuple):
    """Part of a summary: variant (``soft batch hard``) and details (``α 0.5``)."""

    head: str
    details: tuple[str, ...] = ()

    def text(self, *, without: frozenset[str] = frozenset()) -> str:
        kept = (self.head, *(word for word in self.details if word not in without))
        return ", ".join(word for word in kept if word)


def _summary_parts(config: TrialConfig) -> dict[str, str]:
    """Text of each part of the configuration in a summary."""
    fields = type(config).model_fields
    names = [*ALWAYS_SHOWN, *(n for n in fields if n not in ALWAYS_SHOWN and n not in NEVER_SHOWN)]
    values = {name: getattr(config, name) for name in names}
    return {
        name: _shorten(name, value).text() or _summary_part(name, value)
        for name, value in values.items()
        if name in ALWAYS_SHOWN or value != _default(fields[name])
    }


def _distinguishing(name: str, values: Sequence[Any]) -> list[str]:
    """Texts of a part for each of ``values``, without details that all of a variant share."""
    parts = [_shorten(name, value) for value in values]
    shared: dict[type, frozenset[str]] = {}
    for value, part in zip(values, parts, strict=True):
        own = frozenset(part.details)
        shared[type(value)] = shared.get(type(value), own) & own
    return [
        part.text(without=shared[type(value)]) for value, part in zip(values, parts, strict=True)
    ]


def _shorten(name: str, value: Any) -> _SummaryPart:
    """Part of a summary without its head if that is the default kind."""
    part = _describe_setting(name, value)
    default = _default(TrialConfig.model_fields[name]) if name in TrialConfig.model_fields else None
    if name not in ALWAYS_SHOWN and isinstance(value, BaseModel) and type(value) is type(default):
        return part._replace(head="")
    return part


def _summary_part(name: str, value: Any) -> str:
    return _describe_setting(name, value).text()


def _describe_setting(name: str, value: Any) -> _SummaryPart:
    match value:
        case PKSampler(groups=groups, views=views):
            return _SummaryPart(f"S×K {groups}×{views}")
        case Stepped(stages=stages) | FixedSteps(stages=stages):
            return _SummaryPart(
                f"{_kind_name(value)} {_format_stages(stages)}", _drop_repeated("stages ", value)
            )
        case Custom():
            own, *details = _details(value)
            return _SummaryPart(own, tuple(details))
        case RandomTriplets(batch=batch):
            return _SummaryPart(f"batch {batch}", _drop_repeated("batch ", value))
        case BaseModel(lr=float(rate)):
            return _SummaryPart(
                f"{_kind_name(value)} {_format_number(rate)}", _drop_repeated("lr ", value)
            )
        case BaseModel():
            changed = [
                _kind_name(i)
                for i, default in _nested_details(value)
                if _kind_name(i) != _kind_name(default)
            ]
            head = " ".join([*changed, _kind_name(value) or _spaced(name)])
            return _SummaryPart(head, tuple(_details(value)))
    return _SummaryPart(_format_detail(name, value))


def _format_stages(stages: Sequence[PKSampler]) -> str:
    """Format stages as ``32×2 → 64×4``; only the first and the last of many."""
    shown = [f"{stage.groups}×{stage.views}" for stage in stages]
    return " → ".join(shown if len(shown) <= 3 else [shown[0], "…", shown[-1]])


def _format_detail(name: str, value: Any) -> str:
    if isinstance(value, bool):
        return _spaced(name) if value else f"no {_spaced(name)}"
    return f"{_spaced(name)} {_format(value)}"


def _nested_details(value: BaseModel) -> Iterator[tuple[BaseModel, Any]]:
    for name, field in type(value).model_fields.items():
        item = getattr(value, name)
        if isinstance(item, BaseModel):
            yield item, _default(field)


def _details(value: BaseModel) -> list[str]:
    """Texts of all values that differ from the default of their class."""
    if isinstance(value, Custom):  # its source and packages are not for a summary
        return [_spaced(value.name), *(_format_detail(k, v) for k, v in value.params.items())]
    texts = []
    for name, field in type(value).model_fields.items():
        item = getattr(value, name)
        if name == "kind" or item == _default(field):
            continue
        if not isinstance(item, BaseModel):
            texts.append(_format_detail(name, item))
        elif _kind_name(item):
            texts += _details(item)
        else:
            inner = [
                _kind_name(i) for i, d in _nested_details(item) if _kind_name(i) != _kind_name(d)
            ]
            texts += [f"{_spaced(name)} {word}" for word in [*inner, *_details(item)]]
    return texts


def _drop_repeated(start: str, value: BaseModel) -> tuple[str, ...]:
    """Details without the one that the head contains."""
    return tuple(word for word in _details(value) if not word.startswith(start))


def _default(field: FieldInfo) -> Any:
    return field.get_default(call_default_factory=True)


def _kind_name(value: Any) -> str:
    return _spaced(getattr(value, "kind", ""))


def _spaced(name: str) -> str:
    return SYMBOLS.get(name, name.replace("_", " "))


def _format(value: Any) -> str:
    if isinstance(value, list | tuple):
        return " → ".join(_format(item) for item in value)
    if isinstance(value, BaseModel):
        return _summary_part("", value)
    if isinstance(value, Mapping):
        return " ".join(f"{name} {_format(item)}" for name, item in value.items())
    return format_value("none" if value is None else value)


def _format_number(value: float) -> str:
    if value == 0 or 0.01 <= abs(value) < 1e5:
        return f"{value:.3g}"
    mantissa, exponent = f"{value:.2e}".split("e")
    return f"{mantissa.rstrip('0').rstrip('.')}e{int(exponent)}"
