"""Disks that fill up, and files that come back other than they were written."""

import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from hpsearch.data.patch_store import PatchStore
from hpsearch.execution.ray_runtime import start_ray, stop_ray
from hpsearch.execution.tuner import run_session
from hpsearch.search.stopping import Limits
from hpsearch.search.workspace import Workspace
from hpsearch.training.trial import CHECKPOINT_FILE

from ..processes import environment
from ..search_factory import plan
from .conftest import can_blind
from .faults import HELD, Hold
from .invariants import (
    assert_mlflow_agrees,
    assert_whole,
    first_report_after,
    patches_since_report,
)
from .searches import MARKS, seen, space_of, trials

pytestmark = MARKS
PATCHES = 4_800
REPORTS = [600 * i for i in range(1, 9)]
LONG = 19_200
"""Patches of a trial that is held at a quarter of them, until it hears that it is to leave."""
DENOISED = """
from hpsearch.config import (Adam, Denoised, DenoiserTraining, L2Net, RandomTriplets, ShallowUNet,
                             TrialConfig)
from hpsearch.search.pruners import NoPruner
from hpsearch.search.search import Search

DENOISER = DenoiserTraining(network=ShallowUNet(width=0.25), patches=256)

def suggest(trial):
    return TrialConfig(input=Denoised(denoiser=DENOISER), descriptor=L2Net(width=0.125),
                       sampler=RandomTriplets(batch=20), patches=19_200,
                       optimizer=Adam(lr=trial.suggest_float("lr", 1e-4, 1e-2)))

SEARCH = Search(suggest=suggest, budget=19_200, report_every=2_400, validation_points=8, trials=2,
                baseline=TrialConfig(patches=4_800), pruner=NoPruner())
"""
FULL = """
mount -t tmpfs -o size=64m none "$HOME_ON_TMPFS" || exit 99
ledger="$HOME_ON_TMPFS/searches/full/ledger.jsonl"
(until [ "$(grep -c '"event": "report"' "$ledger" 2> /dev/null)" -ge 3 ] 2> /dev/null
 do sleep 0.1; done; dd if=/dev/zero of="$HOME_ON_TMPFS/filler" bs=4k 2> /dev/null; rm "$HELD") &
$HPSEARCH search "$SPACE" --name full --data "$STORE" > "$SEEN/out1" 2> "$SEEN/err1"
echo $? > "$SEEN/code1"
find "$HOME_ON_TMPFS" > "$SEEN/files"; date +%s.%N > "$SEEN/stopped"
rm "$HOME_ON_TMPFS/filler"
$HPSEARCH resume full > "$SEEN/out2" 2> "$SEEN/err2"
echo $? > "$SEEN/code2"
cp -r "$HOME_ON_TMPFS/." "$SEEN/home"
"""


def test_a_full_disk_is_one_sentence_and_nothing_is_lost(
    hold: Hold, tiny: PatchStore, tmp_path: Path, note
) -> None:
    if not can_blind():
        pytest.skip("only root may mount a small disk")
    home, watched = tmp_path / "home", tmp_path / "watched"
    home.mkdir()
    (watched / "home").mkdir(parents=True)
    hold.at(1_800)
    space = tmp_path / "space.py"
    space.write_text(space_of(patches=PATCHES))
    subprocess.run(
        ["unshare", "--mount", "sh", "-c", FULL], check=True, timeout=600,
        env=environment(
            HOME_ON_TMPFS=str(home), HPSEARCH_HOME=str(home), SPACE=str(space),
            STORE=str(tiny.path), SEEN=str(watched), COLUMNS="200",
            HELD=str(hold.marks / HELD),
            HPSEARCH=f"{sys.executable} -m hpsearch",
        ),
    )  # fmt: skip
    errors = (watched / "err1").read_text()
    assert (watched / "code1").read_text().strip() == "2", errors
    output = [line for line in errors.splitlines() if line.startswith("error: ")]
    assert len(output) == 1, errors
    assert "Traceback" not in errors
    assert f"the disk that holds {home}" in output[0]
    assert "is full, so search 'full' has stopped" in output[0]
    assert "hpsearch resume full" in output[0]
    assert ".part\n" not in (watched / "files").read_text()
    assert (watched / "code2").read_text().strip() == "0", (watched / "err2").read_text()
    context = Workspace(watched / "home").open("full")
    assert [seen(run) for run in trials(context)] == [REPORTS] * 2
    assert_mlflow_agrees(context, f"sqlite:///{watched / 'home' / 'mlflow.db'}")
    stopped = float((watched / "stopped").read_text())
    assert_whole(
        "the disk is full, until there is room and the search is resumed", note, context,
        patches=patches_since_report(context, stopped),
        seconds=first_report_after(context, stopped),
    )  # fmt: skip


@pytest.fixture
def ray_here(hold: Hold) -> Iterator[None]:
    start_ray(cpus=2)
    yield
    stop_ray()


def test_damaged_checkpoints_and_artifacts_are_made_again(
    ray_here, hold: Hold, tiny: PatchStore, tmp_path: Path, note
) -> None:
    hold.at(LONG // 4)
    context = plan(tmp_path, tiny, DENOISED, trials=2, limits=Limits(patches=LONG // 2))
    session = run_session(context)
    assert session.limit == f"{LONG // 2:,} patches"
    before = {run.id: run.seen for run in context.runs}
    assert len(before) == 2
    assert max(before.values()) < LONG
    truncated, flipped = (
        context.paths.trials_dir / name / CHECKPOINT_FILE for name in sorted(before)
    )
    truncated.write_bytes(truncated.read_bytes()[:-1_000])
    flip(flipped)
    artifacts = sorted((tmp_path / "artifacts").iterdir())
    whole = {path: path.read_bytes() for path in artifacts if path.suffix != ".seconds"}
    assert len(whole) == 2, "the denoiser, and the patches that it has denoised"
    for path in artifacts:
        flip(path)
    hold.release()
    now = time.time()
    session = run_session(context.with_record(limits=Limits()))
    assert session.exhausted
    assert [seen(run) for run in context.runs] == [[2_400 * i for i in range(1, 9)]] * 2
    output = [
        (e["trial"], e["reason"])
        for e in context.event_log.events()
        if e["event"] == "restarted_from_scratch"
    ]
    assert sorted(output) == [(name, "its checkpoint was damaged") for name in sorted(before)]
    assert [run.retrained_patches for run in trials(context)] == [
        before[name] for name in sorted(before)
    ]
    context.mlflow_sync().sync()
    assert_mlflow_agrees(context, context.tracking().uri)
    assert {path: path.read_bytes() for path in whole} == whole, "the same bits again"
    assert_whole(
        "a checkpoint truncated, one with a flipped bit, two artifacts with one", note, context,
        patches=sum(before.values()), seconds=first_report_after(context, now),
    )  # fmt: skip


def flip(path: Path) -> None:
    """One bit in the middle."""
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    draft = path.with_suffix(".flipped")
    draft.write_bytes(content)
    draft.replace(path)  # others may have the old one mapped
