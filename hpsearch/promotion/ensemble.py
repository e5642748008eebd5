"""Ensembles of registered models."""

import re
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from hpsearch.data.patch_store import Patches, PatchStore
from hpsearch.data.splits import TrialSplit
from hpsearch.errors import UserError
from hpsearch.evaluation import Scores
from hpsearch.execution.shutdown import install_termination_handlers
from hpsearch.models.ensemble import Combine, Ensemble, mean_of, output_dim, pca_ensemble
from hpsearch.models.onnx_export import add_onnx
from hpsearch.models.pipeline import Pipeline
from hpsearch.models.serialization import (
    CPU_BATCH,
    EnsembleSpec,
    PipelineSpec,
    ProgramSpec,
    load_pipeline,
    read_spec,
    save_pipeline,
)
from hpsearch.promotion.champion_comparison import (
    NETWORK_DIGITS,
    Candidate,
    assess,
    registry_lock,
)
from hpsearch.promotion.final_evaluation import evaluate_classical
from hpsearch.promotion.score_cache import ScoreCache, model_fingerprint
from hpsearch.rng import rng_for
from hpsearch.search.workspace import Workspace
from hpsearch.shapes import Float
from hpsearch.tracking.connection import TrackingServer
from hpsearch.tracking.decision import Decision, decide
from hpsearch.tracking.mlflow_errors import translate_mlflow_errors
from hpsearch.tracking.mlflow_tags import (
    FINGERPRINT_TAG,
    INPUT_KIND_TAG,
    RUN_KIND,
    SPLIT_TAG,
)
from hpsearch.tracking.model_artifact import ModelArtifact, download_model, run_of_model
from hpsearch.tracking.model_card import combined_card, dataset_section, how_to_load, score_table
from hpsearch.tracking.model_registry import NETWORK_TAG, Registry
from hpsearch.training.devices import choose_device

MEMBER_PATTERN = re.compile(r"(?:models:/)?([^/@]+)(?:/(\d+)|@([\w-]+))")
COMPARED_TAGS = {
    FINGERPRINT_TAG: "patch set",
    SPLIT_TAG: "split",
    INPUT_KIND_TAG: "input (noisy or clean)",
}


@dataclass(frozen=True)
class Member:
    """Registered model version that is a member of an ensemble."""

    name: str
    version: int
    tags: dict[str, str]
    spec: PipelineSpec
    pipeline: Pipeline

    @property
    def ref(self) -> str:
        """Reference to the version: ``NAME@VERSION``."""
        return f"{self.name}@{self.version}"

    @property
    def input_kind(self) -> str:
        """Kind of patches that it was evaluated on: ``noisy`` or ``clean``."""
        return self.tags.get(INPUT_KIND_TAG) or "noisy"


def load_members(refs: Sequence[str], tracking: TrackingServer) -> list[Member]:
    """Load the versions that are named.

    Args:
        refs: references ``NAME@VERSION`` or ``NAME@ALIAS``.
        tracking: MLflow with its registry.

    Raises:
        UserError: if there are fewer than two, one is unknown, repeated, or itself an ensemble,
            or they were trained or evaluated on different data.
    """
    if len(refs) < 2:
        raise UserError(
            "an ensemble needs at least two members; name more versions: NAME@1 NAME@3",
            code="too-few-members",
        )
    members = [_load_member(one, tracking) for one in refs]
    named = [member.ref for member in members]
    twice = [name for name in named if named.count(name) > 1]
    if twice:
        raise UserError(f"{twice[0]} is named twice; name each member once", code="repeated-member")
    for tag, what in COMPARED_TAGS.items():
        values = [member.tags.get(tag, "") for member in members]
        for name, value in zip(named, values, strict=True):
            if value != values[0]:
                raise UserError(
                    f"{named[0]} and {name} differ in their {what} ({values[0][:16]} and "
                    f"{value[:16]}); name members that agree in it",
                    code="members-differ",
                )
    return members


