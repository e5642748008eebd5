"""A configuration as people read it: flat names, a short title, and what differs between several.

Nothing here knows the single settings, so a variant that is added later needs no line of its own;
only the three parts that every title shows have their own words.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from hpsearch.config.sampling import FixedSteps, RandomTriplets, Stepped, SxK
from hpsearch.config.trial import TrialConfig

Flat = str | float | int | bool

ALWAYS = ("loss", "sampler", "optimiser")
"""Parts that a title shows even when they are the baseline's."""
LEFT_OUT = ("patches",)
"""Parts that no title shows: the budget is the same for every trial of a search."""
SYMBOLS = {"alpha": "α"}


def flatten(config: TrialConfig) -> dict[str, Flat]:
    """Every setting under a readable name; different configurations give different results.

    A union's kind is the value of the union's own name: ``{"loss": "batch_hard",
    "loss.margin": "soft", "loss.margin.alpha": 0.0, "sampler": "sxk", "sampler.groups": 64, …}``.
    An absent optional setting is ``"none"``.
    """
    return dict(_flat(config, ""))


def title(config: TrialConfig) -> str:
    """What a person calls it, for example ``soft batch hard · S×K 64×4 · adam 2e-3 · denoised``.

    Loss, sampler and optimiser always; anything else where it differs from the baseline. The
    budget is left out and numbers are rounded, so two configurations may share a title.
    """
    return " · ".join(_parts(config).values())


def differences(configs: Sequence[TrialConfig]) -> list[str]:
    """Titles without what all ``configs`` share; full titles if they share everything.

    A detail that all of one variant have, such as the same momentum of every SGD, is left out too.
    """
    parts = [_parts(config) for config in configs]
    names = [name for name in _names(parts) if _differs(name, parts)]
    if not names:
        return [title(config) for config in configs]
    told = {name: _telling(name, [getattr(config, name) for config in configs]) for name in names}
    return [
        " · ".join(told[name][row] for name in names if name in part and told[name][row])
        or " · ".join(_part(name, getattr(config, name)) for name in names)
        for row, (config, part) in enumerate(zip(configs, parts, strict=True))
    ]


def varying(configs: Sequence[TrialConfig]) -> list[str]:
    """Flat names whose values differ between ``configs``, in the order of the configuration.

    A setting that only some configurations have counts as differing.
    """
    flats = [flatten(config) for config in configs]
    return [name for name in _names(flats) if _differs(name, flats)]


def readable(value: Flat) -> str:
    """A value in few characters: ``2e-3``, ``0.1``, ``20,000``, ``batch hard``, ``yes``."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        return _number(value)
    return value.replace("_", " ")


def _flat(value: Any, name: str) -> Iterator[tuple[str, Flat]]:
    if isinstance(value, BaseModel):
        for field in type(value).model_fields:
            yield from _flat(getattr(value, field), _join(name, field))
    elif isinstance(value, Mapping):
        for key, item in value.items():
            yield from _flat(item, _join(name, str(key)))
    elif isinstance(value, list | tuple):
        yield name, len(value)
        for number, item in enumerate(value):
            yield from _flat(item, _join(name, str(number)))
    else:
        yield name, "none" if value is None else value


def _join(name: str, field: str) -> str:
    if field == "kind":
        return name
    return f"{name}.{field}" if name else field


def _names(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Keys of all rows; a key that only later rows have stands where they have it."""
    names: list[str] = []
    for row in rows:
        place = 0
        for name in row:
            if name in names:
                place = names.index(name) + 1
            else:
                names.insert(place, name)
                place += 1
    return names


def _differs(name: str, rows: Sequence[Mapping[str, Any]]) -> bool:
    first = rows[0]
    return any(name not in row or name not in first or row[name] != first[name] for row in rows)


class _Part(NamedTuple):
    """``soft batch hard`` and ``α 0.5``, ``distance squared``: the variant, then its details."""

    head: str
    details: tuple[str, ...] = ()

    def words(self, *, without: frozenset[str] = frozenset()) -> str:
        kept = (self.head, *(word for word in self.details if word not in without))
        return ", ".join(word for word in kept if word)


