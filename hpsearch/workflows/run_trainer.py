"""Training of listed runs, one after the other, with a row of each in a table.

Every report comes after its checkpoint, so a killed run resumes. While a file ``pause`` lies in the
folder, training waits at its next report. The table alone is enough to continue on another machine.
"""

import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from types import MappingProxyType

from hpsearch.config import ComputeConfig, TrialConfig
from hpsearch.data.patch_store import PatchStore
from hpsearch.errors import UserError
from hpsearch.evaluation import TaskSizes
from hpsearch.models import Pipeline, describe
from hpsearch.models.serialization import save_pipeline
from hpsearch.promotion.final_evaluation import pipeline_spec
from hpsearch.tracking.run_table import (
    Evaluation,
    Row,
    append_row,
    digest_of,
    find_row,
    read_rows,
)
from hpsearch.training.artifact_cache import ArtifactCache, DependencyFailedError
from hpsearch.training.loop import Report
from hpsearch.training.loss_trace import Trace, TracedTask
from hpsearch.training.trial import CHECKPOINT_FILE, TrainingRun, TrialEnvironment, build_trial
from hpsearch.training.validation import sample_evaluation_set
from hpsearch.workflows.run_lists import Run

TEST = TaskSizes(pairs=20_000, queries=1_000, distractors=4_000)
"""Task lists of the test part, before they shrink to what it holds."""
PAUSE = "pause"
PAUSE_POLL_S = 5.0


@dataclass(frozen=True)
class RunTrainer:
    """Trains the runs that a table lacks, in a folder of its own."""

    folder: Path
    """For checkpoints, weights, shared artifacts and the file ``pause``."""
    table: Path
    stores: Mapping[str, PatchStore]
    """Patch sets by name."""
    code: str
    """Commit that last changed the package."""
    alike: Sequence[str]
    """Commits that train as this one does, this one included."""
    log: Callable[[str], None]
    sleep: Callable[[float], None] = time.sleep

    def run_all(self, runs: Sequence[Run], *, until: str | None = None) -> None:
        """Train what is missing; no run begins after ``until`` (HH:MM, local time).

        The table is read before each run, so that rows of another machine can be appended.

        Raises:
            UserError: if a patch set is missing.
        """
        for run in runs:
            self._store(run)
        while wanted := missing_from(read_rows(self.table), runs, versions=self.alike):
            if until and datetime.now().strftime("%H:%M") >= until:
                self.log(f"no run begins after {until}; {len(wanted)} runs are missing")
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
            failed = [Report(0, {}, "diverged", str(error))]
            return self._row_of(run, job, failed)
        curve, scores = list(self._reports(trial, self._folder(run) / "training")), {}
        if curve[-1].status == "completed":
            save_pipeline(trial.pipeline(), pipeline_spec(config), self._folder(run))
            scores = score_test_part(trial, run.evaluation)
        return self._row_of(run, job, curve, trial=trial.traced, scores=scores)

    def _row_of(
        self,
        run: Run,
        job: TrialEnvironment,
        curve: Sequence[Report],
        *,
        trial: TracedTask | None = None,
        scores: Mapping[str, dict[str, float]] = MappingProxyType({}),
    ) -> Row:
        """Row of a run; ``trial`` is None where none could be built."""
        trace = Trace() if trial is None else trial.trace
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
            collapse_value=0.0 if trial is None else trial.trainer.collapse_value,
            curve=[{"seen": float(r.seen), **_rounded(r.metrics)} for r in curve],
            trace=trace.columns,
            scores=dict(scores),
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

    def _store(self, run: Run) -> PatchStore:
        if run.data not in self.stores:
            raise UserError(
                f"the list {run.block!r} needs the patch set {run.data!r}; "
                f"give its store with --data {run.data}=PATH"
            )
        return self.stores[run.data]

    def _folder(self, run: Run) -> Path:
        return self.folder / run.data / digest_of(run.config)


def missing_from(rows: Sequence[Row], runs: Sequence[Run], *, versions: Sequence[str]) -> list[Run]:
    """Runs that no row counts as, each once, in their order.

    Args:
        rows: of the table.
        runs: to look for.
        versions: commits whose training is alike.
    """
    wanted = list[Run]()
    for run in runs:
        listed = any(run.same_as(other) for other in wanted)
        if not listed and not find_row(
            rows, run.config, data=run.data, evaluation=run.evaluation, versions=versions
        ):
            wanted.append(run)
    return wanted


def traced_trial(config: TrialConfig, job: TrialEnvironment) -> "TracedTrial":
    """Build a trial whose task records a trace.

    Raises:
        DependencyFailedError: if the training of the denoiser or of the warm start fails.
    """
    trial = build_trial(config, job)
    return TracedTrial(**{**vars(trial), "task": TracedTask(**vars(trial.task))})


class TracedTrial(TrainingRun):
    """Training run of a traced task."""

    @property
    def traced(self) -> TracedTask:
        """Task with its trace and its reports."""
        assert isinstance(self.task, TracedTask), "traced_trial makes it so"
        return self.task


def score_test_part(trial: TrainingRun, evaluation: Evaluation) -> dict[str, dict[str, float]]:
    """Score the pipeline on the test part; scores by raw input, clean and noisy."""
    job = trial.env
    test = sample_evaluation_set(
        job.store.part(job.split, "test"), points=evaluation.test_points, sizes=TEST
    )
    pipeline = Pipeline(denoiser=trial.denoiser, descriptor=trial.task.network).eval()
    return {
        name: _rounded(test.score(describe(pipeline, test.pixels(noisy=name == "noisy"))).flat())
        for name in ("clean", "noisy")
    }


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
