"""Long runs: what is killed resumes, what is paused waits, and nothing is trained twice."""

import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from hpsearch.cli import app
from hpsearch.config import (
    SGD,
    Adam,
    BatchHard,
    Clean,
    L2Net,
    PKSampler,
    SoftMargin,
    Stepped,
    TrialConfig,
    WarmStart,
)
from hpsearch.data.patch_store import PatchStore
from hpsearch.errors import UserError
from hpsearch.reporting.claims import cell_of
from hpsearch.tracking.run_table import (
    Evaluation,
    Row,
    append_row,
    differences,
    find_row,
    read_rows,
    read_versions,
    runs_table,
)
from hpsearch.training import loss_trace
from hpsearch.training.loss_trace import hardest_statistics
from hpsearch.workflows.reproduce import exclusive_folder
from hpsearch.workflows.run_lists import Run, code_version, read_lists
from hpsearch.workflows.run_trainer import PAUSE, RunTrainer, TracedTrial, missing_from

LISTS = sorted((Path(__file__).parents[2] / "search_spaces" / "reports").glob("*.py"))
EVALUATION = Evaluation(reports=4, validation_points=4, test_points=6)
CONFIG = TrialConfig(
    input=Clean(),
    descriptor=L2Net(width=0.125, input_norm=True),
    loss=BatchHard(margin=SoftMargin()),
    sampler=Stepped(stages=(PKSampler(groups=8, views=2), PKSampler(groups=8, views=4)), window=64),
    optimizer=Adam(lr=1e-3),
    warm_start=WarmStart(patches=150),
    patches=640,
)
RUN = Run("toy", "stepped", CONFIG, "tiny", EVALUATION)


