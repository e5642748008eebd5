"""Decision about the aliases of a new version: champion, challenger, or neither.

Every comparison of a retrained network with one champion on one set of test patches is a chance to
crown a network that is not better. These looks are counted. The k-th may do so with probability
0.025 / (k (k + 1)); the sum over any number of looks stays below 0.025, whatever their results have
in common (a union bound). So the first interval has a level of 97.5 %, the second of 99.17 %, the
third of 99.58 %. The same network compared again is the same look.

The best trial of a search benefits from selection among many, so it replaces no champion. It is
compared for information, at 95 %, and is no look, since it has no chance. Choose what to promote by
validation and not by this comparison, which would be selection on test.

Source: the spending of alpha over looks is Lan & DeMets, Biometrika 70 (1983) 659.
"""

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from hpsearch.evaluation import Scores
from hpsearch.evaluation.bootstrap import Comparison, format_bounds

CHAMPION, CHALLENGER = "champion", "challenger"
Alias = Literal["champion", "challenger"]

FALSE_CHAMPION_RATE = 0.025
"""Probability of a champion that is not better than the one before, over all looks at that one."""


INFORMATIVE_CONFIDENCE = 0.95
"""Level of the interval of a comparison that cannot crown a champion, and so is no look."""


def confidence_of_look(look: int | None) -> float:
    """Level of the two-sided interval of a look, in (0, 1).

    Args:
        look: number of the look at one champion on one test set, from 1; None for a comparison
            that is no look.

    Example:
        >>> [round(confidence_of_look(look), 4) for look in (1, 2, 3)]
        [0.975, 0.9917, 0.9958]
    """
    if look is None:
        return INFORMATIVE_CONFIDENCE
    return 1 - 2 * FALSE_CHAMPION_RATE / (look * (look + 1))


def format_level(look: int | None) -> str:
    """Level of the interval of a look, such as ``97.5 %``."""
    return f"{100 * confidence_of_look(look):.5g} %"


def describe_look(look: int, champion: int) -> str:
    """Sentence for a model card about a look at a champion.

    Args:
        look: number of the look on this test set.
        champion: version of the champion.
    """
    return (
        f"This was look {look} at champion version {champion} on this test set, so the difference "
        f"has an interval of {format_level(look)}: over all looks at one champion, the probability "
        f"of replacing it by a network that is not better stays below {FALSE_CHAMPION_RATE:.1%}."
    )


@dataclass(frozen=True)
class Decision:
    """Decision about a version's alias, with its reason in one sentence."""

    alias: Alias | None
    """Alias of the version, or None."""
    reason: str
    forced: bool = False
    """True if it becomes champion only because the user forced it."""

    @property
    def promote(self) -> bool:
        """True if it becomes champion."""
        return self.alias == CHAMPION


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """Evidence for a decision: test scores of a version, and of what it has to be better than."""

    scores: Scores
    """Test scores of the version."""
    baselines: Mapping[str, Scores] = field(default_factory=dict)
    """Test scores of the baselines on the same patches, by name."""
    has_champion: bool
    champion_scores: Scores | None = None
    """Test scores of the champion; None without one, or if it was evaluated on other patches."""
    comparison: Comparison | None = None
    """Mean mAP of the version minus the champion's, at the level of the look; None if the two were
    not compared."""
    look: int | None = None
    """Number of the look at this champion on this test set, from 1; None if it is none."""
    challenger: int | None = None
    """Version with the alias ``challenger``; None if there is none but this."""
    challenger_scores: Scores | None = None
    """Test scores of that version; None if they are of other patches, or were deleted."""
    retrained: bool = True
    """False for the best trial of a search, which has been trained once."""
    gate_failure: str = ""
    """Clause about the limits of the user that the version does not keep; empty if it does."""


def decide(evidence: Evidence, *, force: bool = False) -> Decision:
    """Decide which alias a version gets.

    ``champion``: a mean mAP on test above those of all baselines, and either no champion so far, or
    an interval of the difference to the champion that lies above zero. ``challenger``: a mean mAP
    above those of all baselines and of the present challenger. Otherwise there is none. Over one
    sequence, only ``force`` makes a champion. A version that does not pass a gate gets no alias,
    unless forced.

    Args:
        evidence: test scores, and the comparison with the champion.
        force: make it champion whatever the scores are, unless its descriptors have collapsed.
    """
    if evidence.scores.collapsed:
        return Decision(None, "its descriptors have collapsed to one point")
    better, reason = _against_champion(evidence)
    lost_to = _baselines_not_beaten(evidence) or evidence.gate_failure
    if better and lost_to:
        better, reason = False, f"{reason}, but {lost_to}"
    elif better and not evidence.has_champion and evidence.baselines:
        reason = f"{reason}, and its mean mAP on test is above those of all baselines"
    elif lost_to:
        reason = f"{reason}; {lost_to}"
    if better:
        return Decision(CHAMPION, reason)
    if force:
        return Decision(CHAMPION, f"forced, although {reason}", forced=True)
    obstacle = None if lost_to else _against_challenger(evidence)
    if obstacle:
        reason = f"{reason}; {obstacle}"
    return Decision(None if lost_to or obstacle else CHALLENGER, reason)


