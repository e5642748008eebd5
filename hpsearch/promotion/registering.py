"""A judged network meets the champion and goes into the registry."""

import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from hpsearch.errors import UserError
from hpsearch.evaluation import Scores
from hpsearch.evaluation.bootstrap import Comparison, compare
from hpsearch.models.serving import save_pipeline
from hpsearch.promotion.entry import Entry, Rival, facts_of, synced, tags_of
from hpsearch.promotion.gradebook import Gradebook
from hpsearch.promotion.winner import BASELINE, PIXELS, load_scores, recipe, trained
from hpsearch.search.workspace import SearchFolder
from hpsearch.tracking.candidate import GIVEN, SPLIT, Candidate
from hpsearch.tracking.card import Facts, card, page
from hpsearch.tracking.decision import Decision, decide
from hpsearch.tracking.loading import load_descriptor
from hpsearch.tracking.refusals import reached
from hpsearch.tracking.registry import Registry
from hpsearch.tracking.runs import Run

ALREADY = "it is the champion already"


@dataclass(frozen=True)
class Outcome:
    """What became of a network in the registry."""

    model: str
    version: int
    alias: str
    decision: Decision
    rival: Rival | None = None
    comparisons: Mapping[str, Comparison] = field(default_factory=dict)
    """With the champion, by headline; empty if there was nothing to compare with."""


def register_winner(folder: SearchFolder, winner: Run) -> Outcome:
    """Put the best trial of a search up, unless that has been done.

    It was picked for its luck, so it becomes champion only where there is none.

    Raises:
        UserError: if it has not been judged on test.
    """
    scores = load_scores(folder)
    if winner.label not in scores:
        raise UserError(
            f"{folder.name!r} has not ended; go on with `hpsearch resume {folder.name}`"
        )
    registry = registry_of(folder)
    known = registry.decision_on(folder.name, winner.label)
    if known is not None:
        return Outcome(registry.model, *known)
    sentence = (
        f"The best of {folder.record.trials} trials by {folder.search().objective.metric} on "
        "validation, trained once: the luckiest of them, perhaps."
    )
    entry = Entry(
        folder=folder,
        run=winner,
        scores=scores[winner.label],
        beside=yardsticks_of(folder),
        chosen_by=sentence,
    )
    return register(entry)


def register(entry: Entry, *, force: bool = False, reevaluate: bool = False) -> Outcome:
    """Compare with the champion, add a version unless there is one, move the alias.

    Args:
        force: make it champion whatever the comparison says.
        reevaluate: score the champion on this search's test patches instead of trusting what it
            scored when it was registered, on whatever patches.

    Raises:
        UserError: if the registry refuses or does not answer; the same call then goes on.
    """
    registry = registry_of(entry.folder)
    own = registry.version_of(entry.folder.name, entry.run.label)
    rival = champion_of(registry, entry, reevaluate=reevaluate)
    if own is not None and rival is not None and rival.version == int(own.version):
        rival = Rival(rival.version, rival.search, entry.scores)
        return Outcome(registry.model, rival.version, "champion", Decision(True, ALREADY), rival)
    found = {} if rival is None or rival.scores is None else compare(entry.scores, rival.scores)
    decision = decide(
        found.get("mAP"),
        same_patches=rival is None or rival.scores is not None,
        collapsed=entry.scores.collapsed,
        retrained=entry.trainings is not None,
        force=force,
    )
    with reached(registry.tracking.uri):
        publisher = synced(entry.folder, entry.run)
        facts = facts_of(entry, rival, publisher)
        version = None if own is None else int(own.version)
        if version is None:
            version = _add(entry, facts, decision, registry, publisher.run_id(entry.run.id))
    alias = registry.apply(version, decision, description=page(facts, decision))
    return Outcome(registry.model, version, alias, decision, rival, found)


def yardsticks_of(folder: SearchFolder) -> dict[str, Scores]:
    """Test scores of what a finished search compares its winner with, by what people call it."""
    names = {BASELINE: "baseline triplet", PIXELS: PIXELS}
    return {names[name]: found for name, found in load_scores(folder).items() if name in names}


def registry_of(folder: SearchFolder) -> Registry:
    """Where a search registers its models."""
    return Registry(tracking=folder.tracking(), model=folder.record.model)


def champion_of(registry: Registry, entry: Entry, *, reevaluate: bool) -> Rival | None:
    """The present champion, with scores if they are of the patches that the entry was scored on."""
    version = registry.champion()
    if version is None:
        return None
    number, search = int(version.version), version.tags.get("search", "")
    if search == entry.folder.name and version.tags.get("trial") == entry.run.label:
        return Rival(number, search, entry.scores)
    if reevaluate:
        words = f"models:/{registry.model}/{number}"
        pipeline = load_descriptor(words, registry.tracking.uri).pipeline
        noisy = entry.run.config.evaluate_on == "noisy"
        found = Gradebook.of(entry.folder).scores(pipeline, noisy=noisy, who=words)
        return Rival(number, search, found)
    return Rival(number, search, registry.comparable(version, entry.terms, entry.scores.names))


def _add(entry: Entry, facts: Facts, decision: Decision, registry: Registry, run_id: str) -> int:
    """A new version, with all that is said of it."""
    folder, run = entry.folder, entry.run
    with tempfile.TemporaryDirectory() as temporary:
        to = Path(temporary) / "pipeline"  # what it is called among the model's files
        save_pipeline(trained(run, folder).pipeline(), recipe(run.config), to)
        candidate = Candidate(
            folder=to,
            run_id=run_id,
            search=folder.name,
            scores=entry.scores,
            fingerprint=folder.record.fingerprint,
            example=_example(folder),
            dimensions=run.config.descriptor.dimensions,
            split=entry.terms[SPLIT],
            given=entry.terms[GIVEN],
            card=card(facts),
            tags=tags_of(entry),
        )
        return registry.register(candidate, description=page(facts, decision))


def _example(folder: SearchFolder) -> np.ndarray:
    """Four noisy reference patches of the test part, as an input example."""
    test = folder.store().part(folder.split(), "test")
    return test.gather(np.arange(0, 64, 16), noisy=True)
