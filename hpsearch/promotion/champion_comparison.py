"""Comparison of a new network with champion, challenger and baselines on the same test patches."""

import fcntl
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from hpsearch.evaluation import Scores
from hpsearch.evaluation.bootstrap import Comparison, compare
from hpsearch.patch_views import TASKS
from hpsearch.search.constraints import TASK_DROP, Constraint, complaints, task_drop
from hpsearch.tracking.decision import (
    CHALLENGER,
    Evidence,
    confidence_of_look,
    identify_test_set,
)
from hpsearch.tracking.mlflow_errors import MlflowUnavailableError
from hpsearch.tracking.model_registry import ModelVersion, Registry

NETWORK_DIGITS = 16
"""Hexadecimal digits of a network's fingerprint in tags."""
LOCK_NAME = "registry.lock"
"""File in the home that is locked while a version is compared and its alias moves."""


@contextmanager
def registry_lock(home: Path) -> Iterator[None]:
    """Let one process of a home at a time compare a version and move the alias; others wait."""
    home.mkdir(parents=True, exist_ok=True)
    with (home / LOCK_NAME).open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


@dataclass(frozen=True)
class ChampionInfo:
    """Present champion and its scores."""

    version: int
    search: str
    scores: Scores | None
    """Test scores; None if it was evaluated on other patches."""


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """Network that may get an alias, and what it was evaluated on."""

    scores: Scores
    baselines: Mapping[str, Scores]
    """Test scores of the baselines on the same patches, by name."""
    terms: Mapping[str, str]
    """Tags of a version that identify the test patches."""
    network: str
    """Fingerprint of the weights, ``NETWORK_DIGITS`` long."""
    retrained: bool = True
    """False for the best trial of a search, which replaces no champion."""
    own_version: int | None = None
    """Version of this network, if it is registered."""


@dataclass(frozen=True, kw_only=True)
class Assessment:
    """Candidate compared with the present champion and challenger."""

    evidence: Evidence
    champion: ChampionInfo | None = None
    comparisons: Mapping[str, Comparison] = field(default_factory=dict)
    """Candidate minus champion, by headline score; empty without a comparison."""
    look: int | None = None
    """Number of the look at the champion on this test set; None if it is none."""


def assess(
    registry: Registry,
    candidate: Candidate,
    *,
    reevaluate: Callable[[str], Scores] | None = None,
) -> Assessment:
    """Compare a candidate with champion and challenger, and record the look at the champion.

    Args:
        registry: registry of the versions.
        candidate: the network.
        reevaluate: function from a model's address to its scores on the candidate's test patches;
            None uses the scores from registrations.

    Raises:
        UserError: if the champion's scores were deleted, or the registry does not answer.
    """
    version = registry.champion()
    champion, found, look = None, {}, None
    if version is not None:
        champion = ChampionInfo(
            int(version.version),
            version.tags.get("search", ""),
            _scores_of(version, registry, candidate, reevaluate),
        )
        if champion.scores is not None:
            look = _look_at(version, registry, candidate)
            level = confidence_of_look(look)
            found = compare(candidate.scores, champion.scores, confidence=level)
    number, challenger_scores = _challenger(registry, candidate, reevaluate)
    evidence = Evidence(
        scores=candidate.scores,
        baselines=candidate.baselines,
        has_champion=champion is not None,
        champion_scores=None if champion is None else champion.scores,
        comparison=found.get("mAP"),
        look=look,
        challenger=number,
        challenger_scores=challenger_scores,
        retrained=candidate.retrained,
    )
    return Assessment(evidence=evidence, champion=champion, comparisons=found, look=look)


def _look_at(champion: ModelVersion, registry: Registry, candidate: Candidate) -> int | None:
    """Record a look, and return its number; None for a comparison that cannot crown a champion."""
    names = candidate.scores.names
    if not candidate.retrained or len(names) < 2:
        return None
    test_set = identify_test_set(candidate.terms, names)
    return registry.record_look(champion, test_set, candidate.network)


def _challenger(
    registry: Registry, candidate: Candidate, reevaluate: Callable[[str], Scores] | None
) -> tuple[int | None, Scores | None]:
    """Version of the challenger, if it is another network, and its comparable scores."""
    version = registry.with_alias(CHALLENGER)
    if version is None or int(version.version) == candidate.own_version:
        return None, None
    try:
        scores = _scores_of(version, registry, candidate, reevaluate)
    except MlflowUnavailableError as error:
        if error.code != "no-test-scores":
            raise
        scores = None
    return int(version.version), scores


def _scores_of(
    version: ModelVersion,
    registry: Registry,
    candidate: Candidate,
    reevaluate: Callable[[str], Scores] | None,
) -> Scores | None:
    """Scores of a version on the candidate's test patches; None if it was evaluated on others."""
    if reevaluate is not None:
        return reevaluate(f"models:/{registry.model}/{version.version}")
    return registry.scores_if_comparable(version, candidate.terms, candidate.scores.names)


def gate_failure(
    gates: Sequence[Constraint],
    metrics: Mapping[str, float],
    scores: Scores,
    champion: ChampionInfo | None,
) -> str:
    """Clause about the gates that a network does not pass; empty if it passes all.

    Without a champion on the same patches no task is worse than before.

    Args:
        gates: limits that a champion keeps.
        metrics: those of the last report of the network's training.
        scores: test scores of the network.
        champion: the present champion.
    """
    own = {task: getattr(scores, task) for task in TASKS}
    other = own
    if champion is not None and champion.scores is not None:
        other = {task: getattr(champion.scores, task) for task in TASKS}
    return complaints(gates, {**metrics, TASK_DROP: task_drop(own, other)})
