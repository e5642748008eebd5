"""Registration of a model: the request, the decision, the model card."""

import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from hpsearch.data.splits import TrialSplit
from hpsearch.errors import UserError
from hpsearch.evaluation import Scores
from hpsearch.evaluation.bootstrap import Comparison, compare
from hpsearch.models.serialization import save_pipeline
from hpsearch.promotion.final_evaluation import (
    BASELINE_NAME,
    PIXELS_NAME,
    load_scores,
    load_trained,
    pipeline_spec,
)
from hpsearch.promotion.score_cache import ScoreCache
from hpsearch.search.search_context import SearchContext
from hpsearch.tracking.connection import TrackingError, is_not_found, translate_mlflow_errors
from hpsearch.tracking.mlflow_links import run_links
from hpsearch.tracking.mlflow_sync import MlflowSync
from hpsearch.tracking.model_artifact import (
    FINGERPRINT_TAG,
    INPUT_KIND_TAG,
    SPLIT_TAG,
    ModelArtifact,
    load_descriptor,
)
from hpsearch.tracking.model_card import CardTable, ModelCardData, render_card, version_description
from hpsearch.tracking.model_registry import Decision, Registry, decide
from hpsearch.tracking.run_state import Run

MAX_LINKED_RUNS = 24
"""Maximum number of runs that a version links to; with more, only its own is linked."""


@dataclass(frozen=True, kw_only=True)
class RegistrationRequest:
    """Request to register a trained network."""

    context: SearchContext
    """Search of the network's run."""
    run: Run
    scores: Scores
    """Test scores of the network."""
    baselines: Mapping[str, Scores] = field(default_factory=dict)
    """Test scores of the baselines on the same patches, by name."""
    chosen_by: str
    """Sentence about how the network was selected."""
    trainings_table: CardTable | None = None
    """Table of retrained configurations; None for a trial that was trained once."""
    promoted_from: SearchContext | None = None
    """Search that the configuration comes from, if it differs from ``folder``."""

    @property
    def terms(self) -> dict[str, str]:
        """Tags that identify the test patches."""
        return {
            FINGERPRINT_TAG: self.context.record.fingerprint,
            SPLIT_TAG: self.context.split.name,
            INPUT_KIND_TAG: self.run.config.evaluate_on,
        }


@dataclass(frozen=True)
class ChampionInfo:
    """Present champion and its scores."""

    version: int
    search: str
    scores: Scores | None
    """Test scores; None if it was evaluated on other patches."""


def build_card_data(
    request: RegistrationRequest, champion: ChampionInfo | None, mlflow_sync: MlflowSync
) -> ModelCardData:
    """Collect the data of a version's card and description.

    Args:
        request: the network.
        champion: present champion, if any.
        mlflow_sync: synchronization of the request's search, with everything sent.
    """
    context, store = request.context, request.context.store
    scores = {f"{context.name}/{request.run.label}": request.scores}
    if champion is not None and champion.scores is not None:
        scores[f"champion, version {champion.version}"] = champion.scores
    return ModelCardData(
        model=context.record.model,
        search=context.name if request.promoted_from is None else request.promoted_from.name,
        config=request.run.config,
        patches=store.meta,
        fingerprint=store.fingerprint,
        split=_split_parts(context.split),
        scores={**scores, **request.baselines},
        chosen_by=request.chosen_by,
        trainings_table=request.trainings_table,
        links=_run_links(request, mlflow_sync),
    )


def _split_parts(split: TrialSplit) -> dict[str, tuple[str, ...]]:
    return {"train": split.train, "validation": split.validation, "test": split.test}


def _run_links(request: RegistrationRequest, mlflow_sync: MlflowSync) -> dict[str, str]:
    """Links to the runs of a version."""
    if request.promoted_from is None:
        runs = {"search": mlflow_sync.search_run_id}
        runs[f"trial {request.run.label}"] = mlflow_sync.run_id(request.run.id)
    else:
        runs = {
            "search": sync_runs(request.promoted_from).search_run_id,
            "promotion": mlflow_sync.search_run_id,
        }
        trainings = [run for run in request.context.runs if run.kind == "trial"]
        if len(trainings) > MAX_LINKED_RUNS:  # a description has to be short
            trainings = [request.run]
        runs |= {f"training {run.label}": mlflow_sync.run_id(run.id) for run in trainings}
    return run_links(mlflow_sync.tracking, runs)


def sync_runs(context: SearchContext, run: Run | None = None) -> MlflowSync:
    """Send everything to MLflow; runs that a user deleted are created again."""
    mlflow_sync = context.mlflow_sync()
    mlflow_sync.sync()
    if _was_deleted(
        context, mlflow_sync.search_run_id if run is None else mlflow_sync.run_id(run.id)
    ):
        mlflow_sync.sync(full=True)
    return mlflow_sync


def _was_deleted(context: SearchContext, run_id: str) -> bool:
    try:
        return context.tracking().client().get_run(run_id).info.lifecycle_stage == "deleted"
    except TrackingError as error:
        if is_not_found(error):
            return True
        raise


def version_tags(request: RegistrationRequest) -> dict[str, str]:
    """Tags of the model version."""
    tags = {"trial": request.run.label, "seed": str(request.run.config.seed)}
    return (
        tags
        if request.promoted_from is None
        else {**tags, "promoted_from": request.promoted_from.name}
    )


ALREADY_REGISTERED = "it is already the champion"


