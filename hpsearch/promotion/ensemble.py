"""Ensembles of registered models."""

import re
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from hpsearch.data.patch_store import Patches, PatchStore
from hpsearch.data.splits import TrialSplit
from hpsearch.errors import UserError
from hpsearch.evaluation import Scores
from hpsearch.evaluation.bootstrap import compare
from hpsearch.models.ensemble import Combine, Ensemble, mean_of, pca_ensemble
from hpsearch.models.pipeline import Pipeline
from hpsearch.models.serialization import (
    CPU_BATCH,
    EnsembleSpec,
    PipelineSpec,
    load_pipeline,
    read_spec,
    save_pipeline,
)
from hpsearch.promotion.score_cache import ScoreCache
from hpsearch.rng import rng_for
from hpsearch.search.workspace import Workspace
from hpsearch.shapes import Float
from hpsearch.tracking.connection import TrackingServer, translate_mlflow_errors
from hpsearch.tracking.mlflow_tags import RUN_KIND
from hpsearch.tracking.model_artifact import (
    FINGERPRINT_TAG,
    INPUT_KIND_TAG,
    SPLIT_TAG,
    ModelArtifact,
    download_model,
)
from hpsearch.tracking.model_card import combined_card, dataset_section, how_to_load, score_table
from hpsearch.tracking.model_registry import Alias, Decision, Registry, decide
from hpsearch.training.devices import choose_device

MEMBER_PATTERN = re.compile(r"(?:models:/)?([^/@]+)(?:/(\d+)|@([\w-]+))")
COMPARED_TAGS = {
    FINGERPRINT_TAG: "patch set",
    SPLIT_TAG: "split",
    INPUT_KIND_TAG: "input (noisy or clean)",
}


@dataclass(frozen=True)
class Member:
    """A registered version."""

    name: str
    version: int
    tags: dict[str, str]
    spec: PipelineSpec
    pipeline: Pipeline

    @property
    def ref(self) -> str:
        """As it is written."""
        return f"{self.name}@{self.version}"

    @property
    def input_kind(self) -> str:
        """Which patches it was scored on: noisy or clean."""
        return self.tags.get(INPUT_KIND_TAG) or "noisy"


def load_members(refs: Sequence[str], tracking: TrackingServer) -> list[Member]:
    """The versions that are named, once each.

    Raises:
        UserError: if there are fewer than two, one is unknown, twice there, or an ensemble itself,
            or they were not trained and tested on the same.
    """
    if len(refs) < 2:
        raise UserError("an ensemble needs at least two members; name more versions: NAME@1 NAME@3")
    members = [_load_member(one, tracking) for one in refs]
    named = [member.ref for member in members]
    twice = [name for name in named if named.count(name) > 1]
    if twice:
        raise UserError(f"{twice[0]} is named twice; name each member once")
    for tag, what in COMPARED_TAGS.items():
        values = [member.tags.get(tag, "") for member in members]
        for name, value in zip(named, values, strict=True):
            if value != values[0]:
                raise UserError(
                    f"{named[0]} and {name} do not share their {what} ({values[0][:16]} and "
                    f"{value[:16]}); members of an ensemble must, so name versions that do"
                )
    return members


def common_dataset(
    members: Sequence[Member], workspace: Workspace, data: str | None
) -> tuple[PatchStore, TrialSplit]:
    """The patch set that the members were trained and tested on, and how it was split.

    Raises:
        UserError: if it is not known where it lies, or ``data`` is another.
    """
    tags = members[0].tags
    if data is None:
        name = tags.get("search", "")
        if name not in workspace.searches():
            raise UserError(
                f"search {name!r} of {members[0].ref} is not in {workspace.home}, so its patches "
                "are not known; say with --data where they lie"
            )
        data = workspace.open(name).record.store
    store = workspace.store(data)
    if store.fingerprint != tags.get(FINGERPRINT_TAG):
        raise UserError(
            f"{store.path} is not what {members[0].ref} was trained on (fingerprint "
            f"{store.fingerprint[:16]}, not {tags.get(FINGERPRINT_TAG, '')[:16]}); give its own "
            "--data"
        )
    own = store.split()
    wanted = tags.get(SPLIT_TAG) or own.name
    return store, own if own.name == wanted else store.split(wanted)


def _load_member(ref: str, tracking: TrackingServer) -> Member:
    found = MEMBER_PATTERN.fullmatch(ref)
    if found is None:
        raise UserError(f"{ref!r} is no registered version; write NAME@3, or NAME@champion")
    name, number, label = found.groups()
    client = tracking.client()
    number = number or (label if label.isdigit() else None)
    address = f"models:/{name}/{number}" if number else f"models:/{name}@{label}"
    with download_model(address, tracking.uri) as folder, translate_mlflow_errors(tracking.uri):
        if number:
            version = client.get_model_version(name, number)
        else:
            version = client.get_model_version_by_alias(name, label)
        spec, pipeline = read_spec(folder), load_pipeline(folder)
    if not (isinstance(spec, PipelineSpec) and isinstance(pipeline, Pipeline)):
        raise UserError(f"{ref} is an ensemble itself; name its members instead")
    return Member(name, int(version.version), dict(version.tags), spec, pipeline)


MAX_PCA_PATCHES = 20_000
"""Training patches that a projection is learnt from."""


@dataclass(frozen=True, kw_only=True)
class CombinedModel:
    """Members as one network."""

    members: Sequence[Member]
    network: Ensemble
    combine: Combine
    explained_variance: float | None
    """Share of the variance on training patches that a projection keeps."""

    @property
    def names(self) -> str:
        """Of all members."""
        return ", ".join(member.ref for member in self.members)

    @property
    def provenance(self) -> str:
        """How, and of which."""
        return f"{self.combine} of {self.names}"

    @property
    def spec(self) -> EnsembleSpec:
        """What is written beside its weights."""
        return EnsembleSpec(
            members=tuple(member.spec for member in self.members),
            combine=self.combine,
            descriptor_dim=self.network.combine.out_features,
        )


