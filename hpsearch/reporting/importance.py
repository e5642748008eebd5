"""Importance of settings: how much of the differences between trials each one explains.

Trials are compared at equal fidelity, after the number of patches at which the first was pruned, so
that pruned trials count as well as completed ones. A setting's effect is that of a one-way analysis
of variance on the ranks of the objective (Kruskal & Wallis 1952). Its interval inverts the
noncentral F distribution (Steiger 2004). Its p-value is that of a permutation test, adjusted for
the number of settings (Holm 1979). Ranks bound the weight of collapsed trials, which have the worst
value of all.
"""

from collections import Counter
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from scipy.special import fdtr, ncfdtrinc

from hpsearch.config.formatting import Flat, flatten
from hpsearch.reporting.leaderboard import shown_status, trials_of
from hpsearch.shapes import Float, Int
from hpsearch.tracking.run_state import Run, group_by_config

MIN_CONFIGURATIONS = 10
"""Configurations below which an effect can hardly be distinguished from chance."""
MAX_GROUPS = 4
"""Maximum number of equally large ranges that the values of a number are divided into."""
CONFIGURATIONS_PER_GROUP = 4
"""Configurations for each of these ranges."""
SIGNIFICANCE = 0.05
"""Chance of showing any setting if none has an effect."""
PERMUTATIONS = 1_999
NOT_SETTINGS = ("seed", "patches")


@dataclass(frozen=True, kw_only=True)
class Effect:
    """Effect of one setting, or of several that always change together."""

    setting: str
    share: float
    """Share of the variance of the ranks that the setting explains, in [0, 1]."""
    low: float
    """Lower end of the 95 % interval of the share."""
    high: float
    """Upper end of the interval."""
    p_value: float
    """Probability of so strong an effect by chance among so many settings."""


@dataclass(frozen=True, kw_only=True)
class Importance:
    """Effects of the settings that vary, the strongest first."""

    effects: tuple[Effect, ...] = ()
    configurations: int = 0
    """Number of configurations compared."""
    seen: int = 0
    """Patches seen at which they are compared."""

    @property
    def shown(self) -> list[Effect]:
        """Effects that are distinguished from chance."""
        return [effect for effect in self.effects if effect.p_value < SIGNIFICANCE]

    @property
    def uncertain(self) -> list[str]:
        """Settings whose effect is not distinguished from chance."""
        return [effect.setting for effect in self.effects if effect.p_value >= SIGNIFICANCE]

    @property
    def missing(self) -> str:
        """Reason why no effect can be shown; empty if one can."""
        if self.shown:
            return ""
        if self.configurations < MIN_CONFIGURATIONS:
            return (
                "too few configurations to distinguish an effect from chance: "
                f"{self.configurations} of at least {MIN_CONFIGURATIONS}"
            )
        if not self.effects:
            return "no setting varies between the trials"
        return (
            f"over {self.configurations} configurations no setting's effect is distinguished "
            "from chance"
        )


def importance(runs: Sequence[Run], *, report_every: int) -> Importance:
    """Effects of the settings on the objective of trials that saw equally many patches.

    Repeats of a configuration with other seeds count once, by their mean.

    Args:
        runs: trials, and baselines, which are ignored.
        report_every: patches between two reports.
    """
    trials = trials_of(runs)
    rung = _common_rung(trials, report_every)
    values = {run.id: _value_at(run, rung, report_every) for run in trials}
    values = {name: value for name, value in values.items() if value is not None}
    groups = group_by_config(run for run in trials if run.id in values)
    found = Importance(configurations=len(groups), seen=rung * report_every)
    if len(groups) < MIN_CONFIGURATIONS:
        return found
    ranks = _ranks(np.array([np.mean([values[run.id] for run in group]) for group in groups]))
    flats = [flatten(group[0].config) for group in groups]
    partitions: dict[tuple[int, ...], list[str]] = {}
    for name in _varying_settings(flats):
        labels = divide([flat.get(name) for flat in flats])
        if len(set(labels)) > 1:
            partitions.setdefault(labels, []).append(name)
    shuffled = np.random.default_rng(0).permuted(np.tile(ranks, (PERMUTATIONS, 1)), axis=1)
    effects = [
        _effect(" and ".join(same), np.array(labels), ranks, shuffled)
        for labels, same in partitions.items()
    ]
    return replace(found, effects=_adjusted(effects))


