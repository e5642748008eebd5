"""A judged network meets the champion: real MLflow, real networks, untrained."""

import shutil
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hpsearch.config import Compression, L2Net, RandomTriplets, TrialConfig
from hpsearch.console.promotion_output import print_plan
from hpsearch.data.patch_store import PatchStore
from hpsearch.errors import UserError
from hpsearch.evaluation import Scores
from hpsearch.evaluation.scores import MatchingScores
from hpsearch.models import Pipeline, build_descriptor, describe, onnx_export
from hpsearch.models.onnx_export import ONNX_FILE
from hpsearch.models.serialization import load_pipeline
from hpsearch.promotion import registration
from hpsearch.promotion.final_evaluation import load_trained
from hpsearch.promotion.promotion_search import prepare
from hpsearch.promotion.registration import (
    ALREADY_REGISTERED,
    RegistrationRequest,
    register_model,
)
from hpsearch.promotion.score_cache import ScoreCache, model_fingerprint
from hpsearch.search.search_context import SearchContext
from hpsearch.search.workspace import SearchRecord, Workspace
from hpsearch.tracking.mlflow_tags import default_uri
from hpsearch.tracking.model_artifact import download_model
from hpsearch.tracking.model_card import CardTable
from hpsearch.tracking.model_registry import Registry, configure_mlflow_logging
from hpsearch.training.trial import build_trial

pytestmark = pytest.mark.filterwarnings(
    "ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::ResourceWarning",
    "ignore::UserWarning",
)  # fmt: skip

SPACE = Path(__file__).parents[1] / "end_to_end" / "space.py"
COMPRESSED = 24
LINES = CardTable(("trial", "seed 1", "mean"), [("000", "0.5", "0.5")])


def config(seed: int) -> TrialConfig:
    return TrialConfig(
        descriptor=L2Net(width=0.125),
        compression=Compression(descriptor_dim=COMPRESSED, patches=200),
        sampler=RandomTriplets(batch=20),
        patches=1_920,
        seed=seed,
    )


def search(home: Path, store: PatchStore, name: str, *, seed: int) -> SearchContext:
    """A search with one trial that says it completed; its network is as it was drawn."""
    workspace = Workspace(home)
    record = SearchRecord(
        space=str(SPACE),
        store=str(store.path),
        fingerprint=store.fingerprint,
        split="auto",
        tracking_uri=default_uri(home),
        trials=1,
    )
    context = workspace.create(name, SPACE, record)
    facts = {"name": "tiny", "fingerprint": store.fingerprint, "path": "p", "profile": "{}"}
    context.event_log.append("search", params={}, dataset=facts, direction="maximize", tags={})
    settings = config(seed).model_dump(mode="json")
    context.event_log.append("start", trial="000", number=0, config=settings)
    context.event_log.append(
        "report", trial="000", seen=1_920, objective=0.5, metrics={"val/mAP": 0.5}
    )
    context.event_log.append("trial_finished", trial="000", status="completed", reason="")
    build_trial(config(seed), context.environment).save(context.paths.trials_dir / "000")
    return context


def entry(context: SearchContext) -> RegistrationRequest:
    run = context.runs[0]
    scores = ScoreCache.for_search(context).scores(
        load_trained(run, context).pipeline(), noisy=True, name="it"
    )
    return RegistrationRequest(
        context=context, run=run, scores=scores, chosen_by="By hand.", trainings_table=LINES
    )


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("registering")


@pytest.fixture(scope="module")
def first(home: Path, tiny: PatchStore) -> RegistrationRequest:
    return entry(search(home, tiny, "first", seed=1))


@pytest.fixture(scope="module")
def second(home: Path, tiny: PatchStore) -> RegistrationRequest:
    return entry(search(home, tiny, "second", seed=2))


@pytest.fixture(scope="module")
def registry(first: RegistrationRequest) -> Registry:
    """With ``first`` as champion."""
    configure_mlflow_logging()
    outcome = register_model(first)
    assert (outcome.version, outcome.alias) == (1, "champion")
    assert outcome.decision.reason == "there was no champion"
    return first.context.registry()


def champion(registry: Registry) -> int:
    found = registry.champion()
    assert found is not None
    return int(found.version)


