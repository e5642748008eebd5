"""Registration of a model: the request, the decision, the model card."""

import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from hpsearch.data.splits import Split
from hpsearch.errors import UserError
from hpsearch.evaluation import Scores
from hpsearch.evaluation.bootstrap import Comparison, compare
from hpsearch.models.serialization import save_pipeline
from hpsearch.promotion.final_evaluation import BASELINE, PIXELS, load_scores, recipe, trained
from hpsearch.promotion.score_cache import Gradebook
from hpsearch.search.workspace import SearchFolder
from hpsearch.tracking.connection import TrackingError, absent, reached
from hpsearch.tracking.mlflow_links import run_pages
from hpsearch.tracking.mlflow_sync import Publisher
from hpsearch.tracking.model_artifact import FINGERPRINT, GIVEN, SPLIT, Candidate, load_descriptor
from hpsearch.tracking.model_card import Facts, Lines, card, page
from hpsearch.tracking.model_registry import Decision, Registry, decide
from hpsearch.tracking.run_state import Run

LINKED = 24
"""Trainings that a version links to, all or only its own."""


@dataclass(frozen=True, kw_only=True)
class Entry:
    """A trained network that is put up for the registry."""

    folder: SearchFolder
    """The search whose run it is."""
    run: Run
    scores: Scores
    """On test."""
    beside: Mapping[str, Scores] = field(default_factory=dict)
    """Yardsticks on the same patches, by name."""
    chosen_by: str
    """How it was chosen, in a sentence."""
    trainings: Lines | None = None
    """Configurations that were trained again; None if it was trained once, as a trial."""
    parent: SearchFolder | None = None
    """The search that its configuration comes from, if that is another."""

    @property
    def terms(self) -> dict[str, str]:
        """What it was scored on."""
        return {
            FINGERPRINT: self.folder.record.fingerprint,
            SPLIT: self.folder.split().name,
            GIVEN: self.run.config.evaluate_on,
        }


@dataclass(frozen=True)
class Rival:
    """The present champion."""

    version: int
    search: str
    scores: Scores | None
    """None if it was scored on other patches."""


def facts_of(entry: Entry, rival: Rival | None, publisher: Publisher) -> Facts:
    """Everything that a version's card and description say.

    Args:
        publisher: of the entry's search, with everything sent.
    """
    folder, store = entry.folder, entry.folder.store()
    scores = {f"{folder.name}/{entry.run.label}": entry.scores}
    if rival is not None and rival.scores is not None:
        scores[f"champion, version {rival.version}"] = rival.scores
    return Facts(
        model=folder.record.model,
        search=folder.name if entry.parent is None else entry.parent.name,
        config=entry.run.config,
        patches=store.meta,
        fingerprint=store.fingerprint,
        split=_parts(folder.split()),
        scores={**scores, **entry.beside},
        chosen_by=entry.chosen_by,
        trainings=entry.trainings,
        links=_links(entry, publisher),
    )


def _parts(split: Split) -> dict[str, tuple[str, ...]]:
    return {"train": split.train, "validation": split.validation, "test": split.test}


def _links(entry: Entry, publisher: Publisher) -> dict[str, str]:
    """Addresses of the runs behind a version."""
    if entry.parent is None:
        runs = {"search": publisher.parent}
        runs[f"trial {entry.run.label}"] = publisher.run_id(entry.run.id)
    else:
        runs = {"search": synced(entry.parent).parent, "promotion": publisher.parent}
        trainings = [run for run in entry.folder.runs() if run.kind == "trial"]
        if len(trainings) > LINKED:  # a description has to be short
            trainings = [entry.run]
        runs |= {f"training {run.label}": publisher.run_id(run.id) for run in trainings}
    return run_pages(publisher.tracking, runs)


def synced(folder: SearchFolder, run: Run | None = None) -> Publisher:
    """A publisher that has sent everything; runs that somebody deleted are made again."""
    publisher = folder.publisher()
    publisher.sync()
    if _gone(folder, publisher.parent if run is None else publisher.run_id(run.id)):
        publisher.sync(again=True)
    return publisher


def _gone(folder: SearchFolder, run_id: str) -> bool:
    try:
        return folder.tracking().client().get_run(run_id).info.lifecycle_stage == "deleted"
    except TrackingError as error:
        if absent(error):
            return True
        raise


def tags_of(entry: Entry) -> dict[str, str]:
    """Tags of its version."""
    tags = {"trial": entry.run.label, "seed": str(entry.run.config.seed)}
    return tags if entry.parent is None else {**tags, "promoted_from": entry.parent.name}


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
