"""Registration of a model: the request, the decision, the model card."""

import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

import numpy as np

from hpsearch.errors import UserError
from hpsearch.evaluation import Scores
from hpsearch.evaluation.bootstrap import Comparison
from hpsearch.models.ensemble import output_dim
from hpsearch.models.onnx_export import add_onnx
from hpsearch.models.serialization import save_pipeline
from hpsearch.promotion.champion_comparison import (
    NETWORK_DIGITS,
    Assessment,
    Candidate,
    ChampionInfo,
    assess,
    gate_failure,
    registry_lock,
)
from hpsearch.promotion.final_evaluation import (
    BASELINE_NAME,
    CLASSICAL_BASELINES,
    load_scores,
    load_trained,
    pipeline_spec,
)
from hpsearch.promotion.promotion_search import test_terms
from hpsearch.promotion.score_cache import ScoreCache, model_fingerprint
from hpsearch.search.search_context import SearchContext
from hpsearch.search.search_data import SearchData
from hpsearch.tracking.decision import CHAMPION, Alias, Decision, decide, describe_look
from hpsearch.tracking.mlflow_errors import TrackingError, is_not_found, translate_mlflow_errors
from hpsearch.tracking.mlflow_links import run_links
from hpsearch.tracking.mlflow_sync import MlflowSync
from hpsearch.tracking.mlflow_tags import INPUT_KIND_TAG, SPLIT_TAG
from hpsearch.tracking.model_artifact import ModelArtifact, load_descriptor
from hpsearch.tracking.model_card import CardTable, ModelCardData, render_card, version_description
from hpsearch.tracking.model_registry import NETWORK_TAG, Registry
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

    @cached_property
    def network(self) -> str:
        """Fingerprint of the network's weights."""
        pipeline = load_trained(self.run, self.context).pipeline()
        return model_fingerprint(pipeline)[:NETWORK_DIGITS]

    def evaluate_registered(self, address: str) -> Scores:
        """Test scores of a registered model on the same patches, from the cache or by evaluation.

        Args:
            address: address such as ``models:/NAME/3``.
        """
        pipeline = load_descriptor(address, self.context.tracking().uri).pipeline
        noisy = self.run.config.evaluate_on == "noisy"
        return ScoreCache.for_search(self.context).scores(pipeline, noisy=noisy, name=address)

    @property
    def terms(self) -> dict[str, str]:
        """Tags that identify the test patches."""
        return test_terms(self.context.data, self.run.config)


def build_card_data(
    request: RegistrationRequest, found: Assessment, mlflow_sync: MlflowSync
) -> ModelCardData:
    """Collect the data of a version's card and description.

    Args:
        request: the network.
        found: the network compared with the present champion.
        mlflow_sync: synchronization of the request's search, with everything sent.
    """
    context, store, champion = request.context, request.context.store, found.champion
    scores = {f"{context.name}/{request.run.label}": request.scores}
    if champion is not None and champion.scores is not None:
        scores[f"champion, version {champion.version}"] = champion.scores
    return ModelCardData(
        model=context.record.model,
        search=context.name if request.promoted_from is None else request.promoted_from.name,
        config=request.run.config,
        patches=store.meta,
        fingerprint=store.fingerprint,
        split=_split_parts(context.data),
        scores={**scores, **request.baselines},
        chosen_by=request.chosen_by,
        trainings_table=request.trainings_table,
        links=_run_links(request, mlflow_sync),
        looks=describe_look(found.look, champion.version) if champion and found.look else "",
    )


def _split_parts(data: SearchData) -> dict[str, tuple[str, ...]]:
    return {
        "train": data.split.train,
        "validation": data.validation,
        "test": data.test_split.test,
    }


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
    tags[NETWORK_TAG] = request.network
    return (
        tags
        if request.promoted_from is None
        else {**tags, "promoted_from": request.promoted_from.name}
    )


ALREADY_REGISTERED = "it is already the champion"


@dataclass(frozen=True)
class RegistrationOutcome:
    """Outcome of a registration: version, decision, comparisons."""

    model: str
    version: int
    decision: Decision
    champion: ChampionInfo | None = None
    comparisons: Mapping[str, Comparison] = field(default_factory=dict)
    """Comparisons with the champion by headline score; empty without comparable scores."""
    look: int | None = None
    """Number of the look at the champion on this test set; None if it is none."""

    @property
    def alias(self) -> Alias | None:
        """Alias of the version; None if it has none."""
        return self.decision.alias

    @property
    def address(self) -> str:
        """Address of the model for other commands: by alias, or by version if it has none."""
        name = f"models:/{self.model}"
        return f"{name}@{self.alias}" if self.alias else f"{name}/{self.version}"