@pytest.fixture
def runner(tiny: PatchStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> RunTrainer:
    monkeypatch.setattr(loss_trace, "WINDOW", 96)  # toy budgets are shorter than the usual one
    return RunTrainer(
        folder=tmp_path / "runs",
        table=tmp_path / "runs.jsonl",
        stores={"tiny": tiny},
        code="c0de",
        alike=["c0de", "0ld"],
        log=lambda text: None,
    )


@pytest.fixture
def row() -> Row:
    return Row(
        block="toy", name="stepped", data="tiny", fingerprint="f", split={}, evaluation=EVALUATION,
        config=CONFIG.model_dump(mode="json"), digest="d", seed=0, code="0ld", status="completed",
        collapse_value=0.5, curve=[], trace={"loss": [0.6, 0.4, 0.45], "stage": [0, 1, 0]},
        scores={"clean": {"mAP": 0.5}, "noisy": {"mAP": 0.4, "matching": 0.25}}, cpu_seconds=90.0,
        finished="",
    )  # fmt: skip


def never(*_: object) -> Row:
    raise AssertionError("it is trained again")


def after_saves(count: int, then: Callable[[], None], patch: pytest.MonkeyPatch) -> None:
    """Do something after so many checkpoints."""
    saves, save = [], TracedTrial.save

    def counted(self, *words):
        save(self, *words)
        saves.append(words)
        if len(saves) == count:
            then()

    patch.setattr(TracedTrial, "save", counted)


def killed() -> None:
    raise KeyboardInterrupt


def test_a_killed_run_ends_as_if_nothing_had_happened(runner: RunTrainer, tmp_path: Path) -> None:
    runner.run_all([RUN])
    other = replace(runner, folder=tmp_path / "others", table=tmp_path / "others.jsonl")
    with pytest.MonkeyPatch.context() as patch:
        after_saves(2, killed, patch)
        with pytest.raises(KeyboardInterrupt):
            other.run_all([RUN])
    assert read_rows(other.table) == []
    other.run_all([RUN])
    (whole,), (resumed,) = read_rows(runner.table), read_rows(other.table)
    same = {"cpu_seconds": 0.0, "finished": ""}
    assert resumed.model_copy(update=same) == whole.model_copy(update=same)
    assert [report["seen"] for report in whole.curve] == [160, 320, 480, 640]
    assert whole.trace["seen"][:2] == [96, 192]
    assert {len(values) for values in whole.trace.values()} == {len(whole.trace["seen"])}
    assert whole.curve[-1]["train/ratio"] > 1
    assert {"clean", "noisy"} == whole.scores.keys()


def test_a_run_killed_before_its_row_is_not_trained_on(runner: RunTrainer) -> None:
    with pytest.MonkeyPatch.context() as patch:
        after_saves(4, killed, patch)
        with pytest.raises(KeyboardInterrupt):
            runner.run_all([RUN])
        patch.setattr(TracedTrial, "reports", never)
        runner.run_all([RUN])
    (row,) = read_rows(runner.table)
    assert (row.status, len(row.curve)) == ("completed", 4)


def test_it_waits_at_the_next_report_while_paused(
    runner: RunTrainer, monkeypatch: pytest.MonkeyPatch
) -> None:
    pause, saved = runner.folder / PAUSE, []
    after_saves(2, pause.touch, monkeypatch)

    def sleep(seconds: float) -> None:
        (path,) = runner.folder.rglob("trial.pt")
        saved.append(torch.load(path, weights_only=True)["progress"]["seen"])
        if len(saved) == 3:
            pause.unlink()

    replace(runner, sleep=sleep).run_all([RUN])
    assert saved == [320, 320, 320]
    assert len(read_rows(runner.table)) == 1


def test_nothing_is_trained_twice(runner: RunTrainer, monkeypatch: pytest.MonkeyPatch) -> None:
    renamed = replace(RUN, block="another", name="the same")
    runner.run_all([RUN, renamed])
    monkeypatch.setattr(RunTrainer, "train", never)
    runner.run_all([renamed, RUN])
    assert [row.name for row in read_rows(runner.table)] == ["stepped"]
    seed = replace(RUN, config=CONFIG.model_copy(update={"seed": 1}))
    rows = read_rows(runner.table)
    assert missing_from(rows, [RUN, seed, seed], versions=runner.alike) == [seed]


def test_a_row_counts_as_this_version_reads_it(row: Row) -> None:
    def found(row: Row, config: TrialConfig = CONFIG) -> bool:
        known = {"data": "tiny", "evaluation": EVALUATION, "versions": ["c0de", "0ld"]}
        return find_row([row], config, **known) is row

    assert found(row)
    older = {name: value for name, value in row.config.items() if name != "schedule"}
    assert found(row.model_copy(update={"config": older}))
    assert not found(row.model_copy(update={"config": {"unknown": 1}}))
    assert not found(row, CONFIG.model_copy(update={"patches": 641}))
    assert not found(row.model_copy(update={"data": "mini"}))
    assert not found(row.model_copy(update={"code": "another"}))
    assert not found(row.model_copy(update={"evaluation": Evaluation()}))


def test_a_run_that_diverges_leaves_a_row(runner: RunTrainer) -> None:
    config = CONFIG.model_copy(update={"optimizer": SGD(lr=100), "warm_start": None})
    hopeless = CONFIG.model_copy(update={"warm_start": WarmStart(optimizer=SGD(lr=100))})
    runner.run_all([replace(RUN, config=config), replace(RUN, config=hopeless)])
    rows = read_rows(runner.table)
    assert [(row.status, row.scores) for row in rows] == [("diverged", {})] * 2
    assert "warm start" in rows[1].reason
    assert "diverged" in runs_table(rows)


def test_what_cannot_be_run_is_refused(runner: RunTrainer, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="--data mini=PATH"):
        runner.run_all([replace(RUN, data="mini")])
    folder = exclusive_folder(tmp_path)
    with folder, pytest.raises(UserError, match=str(tmp_path)), exclusive_folder(tmp_path):
        pass
    (tmp_path / "empty.py").write_text("RUNS = []\n")
    with pytest.raises(UserError, match="DATA and RUNS"):
        read_lists([tmp_path / "empty.py"])
    with pytest.raises(UserError, match=r"absent\.py"):
        read_lists([tmp_path / "absent.py"])


def test_the_table_reads_as_runs_table(row: Row, tmp_path: Path) -> None:
    table = tmp_path / "docs" / "runs.jsonl"
    append_row(table, row)
    append_row(table, row.model_copy(update={"seed": 1, "cpu_seconds": 150.0}))
    shown = runs_table(read_rows(table)).splitlines()
    assert shown[2] == (
        "| stepped | 640 | 0, 1 | completed | 0.800 ± 0.000, 0.900 ± 0.000 | 0·1·0 / 0·1·0 | – | "
        "0.250 ± 0.000 | – | 0.500 ± 0.000 | 0.400 ± 0.000 | 2.0 ± 0.5 |"
    )
    table.write_text("{}\n")
    with pytest.raises(UserError, match="line 1"):
        read_rows(table)


def test_two_tables_are_compared(row: Row, tmp_path: Path) -> None:
    one, another = tmp_path / "one.jsonl", tmp_path / "another.jsonl"
    append_row(one, row)
    append_row(another, row.model_copy(update={"code": "another", "cpu_seconds": 1.0}))
    assert differences(read_rows(one), read_rows(another)) == []
    unlike = row.model_copy(update={"scores": {}, "status": "collapsed"})
    assert differences([row], [unlike]) == ["stepped, seed 0: status, scores"]
    for tables in (([row], []), ([], [row])):
        assert differences(*tables) == ["stepped, seed 0: only one has it"]


def test_the_code_version_is_the_commit_of_the_package(tmp_path: Path) -> None:
    def git(*words: str) -> str:
        identity = ["-c", "user.name=A", "-c", "user.email=a@example.org"]
        command = ["git", "-C", str(tmp_path), *identity, *words]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()

    package = tmp_path / "hpsearch"
    package.mkdir()
    (package / "code.py").write_text("1\n")
    git("init")
    git("add", ".")
    git("commit", "-m", "code")
    first = git("rev-parse", "HEAD")
    (tmp_path / "notes").write_text("2\n")
    git("add", ".")
    git("commit", "-m", "notes")
    assert first.startswith(code_version(package))
    listed = tmp_path / "versions.txt"
    listed.write_text(f"# alike\n{code_version(package)} the first\n\n")
    assert read_versions(listed) == [code_version(package)]
    (package / "code.py").write_text("3\n")
    with pytest.raises(UserError, match="differs"):
        code_version(package)


def test_the_hardest_of_a_batch() -> None:
    """Points 0 and 1 on a line: 0 and 3 of one, 5 and 9 of the other; a lone patch at 100."""
    places = torch.tensor([[0.0], [3.0], [5.0], [9.0], [100.0]])
    found = hardest_statistics(places, torch.tensor([0, 0, 1, 1, 2]))
    assert found["positive"] == pytest.approx((3 + 3 + 4 + 4) / 4)
    assert found["negative"] == pytest.approx((5 + 2 + 2 + 6) / 4)
    assert found["won"] == pytest.approx(2 / 4)


@pytest.mark.parametrize("path", LISTS, ids=lambda path: path.stem)
def test_lists_name_each_configuration_once(path: Path) -> None:
    runs = read_lists([path]).runs if path.stem != "claims" else read_lists(LISTS).runs
    configs = [run.config for run in runs]
    assert all(config not in configs[:i] for i, config in enumerate(configs))


def test_arms_that_claims_compare_have_three_seeds_or_many_cells() -> None:
    found = read_lists(LISTS)
    for claim in found.claims:
        for arm in (claim.high, claim.low):
            runs = [run for run in found.runs if cell_of(arm, run.name) is not None]
            seeds = {run.config.seed for run in runs}
            assert {0, 1, 2} <= seeds or ("*" in arm and len(runs) >= 36), arm


def test_the_claims_are_many_and_name_what_the_lists_train() -> None:
    found = read_lists(LISTS)
    assert len(found.claims) >= 25
    chosen = found.of_claims(["R3-batch-time"])
    assert {run.name for run in chosen.runs} == {"shallow, 16, 1e-3", "shallow, 1024, 1e-3"}
    with pytest.raises(UserError, match="'nothing'"):
        found.of_claims(["nothing"])


def test_a_claim_is_decided_by_training_what_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The command trains both arms once, writes the verdict, and the next time trains nothing."""
    # A checkout with changes is refused, and these tests run in such ones too.
    monkeypatch.setattr("hpsearch.workflows.reproduce.code_version", lambda: "c0de")
    (tmp_path / "list.py").write_text(LIST)
    words = ["reproduce", "--list", str(tmp_path / "list.py"), "--results", str(tmp_path / "docs"),
             "--home", str(tmp_path / "home")]  # fmt: skip
    first = CliRunner().invoke(app, [*words, "rate"])
    assert (first.exit_code, "rate: confirmed" in first.output) == (0, True), first.output
    table = tmp_path / "docs" / "runs.jsonl"
    trained = table.read_bytes()
    assert len(trained.splitlines()) == 6, "two arms, three seeds; the third arm is not asked for"
    assert "**confirmed**" in (tmp_path / "docs" / "claims.md").read_text()
    again = CliRunner().invoke(app, [*words, "rate"])
    assert (again.exit_code, table.read_bytes()) == (0, trained)
    missing = CliRunner().invoke(app, [*words, "--missing"])
    assert missing.output.count("other") == 3
    assert (tmp_path / "docs" / "runs.md").read_text().count("| 0, 1, 2 |") == 2


LIST = """
from hpsearch.config import SGD, L2Net, RandomTriplets, TrialConfig
from hpsearch.reporting.claims import Claim

DATA, EVALUATION = "tiny", {"reports": 1, "validation_points": 4, "test_points": 4}
RATES = {"useless": 100.0, "good": 0.1, "other": 0.01}
RUNS = [
    (name, TrialConfig(descriptor=L2Net(width=0.125), optimizer=SGD(lr=rate), seed=seed,
                       sampler=RandomTriplets(batch=10), patches=300))
    for seed in range(3) for name, rate in RATES.items()
]
CLAIMS = [Claim(name="rate", text="A rate of 100 diverges", place="here", published="none",
                high="useless", low="good", measure="failed")]
"""