def common_dataset(
    members: Sequence[Member], workspace: Workspace, data: str | None
) -> tuple[PatchStore, TrialSplit]:
    """Patch set and split that the members were trained and evaluated on.

    Args:
        members: members of the ensemble.
        workspace: home with the searches of the members.
        data: patch set by name or path; that of the first member's search if None.

    Raises:
        UserError: if the location of the patches is unknown, or ``data`` is a different set.
    """
    tags = members[0].tags
    if data is None:
        name = tags.get("search", "")
        if name not in workspace.searches():
            raise UserError(
                f"search {name!r} of {members[0].ref} is not in {workspace.home}, so its patches "
                "are unknown; give their location with --data",
                code="unknown-data-location",
            )
        data = workspace.open(name).record.store
    store = workspace.store(data)
    if store.fingerprint != tags.get(FINGERPRINT_TAG):
        raise UserError(
            f"{store.path} is not what {members[0].ref} was trained on (fingerprint "
            f"{store.fingerprint[:16]}, not {tags.get(FINGERPRINT_TAG, '')[:16]}); give its own "
            "--data",
            code="other-data",
        )
    own = store.split()
    wanted = tags.get(SPLIT_TAG) or own.name
    return store, own if own.name == wanted else store.split(wanted)


def _load_member(ref: str, tracking: TrackingServer) -> Member:
    found = MEMBER_PATTERN.fullmatch(ref)
    if found is None:
        raise UserError(
            f"{ref!r} is not a registered version; write NAME@3 or NAME@champion",
            code="invalid-version-reference",
        )
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
    if isinstance(spec, ProgramSpec):
        hint = "an ensemble cannot hold its weights; name versions with built-in networks"
        raise UserError(f"{ref} is an ONNX program, {hint}", code="member-is-program")
    if not (isinstance(spec, PipelineSpec) and isinstance(pipeline, Pipeline)):
        raise UserError(
            f"{ref} is an ensemble; name its members instead", code="member-is-ensemble"
        )
    return Member(name, int(version.version), dict(version.tags), spec, pipeline)


MAX_PCA_PATCHES = 20_000
"""Training patches that a PCA projection is fitted to."""


@dataclass(frozen=True, kw_only=True)
class CombinedModel:
    """Members of an ensemble combined into one network."""

    members: Sequence[Member]
    network: Ensemble
    combine: Combine
    explained_variance: float | None
    """Share of the variance on training patches that the projection keeps; None without one."""

    @property
    def names(self) -> str:
        """References of all members, as text."""
        return ", ".join(member.ref for member in self.members)

    @property
    def provenance(self) -> str:
        """Combination method and members, as text."""
        return f"{self.combine} of {self.names}"

    @property
    def spec(self) -> EnsembleSpec:
        """Specification of the ensemble that is stored with its weights."""
        return EnsembleSpec(
            members=tuple(member.spec for member in self.members),
            combine=self.combine,
            descriptor_dim=self.network.combine.out_features,
        )


@dataclass(frozen=True)
class RegistrationResult:
    """Result of the registration of an ensemble: version, decision, scores."""

    version: int
    decision: Decision
    scores: Scores


def combine_models(
    members: Sequence[Member], method: Combine, train: Patches, *, descriptor_dim: int | None
) -> CombinedModel:
    """Combine the members into one network.

    Args:
        members: members of the ensemble.
        method: ``concatenate`` (with a projection) or ``mean``.
        train: patches that a projection may be fitted to.
        descriptor_dim: output dimension of a projection; the first member's if None.
    """
    pipelines = [member.pipeline for member in members]
    if method == "mean":
        return CombinedModel(
            members=members, network=mean_of(pipelines), combine=method, explained_variance=None
        )
    length = descriptor_dim or output_dim(members[0].pipeline)
    rows = concat_training_descriptors(pipelines, train, noisy=members[0].input_kind == "noisy")
    network, kept = pca_ensemble(pipelines, rows, descriptor_dim=length)
    return CombinedModel(members=members, network=network, combine=method, explained_variance=kept)


