"""Ensembles of registered models."""

import re
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from hpsearch.data.patch_store import Patches, PatchStore
from hpsearch.data.splits import Split
from hpsearch.errors import UserError
from hpsearch.evaluation import Scores
from hpsearch.evaluation.bootstrap import compare
from hpsearch.models.ensemble import Combine, Ensemble, mean_of, projected
from hpsearch.models.pipeline import Pipeline
from hpsearch.models.serialization import (
    ON_A_CORE,
    EnsembleRecipe,
    Recipe,
    load_pipeline,
    read_recipe,
    save_pipeline,
)
from hpsearch.promotion.score_cache import Gradebook
from hpsearch.rng import stream
from hpsearch.search.workspace import Workspace
from hpsearch.shapes import Float
from hpsearch.tracking.connection import Tracking, reached
from hpsearch.tracking.mlflow_tags import KIND
from hpsearch.tracking.model_artifact import FINGERPRINT, GIVEN, SPLIT, Candidate, downloaded
from hpsearch.tracking.model_card import bound, data_lines, how_to_load, score_table
from hpsearch.tracking.model_registry import Alias, Decision, Registry, decide
from hpsearch.training.devices import choose_device

MEMBER = re.compile(r"(?:models:/)?([^/@]+)(?:/(\d+)|@([\w-]+))")
TERMS = {FINGERPRINT: "patch set", SPLIT: "split", GIVEN: "input (noisy or clean)"}


@dataclass(frozen=True)
class Member:
    """A registered version."""

    name: str
    version: int
    tags: dict[str, str]
    recipe: Recipe
    pipeline: Pipeline

    @property
    def words(self) -> str:
        """As it is written."""
        return f"{self.name}@{self.version}"

    @property
    def given(self) -> str:
        """Which patches it was scored on: noisy or clean."""
        return self.tags.get(GIVEN) or "noisy"


def load_members(words: Sequence[str], tracking: Tracking) -> list[Member]:
    """The versions that are named, once each.

    Raises:
        UserError: if there are fewer than two, one is unknown, twice there, or an ensemble itself,
            or they were not trained and tested on the same.
    """
    if len(words) < 2:
        raise UserError("an ensemble needs at least two members; name more versions: NAME@1 NAME@3")
    members = [_member(one, tracking) for one in words]
    named = [member.words for member in members]
    twice = [name for name in named if named.count(name) > 1]
    if twice:
        raise UserError(f"{twice[0]} is named twice; name each member once")
    for tag, what in TERMS.items():
        values = [member.tags.get(tag, "") for member in members]
        for name, value in zip(named, values, strict=True):
            if value != values[0]:
                raise UserError(
                    f"{named[0]} and {name} do not share their {what} ({values[0][:16]} and "
                    f"{value[:16]}); members of an ensemble must, so name versions that do"
                )
    return members


def patches_of(
    members: Sequence[Member], workspace: Workspace, data: str | None
) -> tuple[PatchStore, Split]:
    """The patch set that the members were trained and tested on, and how it was split.

    Raises:
        UserError: if it is not known where it lies, or ``data`` is another.
    """
    tags = members[0].tags
    if data is None:
        name = tags.get("search", "")
        if name not in workspace.searches():
            raise UserError(
                f"search {name!r} of {members[0].words} is not in {workspace.home}, so its patches "
                "are not known; say with --data where they lie"
            )
        data = workspace.open(name).record.store
    store = workspace.store(data)
    if store.fingerprint != tags.get(FINGERPRINT):
        raise UserError(
            f"{store.path} is not what {members[0].words} was trained on (fingerprint "
            f"{store.fingerprint[:16]}, not {tags.get(FINGERPRINT, '')[:16]}); give its own --data"
        )
    own = store.split()
    wanted = tags.get(SPLIT) or own.name
    return store, own if own.name == wanted else store.split(wanted)


def _member(words: str, tracking: Tracking) -> Member:
    found = MEMBER.fullmatch(words)
    if found is None:
        raise UserError(f"{words!r} is no registered version; write NAME@3, or NAME@champion")
    name, number, label = found.groups()
    client = tracking.client()
    number = number or (label if label.isdigit() else None)
    address = f"models:/{name}/{number}" if number else f"models:/{name}@{label}"
    with downloaded(address, tracking.uri) as folder, reached(tracking.uri):
        if number:
            version = client.get_model_version(name, number)
        else:
            version = client.get_model_version_by_alias(name, label)
        recipe, pipeline = read_recipe(folder), load_pipeline(folder)
    if not (isinstance(recipe, Recipe) and isinstance(pipeline, Pipeline)):
        raise UserError(f"{words} is an ensemble itself; name its members instead")
    return Member(name, int(version.version), dict(version.tags), recipe, pipeline)


LEARNT_FROM = 20_000
"""Training patches that a projection is learnt from."""