def test_a_network_is_scored_once(first: RegistrationRequest, home: Path) -> None:
    (page,) = (home / "judged").glob("*.json")
    before = page.stat().st_mtime_ns
    pipeline, book = (
        load_trained(first.run, first.context).pipeline(),
        ScoreCache.for_search(first.context),
    )
    assert book.is_cached(pipeline, noisy=True)
    assert not book.is_cached(pipeline, noisy=False)
    assert book.scores(pipeline, noisy=True, name="again").mean == first.scores.mean
    assert "test" not in vars(book), "the test patches have not been read"
    assert page.stat().st_mtime_ns == before


def test_other_weights_are_another_network(
    first: RegistrationRequest, second: RegistrationRequest
) -> None:
    one, other = (load_trained(e.run, e.context).pipeline() for e in (first, second))
    assert model_fingerprint(one) == model_fingerprint(
        load_trained(first.run, first.context).pipeline()
    )
    assert model_fingerprint(one) != model_fingerprint(other)


def test_a_version_says_why_with_both_tables_and_links(
    first: RegistrationRequest, registry: Registry
) -> None:
    version = registry.version_of("first")
    assert version is not None
    for words in (
        "**Champion**: there was no champion",
        "| mAP on test, 95 % interval | verification |",
        "| trial | seed 1 | mean |",
        "By hand.",
        "license",
        "[trial 000](#/experiments/",
    ):
        assert words in (version.description or "")
    assert version.tags["patches.given"] == "noisy"
    assert version.tags["seed"] == "1"
    run = registry.tracking.client().get_run(str(version.run_id))
    ended = first.context.runs[0].ended
    assert (run.info.status, run.info.end_time) == ("FINISHED", round(1000 * (ended or 0)))


def test_a_version_has_its_onnx_which_onnxruntime_alone_computes(
    first: RegistrationRequest, registry: Registry, tmp_path: Path
) -> None:
    onnxruntime = pytest.importorskip("onnxruntime", reason="the extra [onnx] is not installed")
    version = registry.version_of("first")
    assert version is not None
    address = f"models:/{registry.model}/{version.version}"
    with download_model(address, registry.tracking.uri) as found:
        session = onnxruntime.InferenceSession(
            str(found / ONNX_FILE), providers=["CPUExecutionProvider"]
        )
        card = (found / "README.md").read_text("utf-8")
        loaded = load_pipeline(found)
    patches = first.context.data.test_patches().gather(np.arange(70), noisy=True)
    (given,) = session.run(None, {"patches": patches.astype(np.float32)})
    np.testing.assert_allclose(given, describe(loaded, patches), atol=1e-4)
    assert given.shape == (70, COMPRESSED)
    assert f"-> (N, {COMPRESSED}) float32" in card
    assert f"`{ONNX_FILE}` gives the same descriptors with onnxruntime alone" in card


def test_a_version_without_onnx_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pipeline = Pipeline(denoiser=None, descriptor=build_descriptor(L2Net(width=0.1), seed=0))
    monkeypatch.setattr(onnx_export, "REQUIRED_PACKAGES", ("no_such_package",))
    said = onnx_export.add_onnx(pipeline, tmp_path, metadata={})
    assert said.startswith("It has no ONNX file, because no_such_package was not installed")
    monkeypatch.undo()
    monkeypatch.setattr(onnx_export, "max_difference", lambda *_: 1e-3)
    said = onnx_export.add_onnx(pipeline, tmp_path, metadata={})
    assert "It has no ONNX file: the exported network differs from the pipeline by 1.0e-03" in said
    assert not list(tmp_path.iterdir())