def _against_champion(evidence: Evidence) -> tuple[bool, str]:
    sequences = len(evidence.scores.names)
    if not evidence.has_champion:
        if sequences < 2:
            return False, "there was no champion, but one test sequence decides nothing"
        return True, "there was no champion"
    if evidence.comparison is None or evidence.champion_scores is None:
        return False, "the champion was evaluated on other patches"
    better, reason = _compared(evidence.comparison, evidence)
    if better and not evidence.retrained:
        return False, f"{reason}, but it has been trained only once"
    return better, reason


def _compared(comparison: Comparison, evidence: Evidence) -> tuple[bool, str]:
    sequences, difference = len(evidence.scores.names), comparison.difference
    if not math.isfinite(difference):
        return False, "the difference to the champion is not a number"
    found = f"mean mAP {difference:+.4f} against the champion"
    if sequences < 2:
        return False, f"{found}, but one test sequence has no interval, so it decides nothing"
    bounds = format_bounds(comparison, "+.4f", between=", ")
    if comparison.half_width is None:
        return False, (
            f"{found}, without an interval, since the {sequences} test sequences do not show how "
            "much the difference varies"
        )
    found += (
        f", {format_level(evidence.look)} interval [{bounds}] over {sequences} test sequences"
        f"{f' (look {evidence.look} at this champion)' if evidence.look else ''}"
    )
    if comparison.better:
        return True, f"{found}: better"
    if comparison.worse:
        return False, f"{found}: worse"
    return False, f"{found}: {_indecision(comparison.half_width, evidence)}"


def _indecision(least: float, evidence: Evidence) -> str:
    """Phrase for a difference that is not clear: how large one would have had to be."""
    assert evidence.champion_scores is not None, "the two were compared"
    room = 1 - evidence.champion_scores.mean
    if least >= room:
        return (
            "so few sequences decide nothing here, since only a difference above "
            f"{least:.4f} would count, and the champion is only {room:.4f} below 1"
        )
    return f"no clear difference, which would be one above {least:.4f}"


def _baselines_not_beaten(evidence: Evidence) -> str:
    """Clause that names the baselines whose mean mAP is not lower; empty if there are none."""
    own = evidence.scores.mean
    above = [name for name, scores in evidence.baselines.items() if not own > _mean(scores)]
    if not above:
        return ""
    best = max(above, key=lambda name: _mean(evidence.baselines[name]))
    listed = " and ".join(above)
    return (
        f"its mean mAP on test, {own:.4f}, is not above "
        f"{'that' if len(above) == 1 else 'those'} of {listed} "
        f"({_mean(evidence.baselines[best]):.4f})"
    )


def _against_challenger(evidence: Evidence) -> str:
    """Clause why the version does not replace the challenger; empty if it does."""
    if evidence.challenger is None:
        return ""
    other, number = evidence.challenger_scores, evidence.challenger
    if other is None:
        return f"the challenger, version {number}, was evaluated on other patches and stays"
    if evidence.scores.mean > _mean(other):
        return ""
    return f"the challenger, version {number}, stays with a mean mAP of {_mean(other):.4f}"


def _mean(scores: Scores) -> float:
    """Mean mAP; 0 if the descriptors have collapsed, whose retrieval mAP is 1 by the rules."""
    return 0.0 if scores.collapsed else scores.mean


LOOKS_TAG_PREFIX = "looks."
"""Prefix of tags of a version: one tag per test set, with the networks compared with it there."""
MAX_LOOKS_KEPT = 150
"""Looks that a tag holds; older ones drop out, and their networks would count again."""


def parse_looks(text: str) -> dict[str, int]:
    """Parse the looks at a version from its tag, ``"1:ab12 2:cd34"``: number by network."""
    pairs = (word.partition(":") for word in text.split())
    return {network: int(number) for number, _, network in pairs if number.isdecimal()}


def with_look(looks: Mapping[str, int], network: str) -> dict[str, int]:
    """Looks including one with a network; its number is unchanged if it was compared before."""
    if network in looks:
        return dict(looks)
    return {**looks, network: max(looks.values(), default=0) + 1}


def format_looks(looks: Mapping[str, int]) -> str:
    """Format looks as the text of a tag, the latest last."""
    kept: Sequence[tuple[str, int]] = sorted(looks.items(), key=lambda pair: pair[1])
    return " ".join(f"{number}:{network}" for network, number in kept[-MAX_LOOKS_KEPT:])


def identify_test_set(terms: Mapping[str, str], names: Sequence[str]) -> str:
    """Identifier of the patches that versions are evaluated on: the same if they are comparable.

    Args:
        terms: tags that identify patch set, split and input.
        names: names of the test sequences.
    """
    text = json.dumps([sorted(terms.items()), list(names)])
    return hashlib.sha256(text.encode()).hexdigest()[:12]