@dataclass(frozen=True, kw_only=True)
class Union:
    """Members as one network."""

    members: Sequence[Member]
    network: Ensemble
    combine: Combine
    kept: float | None
    """Share of the variance on training patches that a projection keeps."""

    @property
    def names(self) -> str:
        """Of all members."""
        return ", ".join(member.words for member in self.members)

    @property
    def made_of(self) -> str:
        """How, and of which."""
        return f"{self.combine} of {self.names}"

    @property
    def recipe(self) -> EnsembleRecipe:
        """What is written beside its weights."""
        return EnsembleRecipe(
            members=tuple(member.recipe for member in self.members),
            combine=self.combine,
            dimensions=self.network.combine.out_features,
        )


@dataclass(frozen=True)
class Registered:
    """What became of an ensemble."""

    version: int
    alias: Alias
    decision: Decision
    scores: Scores


def combined(
    members: Sequence[Member], how: Combine, train: Patches, *, dimensions: int | None
) -> Union:
    """The members as one network.

    Args:
        train: patches that a projection may be learnt from.
        dimensions: of a projection; the first member's if None.
    """
    pipelines = [member.pipeline for member in members]
    if how == "mean":
        return Union(members=members, network=mean_of(pipelines), combine=how, kept=None)
    length = dimensions or members[0].recipe.descriptor.dimensions
    rows = side_by_side(pipelines, train, noisy=members[0].given == "noisy")
    network, kept = projected(pipelines, rows, dimensions=length)
    return Union(members=members, network=network, combine=how, kept=kept)


@torch.inference_mode()
def side_by_side(
    pipelines: Sequence[Pipeline], train: Patches, *, noisy: bool
) -> Float[np.ndarray, "n w"]:
    """The members' descriptors of training patches drawn at random."""
    device = choose_device("auto")
    joined = Ensemble(pipelines, dimensions=1, unit_norm=False).to(device)
    total = 16 * len(train)
    chosen = stream(0, "ensemble", 0).choice(total, min(total, LEARNT_FROM), replace=False)
    pixels = train.gather(np.sort(chosen), noisy=noisy)
    parts = (
        joined.side_by_side(torch.from_numpy(pixels[start : start + ON_A_CORE]).to(device)).cpu()
        for start in range(0, len(pixels), ON_A_CORE)
    )
    return torch.cat(list(parts)).numpy()


def register(found: Union, registry: Registry, book: Gradebook) -> Registered:
    """Score an ensemble on test, add it as a version, and move the alias that it deserves.

    Raises:
        UserError: if the registry refuses or does not answer.
    """
    given = found.members[0].given
    scores = book.scores(found.network, noisy=given == "noisy", who=found.made_of)
    terms = {FINGERPRINT: book.store.fingerprint, SPLIT: book.split.name, GIVEN: given}
    decision = _decision(registry, scores, terms)
    with tempfile.TemporaryDirectory() as temporary, reached(registry.tracking.uri):
        to = Path(temporary) / "pipeline"
        save_pipeline(found.network.cpu(), found.recipe, to)
        candidate = Candidate(
            folder=to,
            run_id=_run(found, registry, scores),
            search=f"ensemble of {found.names}",
            scores=scores,
            fingerprint=book.store.fingerprint,
            example=book.test.pixels(noisy=given == "noisy")[:64:16],
            dimensions=found.recipe.dimensions,
            split=book.split.name,
            given=given,
            card=_card(found, registry.model, scores, book),
            tags={"members": found.names, "combine": found.combine},
        )
        version = registry.register(candidate, description=found.made_of)
    about = f"{decision.reason}; {found.made_of}"
    return Registered(
        version, registry.apply(version, decision, description=about), decision, scores
    )


def _decision(registry: Registry, scores: Scores, terms: dict[str, str]) -> Decision:
    """Against the present champion of that name, if there is one."""
    champion = registry.champion()
    rival = None if champion is None else registry.comparable(champion, terms, scores.names)
    difference = None if rival is None else compare(scores, rival)["mAP"]
    same = champion is None or rival is not None
    return decide(difference, same_patches=same, collapsed=scores.collapsed)


def _card(found: Union, model: str, scores: Scores, book: Gradebook) -> str:
    """What goes with the model; how its members were trained stands in their own cards."""
    split = book.split
    parts = {"train": split.train, "validation": split.validation, "test": split.test}
    kept = "" if found.kept is None else f" The projection keeps {found.kept:.1%} of the variance."
    members = "\n".join(f"- models:/{m.name}/{m.version}" for m in found.members)
    sections = {
        "How to load it": how_to_load(model, found.recipe.dimensions),
        "Scores on test": score_table({model: scores}),
        "Members": f"{members}\n\nCombined by: {found.combine}.{kept}",
        "Data": data_lines(book.store.meta, book.store.fingerprint, parts),
    }
    return bound(model, found.recipe.dimensions, sections)


def _run(found: Union, registry: Registry, scores: Scores) -> str:
    """A run for what belongs to no search."""
    client = registry.tracking.client()
    tags = {KIND: "ensemble", "members": found.names, "combine": found.combine}
    name = f"{registry.model}: {found.combine}"
    run = client.create_run(registry.tracking.experiment_id(), tags=tags, run_name=name)
    for key, value in scores.flat().items():
        client.log_metric(run.info.run_id, f"test/{key}", value)
    return run.info.run_id