def test_the_second_meets_the_champion_and_force_is_written_down(
    second: RegistrationRequest, registry: Registry, tmp_path: Path
) -> None:
    outcome = register_model(second)
    assert outcome.alias == "challenger"
    assert "97.5 % interval" in outcome.decision.reason
    assert "over 2 test sequences (look 1 at this champion)" in outcome.decision.reason
    assert outcome.look == 1
    assert register_model(second).look == 1, "the same network again"
    assert set(outcome.comparisons) == {"verification", "matching", "retrieval", "mAP"}
    assert register_model(second, force=True).alias == "champion"
    version = registry.version_of("second")
    assert version is not None, "registered once, by the first call"
    assert int(version.version) == champion(registry) == 2
    assert version.tags["forced"] == "True"
    assert version.tags["champion_before"] == "1"
    assert "champion, version 1" in (version.description or "")
    client = registry.tracking.client()
    card = client.download_artifacts(str(version.run_id), "model_card.md", str(tmp_path))
    assert "This was look 1 at champion version 1 on this test set" in Path(card).read_text()
    assert register_model(second).decision.reason == "it is already the champion"

    assert registry.rollback() == (1, 2)
    assert champion(registry) == 1
    with pytest.raises(UserError, match="version 1") as caught:
        registry.rollback()
    assert caught.value.code == "no-earlier-champion"
    assert registry.rollback(2) == (2, 1)
    assert registry.rollback() == (1, 2)
    with pytest.raises(UserError, match=r"\b9\b.*\b1, 2$") as caught:
        registry.rollback(9)
    assert caught.value.code == "no-such-version"
    nobody = replace(registry, model="nobody")
    with pytest.raises(UserError, match=r"'nobody'.*patch-descriptor") as caught:
        nobody.rollback()
    assert caught.value.code == "no-such-model"


def test_a_champion_of_other_patches_is_met_on_request(
    first: RegistrationRequest,
    second: RegistrationRequest,
    registry: Registry,
    capsys: pytest.CaptureFixture[str],
) -> None:
    client = registry.tracking.client()
    plan = prepare(second.context, top=1, seeds=1)
    print_plan(plan, dry_run=True)
    assert "networks compared with it on these" in capsys.readouterr().out
    client.set_model_version_tag(registry.model, "1", "patches.fingerprint", "other")
    print_plan(plan, dry_run=True)
    assert "it was evaluated on other patches, so nothing is compared" in capsys.readouterr().out
    print_plan(plan, dry_run=True, reevaluate=True)
    assert "networks compared with it on these" in capsys.readouterr().out
    messages = register_model(second)
    assert messages.decision.reason == "the champion was evaluated on other patches"
    assert messages.champion is not None
    assert messages.champion.scores is None
    met = register_model(second, reevaluate=True)
    assert met.champion is not None
    assert met.champion.scores is not None
    assert met.champion.scores.mean == pytest.approx(first.scores.mean, abs=1e-5)
    assert "against the champion" in met.decision.reason
    client.set_model_version_tag(
        registry.model, "1", "patches.fingerprint", first.context.record.fingerprint
    )


def test_a_run_that_was_deleted_is_made_again(home: Path, tiny: PatchStore) -> None:
    # the champion's own weights under another name: no difference, so no alias moves
    third = entry(search(home, tiny, "third", seed=1))
    mlflow_sync = third.context.mlflow_sync()
    mlflow_sync.sync()
    before = mlflow_sync.run_id("000")
    third.context.tracking().client().delete_run(before)
    register_model(third)
    version = third.context.registry().version_of("third")
    assert version is not None
    assert version.run_id != before


def test_scores_that_are_gone_with_their_run_are_one_sentence(
    first: RegistrationRequest, second: RegistrationRequest, registry: Registry
) -> None:
    version = registry.version_of("first")
    assert version is not None
    run = registry.tracking.client().get_run(str(version.run_id))
    scores = Path(str(run.info.artifact_uri).removeprefix("file://")) / "test_scores.json"
    kept = scores.read_text()
    scores.unlink()
    with pytest.raises(UserError, match=r"version 1 .*--reevaluate") as caught:
        register_model(second)
    assert caught.value.code == "no-test-scores"
    met = register_model(second, reevaluate=True)
    assert met.champion is not None
    assert met.champion.scores is not None
    scores.write_text(kept)


