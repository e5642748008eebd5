"""Registered versions become one model: loaded, combined, scored on test, registered."""

import re
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from hpsearch.data.samplers import stream
from hpsearch.data.splits import Split
from hpsearch.data.store import Patches, PatchStore
from hpsearch.errors import UserError
from hpsearch.evaluation import Scores
from hpsearch.evaluation.bootstrap import compare
from hpsearch.models.ensemble import Combine, Ensemble, mean_of, projected
from hpsearch.models.pipeline import Pipeline
from hpsearch.models.serving import (
    ON_A_CORE,
    EnsembleRecipe,
    Recipe,
    load_pipeline,
    read_recipe,
    save_pipeline,
)
from hpsearch.search.workspace import Workspace
from hpsearch.shapes import Float
from hpsearch.tracking.candidate import FINGERPRINT, GIVEN, SPLIT, Candidate
from hpsearch.tracking.decision import Decision, decide
from hpsearch.tracking.loading import downloaded
from hpsearch.tracking.names import KIND
from hpsearch.tracking.refusals import reached
from hpsearch.tracking.registry import Registry
from hpsearch.tracking.server import Tracking
from hpsearch.training.devices import choose_device
from hpsearch.training.judging import judge, judged_part

MEMBER = re.compile(r"(?:models:/)?([^/@]+)(?:/(\d+)|@([\w-]+))")
TERMS = {FINGERPRINT: "patch set", SPLIT: "split", GIVEN: "input (noisy or clean)"}
"""What members must share: else what one was tested on may be what another was trained on."""
LEARNT_FROM = 20_000
"""Training patches that a projection is learnt from."""


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


@dataclass(frozen=True)
class Registered:
    """What became of an ensemble."""

    version: int
    alias: str
    decision: Decision
    scores: Scores
    kept: float | None
    """Share of the variance that a projection kept."""


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


def combined(
    members: Sequence[Member], how: Combine, train: Patches, *, dimensions: int | None
) -> tuple[Ensemble, float | None]:
    """The ensemble, and the share of the variance that it keeps if it projects.

    Args:
        train: patches that a projection may be learnt from.
        dimensions: of a projection; the first member's if None.
    """
    pipelines = [member.pipeline for member in members]
    if how == "mean":
        return mean_of(pipelines), None
    noisy = members[0].tags.get(GIVEN, "noisy") != "clean"
    length = dimensions or members[0].recipe.descriptor.dimensions
    rows = side_by_side(pipelines, train, noisy=noisy)
    return projected(pipelines, rows, dimensions=length)


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


def register(
    ensemble: Ensemble, recipe: EnsembleRecipe, members: Sequence[Member], registry: Registry,
    *, store: PatchStore, split: Split, kept: float | None,
) -> Registered:  # fmt: skip
    """Score an ensemble on test, add it as a version, and move the alias that it deserves.

    Raises:
        UserError: if the registry refuses or does not answer.
    """
    given = members[0].tags.get(GIVEN) or "noisy"
    test = judged_part(store, split)
    scores = judge(ensemble, test, noisy=given == "noisy", device=choose_device("auto"))
    names = ", ".join(member.words for member in members)
    terms = {FINGERPRINT: store.fingerprint, SPLIT: split.name, GIVEN: given}
    decision = _decision(registry, scores, terms)
    with tempfile.TemporaryDirectory() as temporary, reached(registry.tracking.uri):
        save_pipeline(ensemble.cpu(), recipe, Path(temporary))
        candidate = Candidate(
            folder=Path(temporary),
            run_id=_run(registry.tracking, registry.model, names, recipe, scores),
            search=f"ensemble of {names}",
            scores=scores,
            fingerprint=store.fingerprint,
            example=test.pixels(noisy=given == "noisy")[:64:16],
            dimensions=recipe.dimensions,
            split=split.name,
            given=given,
            tags={"members": names, "combine": recipe.combine},
        )
        version = registry.register(candidate, description=f"{recipe.combine} of {names}")
    about = f"{decision.reason}; {recipe.combine} of {names}"
    alias = registry.apply(version, decision, description=about)
    return Registered(version, alias, decision, scores, kept)


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


def _decision(registry: Registry, scores: Scores, terms: dict[str, str]) -> Decision:
    """Against the present champion of that name, if there is one."""
    champion = registry.champion()
    if champion is None:
        return decide(None, collapsed=scores.collapsed)
    if any(champion.tags.get(tag, value) != value for tag, value in terms.items()):
        return decide(None, same_patches=False, collapsed=scores.collapsed)
    found = compare(scores, registry.scores(champion))["mAP"]
    return decide(found, collapsed=scores.collapsed)


def _run(
    tracking: Tracking, name: str, members: str, recipe: EnsembleRecipe, scores: Scores
) -> str:
    """A run for what belongs to no search."""
    client = tracking.client()
    found = client.get_experiment_by_name(tracking.experiment)
    experiment = (
        client.create_experiment(tracking.experiment, artifact_location=tracking.artifacts)
        if found is None
        else found.experiment_id
    )
    tags = {KIND: "ensemble", "members": members, "combine": recipe.combine}
    run = client.create_run(experiment, tags=tags, run_name=f"{name}: {recipe.combine}").info.run_id
    for key, value in scores.flat().items():
        client.log_metric(run, f"test/{key}", value)
    return run
