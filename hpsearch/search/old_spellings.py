"""Translation of the names that a ``Search`` had in version 0.1.0."""

from collections.abc import Mapping
from typing import Any

from hpsearch.config.base import warn_of_old_name
from hpsearch.errors import UserError
from hpsearch.search.pruners import ASHA, Hyperband, Median, NoPruner, Pruner
from hpsearch.search.samplers import GP, NSGA2, TPE, Fixed, Grid, Random, Sampler

RENAMED = {
    "also": "extra_objectives",
    "first": "initial_points",
    "seeds": "seeds_per_point",
    "folds": "num_folds",
    "computing": "compute",
    "warm_from": "warm_start_from",
}
SAMPLERS: dict[str, type[TPE | Random | GP | NSGA2 | Grid | Fixed]] = {
    "tpe": TPE,
    "random": Random,
    "gp": GP,
    "nsga2": NSGA2,
    "grid": Grid,
    "chosen": Fixed,
}
SCHEDULERS = ("asha", "hyperband", "median", "none")


def read_old_spellings(values: Mapping[str, Any]) -> dict[str, Any]:
    """Translate the arguments of a ``Search``, with one warning that names the present ones.

    Raises:
        UserError: if an old and a new name of one setting are given, or a name is unknown.
    """
    found, renamed = dict(values), list[str]()
    for old, new in RENAMED.items():
        if old in found:
            if new in found:
                raise UserError(
                    f"{old} is the old name of {new}; leave one of them out",
                    code="old-and-new-name",
                )
            found[new] = found.pop(old)
            renamed.append(f"{old}= is {new}=")
    if isinstance(found.get("sampler"), str):
        name = found["sampler"]
        found["sampler"] = _sampler(name, found)
        renamed.append(f"sampler={name!r} is sampler={type(found['sampler']).__name__}(...)")
    if {"scheduler", "grace", "reduction"} & found.keys():
        renamed.append("scheduler=, grace= and reduction= are pruner=ASHA(grace_period=...)")
        pruner = _pruner(found)
        if pruner is not None:
            found["pruner"] = pruner
    if renamed:
        warn_of_old_name("; ".join(renamed), stacklevel=5)
    return found


def _sampler(name: str, values: dict[str, Any]) -> Sampler:
    if name not in SAMPLERS:
        raise UserError(
            f"there is no sampler {name!r}; choose one of {', '.join(SAMPLERS)}",
            code="unknown-sampler",
        )
    if name == "chosen":
        points = values.pop("initial_points", ())
        if not points:
            raise UserError("sampler 'chosen' tries the points in first, but first is empty")
        return Fixed(points=tuple(points))
    if name == "grid":
        return Grid()
    return SAMPLERS[name]()  # type: ignore[call-arg]


def _pruner(values: dict[str, Any]) -> Pruner | None:
    """Pruner of the old settings, which are removed from ``values``; None for the default."""
    name, grace_period = values.pop("scheduler", None), values.pop("grace", None)
    reduction_factor = values.pop("reduction", 3)
    if "pruner" in values:
        raise UserError("scheduler, grace and reduction are parts of pruner; leave them out")
    if name is None:
        if values.get("extra_objectives") or (grace_period is None and _one_report(values)):
            return None
        name = "none" if grace_period == values.get("budget") else "asha"
    match name:
        case "asha":
            return ASHA(grace_period=grace_period, reduction_factor=reduction_factor)
        case "hyperband":
            return Hyperband(grace_period=grace_period, reduction_factor=reduction_factor)
        case "median":
            return Median(grace_period=grace_period)
        case "none":
            return NoPruner()
    raise UserError(
        f"there is no scheduler {name!r}; choose one of {', '.join(SCHEDULERS)}",
        code="unknown-scheduler",
    )


def _one_report(values: Mapping[str, Any]) -> bool:
    return not values.get("num_folds") and values.get("report_every") == values.get("budget")