def test_a_registry_that_cannot_be_written_gets_nothing(
    second: RegistrationRequest, registry: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A read-only database, as one gets from a colleague."""
    monkeypatch.chdir(tmp_path)  # MLflow takes such an address for a path and makes folders of it
    shutil.copy(registry.tracking.uri.removeprefix("sqlite:///"), tmp_path / "mlflow.db")
    locked = f"sqlite:///file:{tmp_path / 'mlflow.db'}?mode=ro&uri=true"
    record = second.context.record.model_copy(update={"tracking_uri": locked, "model": "other"})
    with pytest.raises(UserError, match="attempt to write a readonly database") as caught:
        register_model(replace(second, context=replace(second.context, record=record)))
    assert caught.value.code == "mlflow-access-denied"


def test_a_version_below_a_baseline_gets_no_alias(
    home: Path, tiny: PatchStore, registry: Registry
) -> None:
    """Not even where there is no champion; the printed address names the version then."""
    weak = entry(search(home, tiny, "weak", seed=3))
    context = weak.context.changed(model="weak-model")
    above = replace(weak, context=context, baselines={"RootSIFT": better_than(weak.scores)})
    outcome = register_model(above)
    assert outcome.alias is None
    assert "is not above that of RootSIFT" in outcome.decision.reason
    assert outcome.address == "models:/weak-model/1"
    own = context.registry()
    assert own.champion() is None
    assert own.with_alias("challenger") is None
    version = own.version_of("weak")
    assert version is not None
    assert version.tags["decision"] == "none"
    assert "**No alias**" in (version.description or "")


def better_than(scores: Scores) -> Scores:
    """Scores of a descriptor that matches perfectly, on the same patches."""
    ones = np.ones_like(scores.matched.ap)
    return replace(scores, matched=MatchingScores(ap=ones, success_rate=ones))


def test_a_challenger_is_not_displaced_by_a_worse_one(home: Path, tiny: PatchStore) -> None:
    requests = {}
    for name, seed in (("top", 11), ("good", 12), ("poor", 13)):
        found = entry(search(home, tiny, name, seed=seed))
        requests[name] = replace(found, context=found.context.changed(model="rivals"))
    order = sorted(requests.values(), key=lambda request: request.scores.mean, reverse=True)
    registry = order[0].context.registry()
    assert register_model(order[0]).alias == "champion"
    assert register_model(order[1]).alias == "challenger"
    last = register_model(order[2])
    assert last.alias is None
    assert "the challenger, version 2, stays" in last.decision.reason
    assert last.look == 2, "the second network compared with this champion"
    rival = registry.with_alias("challenger")
    assert rival is not None
    assert int(rival.version) == 2


def test_other_weights_under_the_same_names_are_another_version(
    home: Path, tiny: PatchStore
) -> None:
    """A search that was removed and run again, or a promotion whose folder was."""
    before = entry(search(home, tiny, "again", seed=21))
    before = replace(before, context=before.context.changed(model="renewed"))
    assert register_model(before).version == 1
    shutil.rmtree(before.context.paths.folder)
    after = entry(search(home, tiny, "again", seed=22))
    after = replace(after, context=after.context.changed(model="renewed"))
    outcome = register_model(after)
    assert outcome.version == 2
    assert outcome.decision.reason != ALREADY_REGISTERED
    assert outcome.champion is not None
    assert outcome.champion.scores is not None
    assert outcome.champion.scores.mean == pytest.approx(before.scores.mean)


def test_two_at_once_crown_one_champion_and_the_second_compares(
    home: Path, tiny: PatchStore
) -> None:
    """Both find no champion before either moves the alias, unless they wait for each other."""
    both = []
    for name, seed in (("left", 31), ("right", 32)):
        found = entry(search(home, tiny, name, seed=seed))
        assert found.network
        both.append(replace(found, context=found.context.changed(model="contended")))
    with ThreadPoolExecutor(2) as pool:
        outcomes = list(pool.map(register_model, both))
    (first,) = (one for one in outcomes if one.champion is None)
    (second,) = (one for one in outcomes if one.champion is not None)
    assert first.alias == "champion"
    assert second.alias != "champion"
    assert "against the champion" in second.decision.reason
    assert champion(both[0].context.registry()) == first.version


def test_a_champion_that_moves_meanwhile_is_compared_with(
    home: Path, tiny: PatchStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another home's process crowns one between the comparison and the move of the alias."""
    one, other = (
        entry(search(home, tiny, name, seed=s)) for name, s in (("near", 41), ("far", 42))
    )
    one, other = (replace(e, context=e.context.changed(model="shared")) for e in (one, other))
    registry = one.context.registry()
    add_version = registration._add_version

    def crown_other_first(request: RegistrationRequest, *args: Any) -> int:
        version = add_version(request, *args)
        monkeypatch.setattr(registration, "_add_version", add_version)
        rival = registration._register_once(registry, other, force=False, reevaluate=False)
        assert rival is not None
        assert rival.alias == "champion"
        return version

    monkeypatch.setattr(registration, "_add_version", crown_other_first)
    outcome = register_model(one)
    assert outcome.champion is not None
    assert "against the champion" in outcome.decision.reason
    assert champion(registry) != outcome.version