@dataclass(frozen=True)
class RegistrationOutcome:
    """Outcome of a registration: version, alias, decision, comparisons."""

    model: str
    version: int
    alias: str
    decision: Decision
    champion: ChampionInfo | None = None
    comparisons: Mapping[str, Comparison] = field(default_factory=dict)
    """Comparisons with the champion by headline score; empty without comparable scores."""


def register_winner(context: SearchContext, winner: Run) -> RegistrationOutcome:
    """Register the best trial of a search, unless it is registered.

    As a maximum over noisy scores it is biased, so it becomes champion only if there is none.

    Raises:
        UserError: if it has not been evaluated on test.
    """
    scores = load_scores(context)
    if winner.label not in scores:
        raise UserError(
            f"{context.name!r} has not finished; resume it with `hpsearch resume {context.name}`",
            code="search-not-finished",
        )
    registry = registry_of(context)
    known = registry.decision_on(context.name, winner.label)
    if known is not None:
        return RegistrationOutcome(registry.model, *known)
    sentence = (
        f"The best of {context.record.trials} trials by {context.objective.metric} on "
        "validation, trained with one seed, so its score is biased upwards."
    )
    request = RegistrationRequest(
        context=context,
        run=winner,
        scores=scores[winner.label],
        baselines=baseline_scores(context),
        chosen_by=sentence,
    )
    return register_model(request)


def register_model(
    request: RegistrationRequest, *, force: bool = False, reevaluate: bool = False
) -> RegistrationOutcome:
    """Compare a network with the champion, register it as a version, and move the alias.

    Args:
        request: the network with its scores.
        force: make it champion whatever the comparison shows.
        reevaluate: evaluate the champion on this search's test patches instead of using its
            scores from its registration.

    Raises:
        UserError: if the registry refuses or does not answer; the same call then resumes.
    """
    registry = registry_of(request.context)
    own = registry.version_of(request.context.name, request.run.label)
    champion = champion_of(registry, request, reevaluate=reevaluate)
    if own is not None and champion is not None and champion.version == int(own.version):
        champion = ChampionInfo(champion.version, champion.search, request.scores)
        return RegistrationOutcome(
            registry.model,
            champion.version,
            "champion",
            Decision(True, ALREADY_REGISTERED),
            champion,
        )
    found = (
        {}
        if champion is None or champion.scores is None
        else compare(request.scores, champion.scores)
    )
    decision = decide(
        found.get("mAP"),
        same_patches=champion is None or champion.scores is not None,
        collapsed=request.scores.collapsed,
        retrained=request.trainings_table is not None,
        force=force,
    )
    with translate_mlflow_errors(registry.tracking.uri):
        mlflow_sync = sync_runs(request.context, request.run)
        facts = build_card_data(request, champion, mlflow_sync)
        version = None if own is None else int(own.version)
        if version is None:
            version = _add_version(
                request, facts, decision, registry, mlflow_sync.run_id(request.run.id)
            )
    alias = registry.apply(version, decision, description=version_description(facts, decision))
    return RegistrationOutcome(registry.model, version, alias, decision, champion, found)


def baseline_scores(context: SearchContext) -> dict[str, Scores]:
    """Test scores of a finished search's baselines, by display name."""
    names = {BASELINE_NAME: "baseline triplet", PIXELS_NAME: PIXELS_NAME}
    return {names[name]: found for name, found in load_scores(context).items() if name in names}


def registry_of(context: SearchContext) -> Registry:
    """Registry of a search's models."""
    return context.registry()


def champion_of(
    registry: Registry, request: RegistrationRequest, *, reevaluate: bool
) -> ChampionInfo | None:
    """Present champion, with scores if they are of the same test patches as the request's."""
    version = registry.champion()
    if version is None:
        return None
    number, search = int(version.version), version.tags.get("search", "")
    if search == request.context.name and version.tags.get("trial") == request.run.label:
        return ChampionInfo(number, search, request.scores)
    if reevaluate:
        words = f"models:/{registry.model}/{number}"
        pipeline = load_descriptor(words, registry.tracking.uri).pipeline
        noisy = request.run.config.evaluate_on == "noisy"
        found = ScoreCache.for_search(request.context).scores(pipeline, noisy=noisy, name=words)
        return ChampionInfo(number, search, found)
    return ChampionInfo(
        number, search, registry.scores_if_comparable(version, request.terms, request.scores.names)
    )


def _add_version(
    request: RegistrationRequest,
    card_data: ModelCardData,
    decision: Decision,
    registry: Registry,
    run_id: str,
) -> int:
    """Register a new version with card, description and tags."""
    context, run = request.context, request.run
    with tempfile.TemporaryDirectory() as temporary:
        to = Path(temporary) / "pipeline"  # file name of the card in the model
        save_pipeline(load_trained(run, context).pipeline(), pipeline_spec(run.config), to)
        candidate = ModelArtifact(
            folder=to,
            run_id=run_id,
            search=context.name,
            scores=request.scores,
            fingerprint=context.record.fingerprint,
            example=_input_example(context),
            descriptor_dim=run.config.descriptor.descriptor_dim,
            split=request.terms[SPLIT_TAG],
            input_kind=request.terms[INPUT_KIND_TAG],
            card=render_card(card_data),
            tags=version_tags(request),
        )
        return registry.register(candidate, description=version_description(card_data, decision))


def _input_example(context: SearchContext) -> np.ndarray:
    """Input example: four noisy reference patches of the test part."""
    test = context.store.part(context.split, "test")
    return test.gather(np.arange(0, 64, 16), noisy=True)