def divide(values: Sequence[Flat | None]) -> tuple[int, ...]:
    """Group of each value: one for every word, and equally large ranges of numbers.

    An absent value (None) is a group of its own. Groups of one are merged.
    """
    numbers = [v for v in values if isinstance(v, int | float) and not isinstance(v, bool)]
    count = min(MAX_GROUPS, max(2, len(numbers) // CONFIGURATIONS_PER_GROUP))
    keys: list[Hashable] = list(values)
    if len(set(numbers)) > count:
        edges = np.quantile(numbers, np.arange(1, count) / count)
        keys = [
            f"range {np.searchsorted(edges, v, side='right')}"
            if isinstance(v, int | float) and not isinstance(v, bool)
            else v
            for v in values
        ]
    sizes = Counter(keys)
    keys = [key if sizes[key] > 1 else ("merged",) for key in keys]
    numbered = {key: number for number, key in enumerate(dict.fromkeys(keys))}
    return tuple(numbered[key] for key in keys)


def _common_rung(trials: Sequence[Run], report_every: int) -> int:
    """Number of reports that all pruned and completed trials have reached; 0 without any."""
    ended = [run for run in trials if shown_status(run) in ("pruned", "completed")]
    return min((run.seen // report_every for run in ended if run.reports), default=0)


def _value_at(run: Run, rung: int, report_every: int) -> float | None:
    """Objective at the rung; the worst value if the trial collapsed before, None if not reached."""
    if rung == 0 or not run.reports:
        return None
    for report in run.reports:
        if report["seen"] >= rung * report_every:
            return report["objective"]
    failed = shown_status(run) in ("collapsed", "diverged")
    return run.reports[-1]["objective"] if failed else None


def _varying_settings(flats: Sequence[dict[str, Flat]]) -> list[str]:
    """Settings with several values; one that only its variant implies is left out."""
    values: dict[str, set[Flat]] = {}
    for flat in flats:
        for name, value in flat.items():
            values.setdefault(name, set()).add(value)
    return [n for n, seen in values.items() if len(seen) > 1 and n not in NOT_SETTINGS]


def _ranks(values: Float[np.ndarray, " n"]) -> Float[np.ndarray, " n"]:
    """Ranks from 1; equal values share the mean of theirs."""
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    return (np.cumsum(counts) - (counts - 1) / 2)[inverse]


def _effect(
    setting: str,
    labels: Int[np.ndarray, " n"],
    ranks: Float[np.ndarray, " n"],
    shuffled: Float[np.ndarray, "permutations n"],
) -> Effect:
    """Effect of a partition of the configurations, with the p-value of this setting alone."""
    total = float(((ranks - ranks.mean()) ** 2).sum())
    between = float(_between_groups(ranks, labels))
    n, df1, df2 = len(ranks), int(labels.max()), len(ranks) - int(labels.max()) - 1
    if total == 0 or df2 < 1:
        return Effect(setting=setting, share=0.0, low=0.0, high=1.0, p_value=1.0)
    as_strong = _between_groups(shuffled, labels) >= between - 1e-9 * total
    within = max((total - between) / df2, 1e-9 * total)
    low, high = (_explained(df1, df2, p, between / df1 / within) for p in (0.975, 0.025))
    return Effect(
        setting=setting, share=max(0.0, 1 - within * (n - 1) / total), low=low, high=high,
        p_value=(1 + int(as_strong.sum())) / (1 + PERMUTATIONS),
    )  # fmt: skip


def _between_groups(
    ranks: Float[np.ndarray, "... n"], labels: Int[np.ndarray, " n"]
) -> Float[np.ndarray, "..."]:
    """Sum of squares between groups."""
    member = labels[:, None] == np.arange(labels.max() + 1)
    deviations = (ranks - ranks.mean(axis=-1, keepdims=True)) @ member
    return (deviations**2 / member.sum(axis=0)).sum(axis=-1)


def _explained(df1: int, df2: int, p: float, f: float) -> float:
    """Share of variance of the noncentral F distribution whose CDF at ``f`` is ``p``."""
    if fdtr(df1, df2, f) <= p:  # not even a share of 0 is so improbable
        return 0.0
    noncentrality = float(ncfdtrinc(df1, df2, p, f))
    return noncentrality / (noncentrality + df1 + df2 + 1)


def _adjusted(effects: Sequence[Effect]) -> tuple[Effect, ...]:
    """Effects with p-values adjusted for their number (Holm), the strongest first."""
    adjusted, worst = [], 0.0
    for number, effect in enumerate(sorted(effects, key=lambda effect: effect.p_value)):
        worst = max(worst, min(1.0, effect.p_value * (len(effects) - number)))
        adjusted.append(replace(effect, p_value=worst))
    return tuple(sorted(adjusted, key=lambda effect: (-effect.share, effect.setting)))
