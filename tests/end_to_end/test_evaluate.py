"""``hpsearch evaluate`` on a pipeline, a run, descriptor files and official lists."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from hpsearch.config import L2Net, ShallowUNet
from hpsearch.data.patch_store import PatchStore
from hpsearch.evaluation import OFFICIAL_SIZES, Scores, sample_tasks, write_tasks
from hpsearch.evaluation.descriptor_io import write_descriptors
from hpsearch.models import Pipeline, build_denoiser, build_descriptor, describe
from hpsearch.models.serialization import PipelineSpec, save_pipeline
from hpsearch.promotion.final_evaluation import train_baseline
from hpsearch.search.workspace import SearchRecord, Workspace

from .conftest import SPACE, Home

pytestmark = pytest.mark.slow

RECIPE = PipelineSpec(denoiser=ShallowUNet(width=0.25), descriptor=L2Net(width=0.125))


@pytest.fixture(scope="module")
def pipeline() -> Pipeline:
    """Untrained, with a denoiser: what it scores does not matter here."""
    assert RECIPE.denoiser is not None
    return Pipeline(
        denoiser=build_denoiser(RECIPE.denoiser, seed=1),
        descriptor=build_descriptor(RECIPE.descriptor, seed=2),
    )


@pytest.fixture(scope="module")
def model(pipeline: Pipeline, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models") / "denoising"
    save_pipeline(pipeline, RECIPE, folder)
    return folder


@pytest.fixture(scope="module")
def descriptors(
    pipeline: Pipeline, tiny: PatchStore, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """The pipeline's descriptors of every sequence's noisy patches, as official files."""
    folder = tmp_path_factory.mktemp("descriptors")
    found = {}
    for name, start, count in zip(tiny.names, tiny.starts, tiny.counts, strict=True):
        noisy = tiny.noisy[start : start + count]
        found[name] = describe(pipeline, noisy.reshape(-1, 32, 32)).reshape(count, 16, -1)
    write_descriptors(folder, found)
    return folder


@pytest.fixture(scope="module")
def lists(tiny: PatchStore, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Lists of the test part in the official format."""
    folder, split = tmp_path_factory.mktemp("lists"), tiny.split()
    test = tiny.part(split, "test")
    sizes = OFFICIAL_SIZES.clamped(len(test))
    tasks = sample_tasks(test.names, test.counts, sizes=sizes, seed=5)
    keep = slice(0, 500)
    write_tasks(
        type(tasks)(
            names=tasks.names, positives=tasks.positives[keep], inter=tasks.inter[keep],
            intra=tasks.intra[keep], queries=tasks.queries, distractors=tasks.distractors,
        ),
        folder, split.name,
    )  # fmt: skip
    return folder


@pytest.fixture(scope="module")
def run(home: Home) -> str:
    """A finished run of a search, trained without Ray."""
    workspace = Workspace(home.path)
    store = PatchStore.open(home.store)
    record = SearchRecord(
        space="space.py", store=str(home.store), fingerprint=store.fingerprint, split="auto",
        tracking_uri=workspace.tracking().uri, trials=1,
    )  # fmt: skip
    train_baseline(workspace.create("examined", SPACE, record))
    return "examined/baseline"


def printed(home: Home, *words: object) -> str:
    done = home.run_here("evaluate", *words)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def rows(out: Path) -> dict[str, Scores]:
    found = json.loads((out / "scores.json").read_text())["scores"]
    return {name: Scores.from_dict(values) for name, values in found.items()}