@dataclass(frozen=True)
class RegistrationResult:
    """What became of an ensemble."""

    version: int
    alias: Alias
    decision: Decision
    scores: Scores


def combine_models(
    members: Sequence[Member], method: Combine, train: Patches, *, descriptor_dim: int | None
) -> CombinedModel:
    """The members as one network.

    Args:
        train: patches that a projection may be learnt from.
        descriptor_dim: of a projection; the first member's if None.
    """
    pipelines = [member.pipeline for member in members]
    if method == "mean":
        return CombinedModel(
            members=members, network=mean_of(pipelines), combine=method, explained_variance=None
        )
    length = descriptor_dim or members[0].spec.descriptor.descriptor_dim
    rows = concat_training_descriptors(pipelines, train, noisy=members[0].input_kind == "noisy")
    network, kept = pca_ensemble(pipelines, rows, descriptor_dim=length)
    return CombinedModel(members=members, network=network, combine=method, explained_variance=kept)


@torch.inference_mode()
def concat_training_descriptors(
    pipelines: Sequence[Pipeline], train: Patches, *, noisy: bool
) -> Float[np.ndarray, "n w"]:
    """The members' descriptors of training patches drawn at random."""
    device = choose_device("auto")
    joined = Ensemble(pipelines, descriptor_dim=1, unit_norm=False).to(device)
    total = 16 * len(train)
    chosen = rng_for(0, "ensemble", 0).choice(total, min(total, MAX_PCA_PATCHES), replace=False)
    pixels = train.gather(np.sort(chosen), noisy=noisy)
    parts = (
        joined.concat_descriptors(
            torch.from_numpy(pixels[start : start + CPU_BATCH]).to(device)
        ).cpu()
        for start in range(0, len(pixels), CPU_BATCH)
    )
    return torch.cat(list(parts)).numpy()


def register_ensemble(
    combined: CombinedModel, registry: Registry, score_cache: ScoreCache
) -> RegistrationResult:
    """Score an ensemble on test, add it as a version, and move the alias that it deserves.

    Raises:
        UserError: if the registry refuses or does not answer.
    """
    given = combined.members[0].input_kind
    scores = score_cache.scores(combined.network, noisy=given == "noisy", name=combined.provenance)
    terms = {
        FINGERPRINT_TAG: score_cache.store.fingerprint,
        SPLIT_TAG: score_cache.split.name,
        INPUT_KIND_TAG: given,
    }
    decision = _decide(registry, scores, terms)
    with tempfile.TemporaryDirectory() as temporary, translate_mlflow_errors(registry.tracking.uri):
        to = Path(temporary) / "pipeline"
        save_pipeline(combined.network.cpu(), combined.spec, to)
        candidate = ModelArtifact(
            folder=to,
            run_id=_create_run(combined, registry, scores),
            search=f"ensemble of {combined.names}",
            scores=scores,
            fingerprint=score_cache.store.fingerprint,
            example=score_cache.test_set.pixels(noisy=given == "noisy")[:64:16],
            descriptor_dim=combined.spec.descriptor_dim,
            split=score_cache.split.name,
            input_kind=given,
            card=_ensemble_card(combined, registry.model, scores, score_cache),
            tags={"members": combined.names, "combine": combined.combine},
        )
        version = registry.register(candidate, description=combined.provenance)
    about = f"{decision.reason}; {combined.provenance}"
    return RegistrationResult(
        version, registry.apply(version, decision, description=about), decision, scores
    )


def _decide(registry: Registry, scores: Scores, terms: dict[str, str]) -> Decision:
    """Against the present champion of that name, if there is one."""
    champion = registry.champion()
    champion_scores = (
        None if champion is None else registry.scores_if_comparable(champion, terms, scores.names)
    )
    difference = None if champion_scores is None else compare(scores, champion_scores)["mAP"]
    same = champion is None or champion_scores is not None
    return decide(difference, same_patches=same, collapsed=scores.collapsed)


def _ensemble_card(
    combined: CombinedModel, model: str, scores: Scores, score_cache: ScoreCache
) -> str:
    """What goes with the model; how its members were trained stands in their own cards."""
    split = score_cache.split
    parts = {"train": split.train, "validation": split.validation, "test": split.test}
    kept = (
        ""
        if combined.explained_variance is None
        else f" The projection keeps {combined.explained_variance:.1%} of the variance."
    )
    members = "\n".join(f"- models:/{m.name}/{m.version}" for m in combined.members)
    sections = {
        "How to load it": how_to_load(model, combined.spec.descriptor_dim),
        "Scores on test": score_table({model: scores}),
        "Members": f"{members}\n\nCombined by: {combined.combine}.{kept}",
        "Data": dataset_section(score_cache.store.meta, score_cache.store.fingerprint, parts),
    }
    return combined_card(model, combined.spec.descriptor_dim, sections)


def _create_run(combined: CombinedModel, registry: Registry, scores: Scores) -> str:
    """A run for what belongs to no search."""
    client = registry.tracking.client()
    tags = {RUN_KIND: "ensemble", "members": combined.names, "combine": combined.combine}
    name = f"{registry.model}: {combined.combine}"
    run = client.create_run(registry.tracking.experiment_id(), tags=tags, run_name=name)
    for key, value in scores.flat().items():
        client.log_metric(run.info.run_id, f"test/{key}", value)
    return run.info.run_id
