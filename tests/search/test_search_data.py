"""Parts of a search's data that lie in several stores: train Liberty, test HPatches."""

import pickle
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from hpsearch.config import BatchHard, Clean, L2Net, PKSampler, TrialConfig
from hpsearch.data.arrow_header import PointViews, StoreMeta
from hpsearch.data.arrow_writer import SequencePatches
from hpsearch.data.patch_store import PatchStore, write_store
from hpsearch.errors import UserError
from hpsearch.promotion.score_cache import ScoreCache
from hpsearch.search.objective import FPR95, MEAN_MAP, TRAINING_SECONDS
from hpsearch.search.search_data import SearchData
from hpsearch.search.workspace import Workspace
from hpsearch.training.trial import TrialEnvironment, build_trial

from ..search_factory import plan

SPACE = """
from hpsearch.config import TrialConfig
from hpsearch.search.samplers import Random
from hpsearch.search.search import Search

SEARCH = Search(suggest=lambda trial: TrialConfig(patches=100), budget=100, report_every=10,
                trials=2, sampler=Random(), baseline=TrialConfig(patches=100))
"""


def write_scene(path: Path, name: str, source: PatchStore, *, step: int = 3) -> PatchStore:
    """Store of one scene like PhotoTour's, of every third clean patch, with pairs."""
    rows = np.ascontiguousarray(source.clean_rows[::step][: 4 * (len(source.clean_rows) // 16)])
    points = len(rows) // 4
    pairs = [(4 * p, 4 * p + 1 + p % 3) for p in range(points)]
    pairs += [(4 * p, 4 * p + 6) for p in range(points - 1)]
    views = PointViews(np.full(points, 4), np.array(pairs))
    scene = SequencePatches(name, rows[: 4 * points], rows[: 4 * points], views)
    return write_store(path, [scene], meta=StoreMeta(source="x", license="x"))


@pytest.fixture(scope="module")
def liberty(tmp_path_factory: pytest.TempPathFactory, tiny: PatchStore) -> PatchStore:
    return write_scene(tmp_path_factory.mktemp("scenes") / "liberty.arrow", "liberty", tiny)


@pytest.fixture(scope="module")
def trevi(tmp_path_factory: pytest.TempPathFactory, tiny: PatchStore) -> PatchStore:
    path = tmp_path_factory.mktemp("scenes") / "trevi.arrow"
    return write_scene(path, "trevi", tiny, step=2)


def test_one_store_serves_for_every_part(tiny: PatchStore) -> None:
    data = SearchData.divide(tiny, "auto")
    assert data.split == tiny.split()
    assert data.validation_patches().names == tiny.split().validation
    assert data.test_patches().names == tiny.split().test
    assert data.validation_on is None
    assert list(data.overlaps()) == []
    data.check((MEAN_MAP, TRAINING_SECONDS))


def test_other_stores_leave_all_sequences_for_training(
    liberty: PatchStore, tiny: PatchStore
) -> None:
    data = SearchData.divide(liberty, "auto", validation_store=tiny, test_store=tiny)
    assert (data.split.train, data.split.validation, data.split.test) == (("liberty",), (), ())
    assert set(data.validation) == set(tiny.names) - set(tiny.split().test)
    assert data.test_patches().names == tiny.split().test
    data.check((MEAN_MAP,))


def test_a_store_given_again_is_not_validated_on_what_it_trains(tiny: PatchStore) -> None:
    again = PatchStore.open(tiny.path)
    data = SearchData.divide(tiny, "auto", validation_store=again, test_store=again)
    assert data == SearchData.divide(tiny, "auto")


def test_the_own_test_part_of_training_data_stays_out(
    liberty: PatchStore, tiny: PatchStore
) -> None:
    data = SearchData.divide(tiny, "auto", validation_store=liberty, test_store=tiny)
    assert not set(data.split.train) & set(tiny.split().test)
    assert data.validation == ("liberty",)


def test_a_split_by_name_is_that_of_the_store_that_is_tested_on(tmp_path: Path) -> None:
    pixels = np.zeros((2, 16, 32, 32), np.uint8)
    names = ("i_ajuntament", "i_castle", "i_nuts", "v_wall")
    hpatches = write_store(
        tmp_path / "h", (SequencePatches(n, pixels, pixels) for n in names),
        meta=StoreMeta(source="x", license="x"),
    )  # fmt: skip
    own = write_store(
        tmp_path / "o", (SequencePatches(n, pixels, pixels) for n in "abc"),
        meta=StoreMeta(source="x", license="x"),
    )  # fmt: skip
    tests = {
        split: SearchData.divide(own, split, test_store=hpatches).test_patches().names
        for split in ("a", "b", "full")
    }
    assert tests == {"a": ("i_ajuntament",), "b": ("i_castle",), "full": names}
    assert len(SearchData.divide(own, "a", test_store=hpatches).split.train) == 2


def test_what_cannot_be_measured_is_told_with_its_option(
    liberty: PatchStore, tiny: PatchStore
) -> None:
    wrong = [
        (SearchData.divide(tiny, "auto"), FPR95, "--validation-data"),
        (SearchData.divide(tiny, "auto", validation_store=liberty), MEAN_MAP, "--validation-data"),
        (SearchData.divide(tiny, "auto", test_store=liberty), MEAN_MAP, "--test-data"),
    ]
    for data, objective, option in wrong:
        with pytest.raises(UserError, match=option):
            data.check((objective,))
    with pytest.raises(UserError, match=r"no validation part .*--validation-data"):
        SearchData.divide(liberty, "auto", test_store=tiny).validation_patches()
    with pytest.raises(UserError, match=r"no test part .*--test-data"):
        SearchData.divide(liberty, "auto").test_patches()
    everything = replace(tiny, meta=tiny.meta.model_copy(update={"test": tiny.names}))
    with pytest.raises(UserError, match="none is left to validate on"):
        SearchData.divide(liberty, "auto", validation_store=everything)


def test_leakage_between_stores_is_told(liberty: PatchStore, tiny: PatchStore) -> None:
    data = SearchData.divide(liberty, "auto", validation_store=tiny, test_store=tiny)
    told = list(data.overlaps())
    assert len(told) == 2, "scene and tiny set are made of the same patches"
    assert all("training part of liberty.arrow" in sentence for sentence in told)
    first = {p.tobytes() for p in liberty.clean_rows[liberty.first_rows[:-1]]}
    tested = data.test_patches()
    shared = sum(tiny.clean_rows[row].tobytes() in first for row in tiny.first_rows[tested.points])
    assert told[1].startswith(f"{shared} test points")


def test_sequences_of_one_name_are_told(
    liberty: PatchStore, tiny: PatchStore, tmp_path: Path
) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (9, 32, 32), np.uint8)
    views = PointViews(np.full(3, 3), np.array([[0, 1], [0, 3]]))
    other = write_store(
        tmp_path / "o", [SequencePatches("liberty", pixels, pixels, views)], meta=liberty.meta
    )
    data = SearchData.divide(liberty, "auto", validation_store=other, test_store=tiny)
    told = next(data.overlaps())
    assert told.startswith("validation sequences with names of training sequences: liberty;")


def test_a_search_opens_its_stores_again_and_refuses_changed_ones(
    liberty: PatchStore, trevi: PatchStore, tiny: PatchStore, tmp_path: Path
) -> None:
    created = plan(
        tmp_path / "home", liberty, SPACE, trials=1, validation_store=str(trevi.path),
        validation_fingerprint=trevi.fingerprint, test_store=str(tiny.path),
        test_fingerprint=tiny.fingerprint,
    )  # fmt: skip
    context = Workspace(created.home).open("far")
    assert context.split.train == ("liberty",)
    assert context.environment.validation_patches().names == ("trevi",)
    cache = ScoreCache.for_search(context)
    assert (cache.store.fingerprint, cache.split.test) == (tiny.fingerprint, tiny.split().test)
    changed = context.changed(test_fingerprint="0" * 64)
    with pytest.raises(UserError, match=r"has changed since search 'far' began"):
        _ = changed.data


def clean(patches: int) -> TrialConfig:
    return TrialConfig(
        input=Clean(), evaluate_on="clean", descriptor=L2Net(width=0.125), loss=BatchHard(),
        sampler=PKSampler(groups=8, views=2), patches=patches,
    )  # fmt: skip


def test_a_trial_on_liberty_reports_its_rate_on_another_scene(
    liberty: PatchStore, trevi: PatchStore, job: TrialEnvironment
) -> None:
    data = SearchData.divide(liberty, "auto", validation_store=trevi)
    env = replace(
        job, store=liberty, split=data.split, validation_on=data.validation_on, report_every=32
    )
    reports = list(build_trial(clean(64), pickle.loads(pickle.dumps(env))).reports())
    assert [report.status for report in reports] == ["running", "completed"]
    rates = [report.metrics["val/fpr95"] for report in reports]
    assert all(0 <= rate <= 1 for rate in rates)
    assert "val/mAP" not in reports[-1].metrics
    assert FPR95.value(reports[-1].metrics, collapsed=False) == rates[-1]
    assert FPR95.value(reports[-1].metrics, collapsed=True) == 1.0


def test_a_trial_on_liberty_reports_map_on_hpatches(
    liberty: PatchStore, tiny: PatchStore, job: TrialEnvironment
) -> None:
    data = SearchData.divide(liberty, "auto", validation_store=tiny)
    env = replace(job, store=liberty, split=data.split, validation_on=data.validation_on)
    last = list(build_trial(clean(32), env).reports())[-1]
    assert {"val/mAP", "val/matching/hard"} <= last.metrics.keys()
