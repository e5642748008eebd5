r"""Train lists of chosen configurations to the end, one after the other, and keep a row of each.

A list is a Python file with ``DATA`` (name of a patch set), ``RUNS`` (pairs of an arm's name and a
TrialConfig, in the order to train them) and, if wanted, ``EVALUATION``. A run that the table has
already is left out, and so is one that a list names twice: a row counts if its patch set, its
evaluation and its configuration, as this version reads it, are equal and its commit is listed in
``docs/results/training_versions.txt`` among those that train alike.

Every report comes after its checkpoint, so a killed run resumes. While a file ``pause`` lies in the
folder, training waits at its next report. The table alone is enough to resume on another machine.
One thread, lowest priority (``nice -n 19``):

    python benchmarks/long_runs.py search_spaces/reports/schedule.py --folder runs/long \
        --data photographs=photographs.arrow [--until 21:40] [--missing]
    python benchmarks/long_runs.py --show
"""

import argparse
import fcntl
import shutil
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import torch
from run_lists import Run, code_version, read_list
from run_table import (
    Evaluation,
    Row,
    append_row,
    differences,
    digest_of,
    find_row,
    markdown,
    read_rows,
    read_versions,
)
from tracing import Trace, TracedTask

from hpsearch.config import ComputeConfig, TrialConfig
from hpsearch.data.builtin_sets import BUILTIN_SETS, open_builtin
from hpsearch.data.patch_store import PatchStore
from hpsearch.errors import UserError
from hpsearch.evaluation import TaskSizes
from hpsearch.models import Pipeline, describe
from hpsearch.models.serialization import save_pipeline
from hpsearch.promotion.final_evaluation import pipeline_spec
from hpsearch.training.artifact_cache import ArtifactCache, DependencyFailedError
from hpsearch.training.devices import tune_glibc_malloc
from hpsearch.training.loop import Report
from hpsearch.training.trial import CHECKPOINT_FILE, TrainingRun, TrialEnvironment, build_trial
from hpsearch.training.validation import sample_evaluation_set

RESULTS = Path(__file__).parents[1] / "docs" / "results"
TEST = TaskSizes(pairs=20_000, queries=1_000, distractors=4_000)
"""Task lists of the test part, before they shrink to what it holds."""
PAUSE = "pause"
PAUSE_POLL_S = 5.0