def test_inputs_side_by_side_against_a_run_with_everything_kept(
    home: Home, model: Path, run: str, pipeline: Pipeline, tiny: PatchStore, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    output = printed(
        home, model, "--compare-with", run, "--input", "both", "--data", home.store, "--output", out
    )
    found = rows(out)
    ways = ["denoised", "noisy", "clean, denoised", "clean"]
    assert list(found) == [f"{model}, {way}" for way in ways] + [f"{run}, noisy", f"{run}, clean"]
    assert len({scores.mean for scores in found.values()}) == 6
    assert "retrieval, over pools" in output
    kept = json.loads((out / "scores.json").read_text())["comparisons"]
    for given, way in (("noisy", "denoised"), ("clean", "clean, denoised")):
        difference = kept[f"{model} less {run}, {given} patches"]["mAP"]["difference"]
        ours, theirs = found[f"{model}, {way}"], found[f"{run}, {given}"]
        assert difference == pytest.approx(ours.mean - theirs.mean)
        assert f"{difference:+.4f}" in output
    for name in ("precision_recall", "matching_by_sequence", "sequences"):
        assert (out / f"{name}.png").stat().st_size > 10_000
        assert f'<figure id="{name}">' in (out / "index.html").read_text()


def test_files_score_as_the_model_that_wrote_them_on_official_lists_too(
    home: Home, model: Path, descriptors: Path, lists: Path, tmp_path: Path
) -> None:
    """With patches or without, the same descriptors and lists give the same numbers."""
    for name, words in {
        "model": (model, "--data", home.store, "--tasks", lists),
        "files on the store": (descriptors, "--data", home.store, "--tasks", lists),
    }.items():
        printed(home, *words, "--output", tmp_path / name)
    alone = tmp_path / "descriptors"
    for name in next(iter(rows(tmp_path / "model").values())).names:
        shutil.copytree(descriptors / name, alone / name)
    printed(home, alone, "--tasks", lists, "--output", tmp_path / "files alone")
    by_model = rows(tmp_path / "model")["denoised"]
    for name in ("files on the store", "files alone"):
        (by_files,) = rows(tmp_path / name).values()
        assert by_files.names == by_model.names
        for key, value in by_model.flat().items():
            assert by_files.flat()[key] == pytest.approx(value, abs=2e-3), (name, key)
    assert len(by_model.retrieved.sequence) == len(
        (lists / next(lists.glob("retr_queries*")).name).read_text().splitlines()[1:]
    )


def test_baselines_need_no_model(home: Home, tmp_path: Path) -> None:
    output = printed(home, "--baselines", "--data", home.store, "--json", tmp_path / "first.json")
    for name in ("pixels 16×16, noisy", "SIFT, noisy", "RootSIFT, noisy"):
        assert output.count(f"\n{name}") + output.startswith(name) == 5, "one row in each table"
    first = Scores.from_dict(json.loads((tmp_path / "first.json").read_text()))
    assert f"{first.mean:.4f}" in output


def spoil(path: Path, line: int, words: str) -> None:
    lines = path.read_text().splitlines()
    lines[line - 1] = words
    path.write_text("\n".join(lines) + "\n")


def with_nan(folder: Path, _: Path) -> None:
    values = (folder / "h2.csv").read_text().splitlines()[3].split(",")
    spoil(folder / "h2.csv", 4, ",".join(["nan", *values[1:]]))


def with_another_dimension(folder: Path, _: Path) -> None:
    for path in folder.glob("*.csv"):
        np.savetxt(path, np.loadtxt(path, delimiter=",")[:, :-1], delimiter=",")


def with_a_short_row(folder: Path, _: Path) -> None:
    spoil(folder / "t5.csv", 7, "1,2,3")


def without_a_view(folder: Path, _: Path) -> None:
    (folder / "e4.csv").unlink()


def with_another_separator(folder: Path, _: Path) -> None:
    (folder / "ref.csv").write_text((folder / "ref.csv").read_text().replace(",", "\t"))


def with_a_point_outside(_: Path, lists: Path) -> None:
    path = next(lists.glob("retr_distractors*"))
    name = path.read_text().splitlines()[2].split(",")[0]
    spoil(path, 3, f"{name},99999")


def with_an_unknown_sequence(_: Path, lists: Path) -> None:
    spoil(next(lists.glob("verif_neg_intra*")), 9, "i_moon,0,1,i_moon,2,3")


@pytest.mark.parametrize(
    ("spoiled", "message"),
    [
        (with_nan, "h2.csv, row 4: NaN"),
        (with_another_dimension, "dimension 127, but 128 in"),
        (with_a_short_row, "t5.csv is not a table of numbers: CSV parse error: Row #7"),
        (without_a_view, "e4.csv is missing"),
        (with_another_separator, "ref.csv, row 1: values must be separated by , or ;"),
        (with_a_point_outside, ", line 3: idx is 99999, but must be 0.."),
        (with_an_unknown_sequence, "s1, line 9: 'i_moon' is not one of the sequences"),
    ],
)
def test_bad_files_are_named_with_their_row(
    home: Home, descriptors: Path, lists: Path, tmp_path: Path, spoiled, message: str
) -> None:
    test = PatchStore.open(home.store).split().test
    for name in test:
        shutil.copytree(descriptors / name, tmp_path / "descriptors" / name)
    shutil.copytree(lists, tmp_path / "lists")
    spoiled(tmp_path / "descriptors" / test[-1], tmp_path / "lists")
    output = refused(home, tmp_path / "descriptors", "--tasks", tmp_path / "lists")
    assert message in output


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ((), "there is nothing to score; give a MODEL, or --baselines"),
        (("nowhere",), "'nowhere' is not a model; give hpsearch-base, models:/NAME@ALIAS"),
        (("examined/77",), "search 'examined' has no trial '77'; it has baseline"),
        (("models:/nobody@champion",), "models:/nobody@champion"),
        (("hpsearch-base", "--tasks", "no/lists"), "there is no folder of task files at no/lists"),
    ],
)
def test_what_is_no_model_is_reported(
    home: Home, run: str, words: tuple[str, ...], message: str
) -> None:
    assert message in refused(home, *words, *(("--data", home.store) if words else ()))


def refused(home: Home, *words: object) -> str:
    done = home.run_here("evaluate", *words)
    assert done.returncode == 2, done.stdout + done.stderr
    assert done.stderr.startswith("error: "), done.stderr
    assert done.stderr.count("\n") == 1, "one sentence"
    return done.stderr


def test_a_run_without_its_checkpoint_is_reported(home: Home, run: str) -> None:
    trials = home.path / "searches" / "examined" / "trials"
    elsewhere = trials.rename(trials.with_name("elsewhere"))
    try:
        assert "has no checkpoint in" in refused(home, run, "--data", home.store)
    finally:
        elsewhere.rename(trials)
