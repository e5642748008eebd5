"""What is put up for the registry, and all that is said of it there."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from hpsearch.data.splits import Split
from hpsearch.evaluation import Scores
from hpsearch.search.workspace import SearchFolder
from hpsearch.tracking.candidate import FINGERPRINT, GIVEN, SPLIT
from hpsearch.tracking.card import Facts, Lines
from hpsearch.tracking.pages import run_pages
from hpsearch.tracking.publisher import Publisher, TrackingError
from hpsearch.tracking.refusals import absent
from hpsearch.tracking.runs import Run

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