def register_winner(context: SearchContext, winner: Run) -> RegistrationOutcome:
    """Register the best trial of a search, unless it is registered.

    As a maximum over noisy scores it is biased, so it becomes champion only if there is none, and
    only if it is better than all baselines.

    Raises:
        UserError: if it has not been evaluated on test.
    """
    scores = load_scores(context)
    if winner.label not in scores:
        raise UserError(
            f"{context.name!r} has not finished; resume it with `{context.command('resume')}`",
            code="search-not-finished",
        )
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
    registry = context.registry()
    known = registry.decision_on(context.name, winner.label, network=request.network)
    if known is not None:
        return RegistrationOutcome(registry.model, *known)
    return register_model(request)


def register_model(
    request: RegistrationRequest, *, force: bool = False, reevaluate: bool = False
) -> RegistrationOutcome:
    """Compare a network with the champion, register it as a version, and move the alias.

    Other processes of the same home wait until the alias has moved. If one of another home moved it
    in the meantime, the network is compared with the new champion.

    Args:
        request: the network with its scores.
        force: make it champion whatever the comparison shows.
        reevaluate: evaluate champion and challenger on this search's test patches instead of using
            their scores from their registration.

    Raises:
        UserError: if the registry refuses or does not answer; the same call then resumes.
    """
    registry = request.context.registry()
    with registry_lock(request.context.home):
        while True:
            outcome = _register_once(registry, request, force=force, reevaluate=reevaluate)
            if outcome is not None:
                return outcome


def _register_once(
    registry: Registry, request: RegistrationRequest, *, force: bool, reevaluate: bool
) -> RegistrationOutcome | None:
    """Register a network; None if the champion changed between the comparison and the move."""
    context, network = request.context, request.network
    known = registry.version_of(context.name, request.run.label, network=network)
    own = None if known is None else int(known.version)
    if own is not None and registry.champion_is(own):
        champion = ChampionInfo(own, context.name, request.scores)
        decision = Decision(CHAMPION, ALREADY_REGISTERED)
        return RegistrationOutcome(registry.model, own, decision, champion)
    found = assess(
        registry,
        Candidate(
            scores=request.scores,
            baselines=request.baselines,
            terms=request.terms,
            network=network,
            retrained=request.trainings_table is not None,
            own_version=own,
        ),
        reevaluate=request.evaluate_registered if reevaluate else None,
    )
    champion = found.champion
    gates = context.search.promotion_gates
    failure = gate_failure(gates, request.run.last, request.scores, champion)
    decision = decide(replace(found.evidence, gate_failure=failure), force=force)
    with translate_mlflow_errors(registry.tracking.uri):
        mlflow_sync = sync_runs(context, request.run)
        facts = build_card_data(request, found, mlflow_sync)
        if own is None:
            run_id = mlflow_sync.run_id(request.run.id)
            own = _add_version(request, facts, decision, registry, run_id)
    if not registry.champion_is(None if champion is None else champion.version):
        return None
    registry.apply(own, decision, description=version_description(facts, decision))
    return RegistrationOutcome(
        registry.model, own, decision, champion, found.comparisons, found.look
    )


def baseline_scores(context: SearchContext) -> dict[str, Scores]:
    """Test scores of a finished search's baselines, by display name."""
    names = {BASELINE_NAME: "baseline triplet", **{name: name for name in CLASSICAL_BASELINES}}
    return {names[name]: found for name, found in load_scores(context).items() if name in names}


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
        pipeline = load_trained(run, context).pipeline()
        save_pipeline(pipeline, pipeline_spec(run.config), to)
        dim = output_dim(pipeline.cpu())
        onnx = add_onnx(pipeline, to, metadata={"hpsearch.model": card_data.model})
        candidate = ModelArtifact(
            folder=to,
            run_id=run_id,
            search=context.name,
            scores=request.scores,
            fingerprint=context.data.test_store.fingerprint,
            example=_input_example(context),
            descriptor_dim=dim,
            split=request.terms[SPLIT_TAG],
            input_kind=request.terms[INPUT_KIND_TAG],
            card=render_card(replace(card_data, onnx=onnx, descriptor_dim=dim)),
            tags=version_tags(request),
        )
        return registry.register(candidate, description=version_description(card_data, decision))


def _input_example(context: SearchContext) -> np.ndarray:
    """Input example: four noisy reference patches of the test part."""
    return context.data.test_patches().gather(np.arange(0, 64, 16), noisy=True)