@dataclass(frozen=True)
class Runner:
    """Trains what is missing from a table, in a folder of its own."""

    folder: Path
    """For checkpoints, weights, shared artifacts and the file ``pause``."""
    table: Path
    stores: Mapping[str, PatchStore]
    """Patch sets by name."""
    code: str
    """Commit that last changed the package."""
    alike: Sequence[str]
    """Commits that train as this one does, this one included."""
    log: Callable[[str], None] = print
    sleep: Callable[[float], None] = time.sleep

    def missing(self, runs: Sequence[Run]) -> list[Run]:
        """Runs that the table has no row of, each once, in their order."""
        rows, wanted = read_rows(self.table), list[Run]()
        for run in runs:
            named = any(run.same_as(other) for other in wanted)
            if not named and self._row(rows, run) is None:
                wanted.append(run)
        return wanted

    def run_all(self, runs: Sequence[Run], *, until: str | None = None) -> None:
        """Train what is missing; no run begins after ``until`` (HH:MM, local time).

        Each run looks at the table as it is then, so that rows of another machine can be appended.

        Raises:
            UserError: if a patch set is not here, or this version is not listed.
        """
        for run in runs:
            self._store(run)
        if self.code not in self.alike:
            raise UserError(
                f"commit {self.code} is not listed among the versions that train alike; add it to "
                f"{RESULTS / 'training_versions.txt'} if it trains as those do"
            )
        while wanted := self.missing(runs):
            if until and datetime.now().strftime("%H:%M") >= until:
                self.log(f"it is past {until}; {len(wanted)} runs are missing")
                return
            self._wait_while_paused()
            run = wanted[0]
            self.log(f"{_now()} {run.block} {run.name} seed {run.config.seed}: begins")
            row = self.train(run)
            append_row(self.table, row)
            shutil.rmtree(self._folder(run) / "training", ignore_errors=True)
            self.log(f"{_now()} {_summary(row)}, {len(wanted) - 1} to go")

    def train(self, run: Run) -> Row:
        """Train one run to its end, from its checkpoint if it has one."""
        store, config = self._store(run), run.config
        job = TrialEnvironment(
            store=store,
            split=store.split(),
            artifacts=ArtifactCache(str((self.folder / "artifacts").absolute())),
            report_every=max(1, config.patches // run.evaluation.reports),
            validation_points=run.evaluation.validation_points,
            computing=ComputeConfig(device="cpu"),
        )
        try:
            trial = traced_trial(config, job)
        except DependencyFailedError as error:
            return self._row_of(run, job, [Report(0, {}, "diverged", str(error))], Trace(), {})
        curve, scores = list(self._reports(trial, self._folder(run) / "training")), {}
        if curve[-1].status == "completed":
            save_pipeline(trial.pipeline(), pipeline_spec(config), self._folder(run))
            scores = score_test_part(trial, run.evaluation)
        return self._row_of(run, job, curve, trial.traced.trace, scores)

    def _row_of(
        self,
        run: Run,
        job: TrialEnvironment,
        curve: Sequence[Report],
        trace: Trace,
        scores: dict[str, dict[str, float]],
    ) -> Row:
        return Row(
            block=run.block,
            name=run.name,
            data=run.data,
            fingerprint=job.store.fingerprint,
            split={part: len(getattr(job.split, part)) for part in ("train", "validation", "test")},
            evaluation=run.evaluation,
            config=run.config.model_dump(mode="json"),
            digest=digest_of(run.config),
            seed=run.config.seed,
            code=self.code,
            status=curve[-1].status,
            reason=curve[-1].reason,
            collapse_value=run.config.loss.collapse_value,
            curve=[{"seen": float(r.seen), **_rounded(r.metrics)} for r in curve],
            trace=trace.columns,
            scores=scores,
            cpu_seconds=round(trace.cpu_seconds, 1),
            finished=_now(),
        )

    def _reports(self, trial: "TracedTrial", checkpoints: Path) -> Iterator[Report]:
        """All reports of a trial from its first, those before its checkpoint included."""
        if (checkpoints / CHECKPOINT_FILE).exists():
            trial.load(checkpoints)
            self.log(f"{_now()} resumes at {trial.progress.seen:,} patches")
        output = trial.traced.output
        yield from [Report(**report) for report in output]
        if output and output[-1]["status"] != "running":
            return  # killed between its last checkpoint and its row
        for report in trial.reports():
            output.append(vars(report))
            trial.save(checkpoints)
            yield report
            self._wait_while_paused()

    def _wait_while_paused(self) -> None:
        pause = self.folder / PAUSE
        if pause.exists():
            self.log(f"{_now()} paused; remove {pause} to continue")
        while pause.exists():
            self.sleep(PAUSE_POLL_S)

    def _row(self, rows: Sequence[Row], run: Run) -> Row | None:
        return find_row(
            rows, run.config, data=run.data, evaluation=run.evaluation, versions=self.alike
        )

    def _store(self, run: Run) -> PatchStore:
        if run.data not in self.stores:
            raise UserError(
                f"the list {run.block!r} needs the patch set {run.data!r}; "
                f"give its store with --data {run.data}=PATH"
            )
        return self.stores[run.data]

    def _folder(self, run: Run) -> Path:
        return self.folder / run.data / digest_of(run.config)


def traced_trial(config: TrialConfig, job: TrialEnvironment) -> "TracedTrial":
    """A trial of the product whose task keeps a trace.

    Raises:
        DependencyFailedError: if the denoiser or the weights to begin with come to nothing.
    """
    trial = build_trial(config, job)
    return TracedTrial(**{**vars(trial), "task": TracedTask(**vars(trial.task))})


class TracedTrial(TrainingRun):
    """A trial whose task is traced."""

    @property
    def traced(self) -> TracedTask:
        """The task, with its trace and its reports."""
        assert isinstance(self.task, TracedTask), "that is how it was made"
        return self.task


def score_test_part(trial: TrainingRun, evaluation: Evaluation) -> dict[str, dict[str, float]]:
    """Scores of the pipeline on the test part, by raw input."""
    job = trial.env
    test = sample_evaluation_set(
        job.store.part(job.split, "test"), points=evaluation.test_points, sizes=TEST
    )
    pipeline = Pipeline(denoiser=trial.denoiser, descriptor=trial.task.network).eval()
    return {
        name: _rounded(test.score(describe(pipeline, test.pixels(noisy=name == "noisy"))).flat())
        for name in ("clean", "noisy")
    }


@contextmanager
def alone(folder: Path) -> Iterator[None]:
    """Only one runner works in a folder.

    Raises:
        UserError: if another one does.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise UserError(f"another runner works in {folder}; give another --folder") from error
        yield


def main(words: Sequence[str] | None = None) -> int:
    """Run the command line; the exit code."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("lists", type=Path, nargs="*", help="lists of runs, in their order")
    parser.add_argument("--folder", type=Path, default=Path("runs/long"))
    parser.add_argument("--table", type=Path, default=RESULTS / "runs.jsonl")
    parser.add_argument("--versions", type=Path, default=RESULTS / "training_versions.txt")
    parser.add_argument("--data", action="append", default=[], metavar="NAME=PATH")
    parser.add_argument("--until", default=None, help="no run begins after this time, HH:MM")
    parser.add_argument(
        "--missing", action="store_true", help="list what is missing, train nothing"
    )
    parser.add_argument("--show", action="store_true", help="print the table as Markdown")
    parser.add_argument("--compare", type=Path, nargs=2, help="tables of the same runs")
    options = parser.parse_args(words)
    try:
        if options.compare:
            unlike = differences(*(read_rows(table) for table in options.compare))
            log("\n".join(unlike) or "all runs are alike")
            return int(bool(unlike))
        if options.show:
            log(markdown(read_rows(options.table)))
        else:
            _run(options)
    except UserError as error:
        sys.stderr.write(f"{error}\n")
        return 2
    return 0


def _run(options: argparse.Namespace) -> None:
    runs = [run for path in options.lists for run in read_list(path)]
    code = code_version(Path(__file__).parents[1])
    versions = read_versions(options.versions)
    stores = _stores(options.data, {run.data for run in runs}, options.folder)
    runner = Runner(options.folder, options.table, stores, code, versions, log=log)
    if options.missing:
        for run in runner.missing(runs):
            log(f"{run.block} {run.name} seed {run.config.seed}")
        return
    torch.set_num_threads(1)
    tune_glibc_malloc()
    with alone(options.folder):
        runner.run_all(runs, until=options.until)


def _stores(given: Sequence[str], wanted: set[str], folder: Path) -> dict[str, PatchStore]:
    stores = {}
    for word in given:
        name, _, path = word.partition("=")
        if not path:
            raise UserError(f"--data takes NAME=PATH, got {word!r}")
        stores[name] = PatchStore.open(path)
    for name in wanted & BUILTIN_SETS.keys() - stores.keys():
        stores[name] = PatchStore.open(open_builtin(name, folder / "data"))
    return stores


def _rounded(metrics: Mapping[str, float]) -> dict[str, float]:
    return {name: float(f"{value:.5g}") for name, value in metrics.items()}


def _summary(row: Row) -> str:
    scores = {name: round(found["mAP"], 3) for name, found in row.scores.items()}
    stages = row.trace["stage"]
    return (
        f"{row.block} {row.name} seed {row.seed}: {row.status}, mAP {scores}, "
        f"last stage {stages[-1] if stages else 0:g}, {row.cpu_seconds:.0f} CPU s"
    )


def _now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%d %H:%M:%S")


def log(text: str) -> None:
    """Print at once, also into a file."""
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