def _parts(config: TrialConfig) -> dict[str, str]:
    """Words for each part of the configuration that a title shows."""
    fields = type(config).model_fields
    names = [*ALWAYS, *(n for n in fields if n not in ALWAYS and n not in LEFT_OUT)]
    values = {name: getattr(config, name) for name in names}
    return {
        name: _short(name, value).words() or _part(name, value)
        for name, value in values.items()
        if name in ALWAYS or value != _default(fields[name])
    }


def _telling(name: str, values: Sequence[Any]) -> list[str]:
    """A part's words for each of ``values``, without details that all of one variant share."""
    parts = [_short(name, value) for value in values]
    shared: dict[type, frozenset[str]] = {}
    for value, part in zip(values, parts, strict=True):
        own = frozenset(part.details)
        shared[type(value)] = shared.get(type(value), own) & own
    return [
        part.words(without=shared[type(value)]) for value, part in zip(values, parts, strict=True)
    ]


def _short(name: str, value: Any) -> _Part:
    """A part without its head where that is the only kind there is by default."""
    part = _described(name, value)
    default = _default(TrialConfig.model_fields[name]) if name in TrialConfig.model_fields else None
    if name not in ALWAYS and isinstance(value, BaseModel) and type(value) is type(default):
        return part._replace(head="")
    return part


def _part(name: str, value: Any) -> str:
    return _described(name, value).words()


def _described(name: str, value: Any) -> _Part:
    match value:
        case SxK(groups=groups, views=views):
            return _Part(f"S×K {groups}×{views}")
        case Stepped(stages=stages) | FixedSteps(stages=stages):
            return _Part(f"{_kind(value)} {_stages(stages)}", _without("stages ", value))
        case RandomTriplets(batch=batch):
            return _Part(f"batch {batch}", _without("batch ", value))
        case BaseModel(lr=float(rate)):
            return _Part(f"{_kind(value)} {_number(rate)}", _without("lr ", value))
        case BaseModel():
            changed = [_kind(i) for i, default in _nested(value) if _kind(i) != _kind(default)]
            head = " ".join([*changed, _kind(value) or _words(name)])
            return _Part(head, tuple(_details(value)))
    return _Part(_detail(name, value))


def _stages(stages: Sequence[SxK]) -> str:
    """``32×2 → 64×4``; of many stages the first and the last."""
    shown = [f"{stage.groups}×{stage.views}" for stage in stages]
    return " → ".join(shown if len(shown) <= 3 else [shown[0], "…", shown[-1]])


def _detail(name: str, value: Any) -> str:
    if isinstance(value, bool):
        return _words(name) if value else f"no {_words(name)}"
    return f"{_words(name)} {_shown(value)}"


def _nested(value: BaseModel) -> Iterator[tuple[BaseModel, Any]]:
    for name, field in type(value).model_fields.items():
        item = getattr(value, name)
        if isinstance(item, BaseModel):
            yield item, _default(field)


def _details(value: BaseModel) -> list[str]:
    """Words for every value that is not its own class's default."""
    words = []
    for name, field in type(value).model_fields.items():
        item = getattr(value, name)
        if name == "kind" or item == _default(field):
            continue
        if not isinstance(item, BaseModel):
            words.append(_detail(name, item))
        elif _kind(item):
            words += _details(item)
        else:
            inner = [_kind(i) for i, d in _nested(item) if _kind(i) != _kind(d)]
            words += [f"{_words(name)} {word}" for word in [*inner, *_details(item)]]
    return words


def _without(start: str, value: BaseModel) -> tuple[str, ...]:
    """Details but the one that the head has said."""
    return tuple(word for word in _details(value) if not word.startswith(start))


def _default(field: FieldInfo) -> Any:
    return field.get_default(call_default_factory=True)


def _kind(value: Any) -> str:
    return _words(getattr(value, "kind", ""))


def _words(name: str) -> str:
    return SYMBOLS.get(name, name.replace("_", " "))


def _shown(value: Any) -> str:
    if isinstance(value, list | tuple):
        return " → ".join(_shown(item) for item in value)
    if isinstance(value, BaseModel):
        return _part("", value)
    return readable("none" if value is None else value)


def _number(value: float) -> str:
    if value == 0 or 0.01 <= abs(value) < 1e5:
        return f"{value:.3g}"
    mantissa, exponent = f"{value:.2e}".split("e")
    return f"{mantissa.rstrip('0').rstrip('.')}e{int(exponent)}"