@torch.inference_mode()
def concat_training_descriptors(
    pipelines: Sequence[Pipeline], train: Patches, *, noisy: bool
) -> Float[np.ndarray, "n w"]:
    """Compute the members' descriptors of randomly sampled training patches."""
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
    """Evaluate an ensemble on test, register it as a version, and move the alias if it is better.

    Its MLflow run ends with this call, also by an exception, Ctrl-C or SIGTERM.

    Raises:
        UserError: if the registry refuses the request or does not answer.
    """
    install_termination_handlers()
    given = combined.members[0].input_kind
    noisy = given == "noisy"
    candidate = Candidate(
        scores=score_cache.scores(combined.network, noisy=noisy, name=combined.provenance),
        baselines=evaluate_classical(score_cache, noisy=noisy),
        terms={
            FINGERPRINT_TAG: score_cache.store.fingerprint,
            SPLIT_TAG: score_cache.split.name,
            INPUT_KIND_TAG: given,
        },
        network=model_fingerprint(combined.network)[:NETWORK_DIGITS],
    )
    with registry_lock(score_cache.home):
        version = _add_version(combined, registry, score_cache, candidate)
        while True:
            found = assess(registry, replace(candidate, own_version=version))
            decision = decide(found.evidence)
            if registry.champion_is(found.champion.version if found.champion else None):
                break
        about = f"{decision.reason}; {combined.provenance}"
        registry.apply(version, decision, description=about)
    return RegistrationResult(version, decision, candidate.scores)


def _add_version(
    combined: CombinedModel, registry: Registry, score_cache: ScoreCache, candidate: Candidate
) -> int:
    """Register an ensemble as a new version without alias."""
    provenance = {"members": combined.names, "combine": combined.combine}
    with (
        tempfile.TemporaryDirectory() as temporary,
        translate_mlflow_errors(registry.tracking.uri),
        run_of_model(
            registry.tracking,
            f"{registry.model}: {combined.combine}",
            tags={RUN_KIND: "ensemble", **provenance},
            scores=candidate.scores,
        ) as run_id,
    ):
        to = Path(temporary) / "pipeline"
        save_pipeline(combined.network.cpu(), combined.spec, to)
        onnx = add_onnx(combined.network, to, metadata={"hpsearch.model": registry.model})
        given = candidate.terms[INPUT_KIND_TAG]
        artifact = ModelArtifact(
            folder=to,
            run_id=run_id,
            search=f"ensemble of {combined.names}",
            scores=candidate.scores,
            fingerprint=score_cache.store.fingerprint,
            example=score_cache.test_set.pixels(noisy=given == "noisy")[:64:16],
            descriptor_dim=combined.spec.descriptor_dim,
            split=score_cache.split.name,
            input_kind=given,
            card=_ensemble_card(combined, registry.model, candidate, score_cache, onnx),
            tags={**provenance, NETWORK_TAG: candidate.network},
        )
        return registry.register(artifact, description=combined.provenance)


def _ensemble_card(
    combined: CombinedModel, model: str, candidate: Candidate, score_cache: ScoreCache, onnx: str
) -> str:
    """Model card of an ensemble; the training of its members is in their own cards."""
    split = score_cache.split
    parts = {"train": split.train, "validation": split.validation, "test": split.test}
    share = combined.explained_variance
    kept = "" if share is None else f" The projection keeps {share:.1%} of the variance."
    members = "\n".join(f"- models:/{m.name}/{m.version}" for m in combined.members)
    sections = {
        "How to load it": how_to_load(model, combined.spec.descriptor_dim, onnx=onnx),
        "Scores on test": score_table({model: candidate.scores, **candidate.baselines}),
        "Members": f"{members}\n\nCombined by: {combined.combine}.{kept}",
        "Data": dataset_section(score_cache.store.meta, score_cache.store.fingerprint, parts),
    }
    return combined_card(model, combined.spec.descriptor_dim, sections)
