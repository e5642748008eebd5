"""Record learning curves of random configurations, each to the end of its budget, no pruning.

Collapsing runs continue to the end too; the step at which the detector would stop is recorded.
Each run is added to a JSON-lines file when it ends, so an interrupted recording can be
resumed; ``--table`` turns the file into the parquet table that ``search.py`` replays. One thread.

    python benchmarks/record_curves.py --lines curves.jsonl --runs 200 [--until 15:00]
    python benchmarks/record_curves.py --lines curves.jsonl --table benchmarks/curves.parquet

The tables that samplers are compared on are of ``sampler_space.py``: ``photographs`` to tune them,
``photographs_seeds`` (other configurations and other training seeds) and ``embedded`` (another
patch set) to judge them. In each, one run of twelve repeats a configuration with another seed:

    python benchmarks/record_curves.py --space benchmarks/sampler_space.py --repeat-every 12 \
        --lines photographs.jsonl --runs 600 --data photographs.arrow
    ... --lines seeds.jsonl --runs 250 --data photographs.arrow --seed 1
    ... --lines embedded.jsonl --runs 250 --data mini --seed 2
"""

import argparse
import json
import sys
import time
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

import optuna
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from torch import Tensor

from hpsearch.config import ComputeConfig, TrialConfig
from hpsearch.config.formatting import summary
from hpsearch.data.builtin_sets import BUILTIN_SETS, open_builtin
from hpsearch.data.patch_store import PatchStore
from hpsearch.search.search import Search
from hpsearch.search.space_file import load_search
from hpsearch.training.artifact_cache import ArtifactCache
from hpsearch.training.devices import tune_glibc_malloc
from hpsearch.training.loop import Progress, Report, StopReason, fit
from hpsearch.training.trial import DescriptorTask, TrialEnvironment, build_trial

HERE = Path(__file__).parent
SPACE = HERE / "replay_space.py"


@dataclass
class Watched:
    """A task that a collapse does not stop; the first verdict is kept."""

    task: DescriptorTask
    verdict: StopReason | None = None
    stopped_at: int | None = None
    seen: int = 0
    seconds: list[float] = field(default_factory=list)
    """CPU seconds up to each report."""

    def __post_init__(self) -> None:
        self._began = time.process_time()

    def step(self, progress: Progress) -> tuple[Tensor, int]:
        loss, used = self.task.step(progress)
        self.seen = progress.seen + used
        return loss, used

    def check(self, loss: float) -> StopReason | None:
        found = self.task.check(loss)
        if self.verdict is None and found is not None:
            self.verdict, self.stopped_at = found, self.seen
        return None

    def evaluate(self) -> dict[str, float]:
        metrics = self.task.evaluate()
        self.seconds.append(time.process_time() - self._began)
        return metrics

    def failure_metrics(self) -> dict[str, float]:
        return self.task.failure_metrics()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--lines", type=Path, required=True)
    parser.add_argument("--space", type=Path, default=SPACE)
    parser.add_argument("--runs", type=int, default=200)
    parser.add_argument("--until", default=None, help="no run begins after this time, HH:MM")
    parser.add_argument("--folder", type=Path, default=Path("data"))
    parser.add_argument("--data", default="mini", help="name of a built-in set, or a patch store")
    parser.add_argument("--seed", type=int, default=0, help="of configurations and of trainings")
    parser.add_argument("--repeat-every", type=int, default=0, help="one run of so many repeats")
    parser.add_argument("--table", type=Path, default=None)
    options = parser.parse_args()
    if options.table:
        write_table(options.lines, options.table)
    else:
        record(options)


def record(options: argparse.Namespace) -> None:
    """Draw configurations in a fixed order, and run those that are not there yet."""
    torch.set_num_threads(1)
    tune_glibc_malloc()
    search = load_search(options.space).with_changes(seed=options.seed)
    builtin = options.data in BUILTIN_SETS
    path = open_builtin(options.data, options.folder) if builtin else Path(options.data)
    store = PatchStore.open(path)
    job = TrialEnvironment(
        store=store,
        split=store.split(),
        artifacts=ArtifactCache(str((options.folder / "artifacts").absolute())),
        report_every=search.report_every,
        validation_points=search.validation_points,
        computing=ComputeConfig(device="cpu"),
    )
    done = len(options.lines.read_text().splitlines()) if options.lines.exists() else 0
    for number, (first, (params, config)) in enumerate(
        with_repeats(drawn(search, options.runs), every=options.repeat_every)
    ):
        if number < done:
            continue
        if options.until and datetime.now().strftime("%H:%M") >= options.until:
            return
        drawn_from = {"space": options.space.stem, "number": number, "repeats": first}
        drawn_from["params"] = params
        row = {**drawn_from, **run(config, job, search)}
        with options.lines.open("a") as lines:
            lines.write(json.dumps(row) + "\n")
        log(
            f"{number} {summary(config)}: {[round(v, 3) for v in row['objective']]} {row['status']}"
        )


def drawn(search: Search, runs: int) -> list[tuple[dict[str, Any], TrialConfig]]:
    """The first configurations of a random search, with their parameters."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=search.seed))
    for point in search.initial_points:
        study.enqueue_trial(dict(point))
    trials = [study.ask() for _ in range(runs)]
    configs = [search.suggest_config(trial, repeat=search.seed) for trial in trials]
    return [(trial.params, config) for trial, config in zip(trials, configs, strict=True)]


Drawn = tuple[dict[str, Any], TrialConfig]


def with_repeats(points: list[Drawn], *, every: int) -> list[tuple[int | None, Drawn]]:
    """Replace one point of ``every`` by the one before it with another seed; 0 for none.

    Each comes with the number of the run that it repeats, if it does.
    """
    found: list[tuple[int | None, Drawn]] = []
    for number, (params, config) in enumerate(points):
        if every and number % every == every - 1:
            params, config = points[number - 1]
            config = config.model_copy(update={"seed": config.seed + 1000})
            found.append((number - 1, (params, config)))
        else:
            found.append((None, (params, config)))
    return found


def run(config: TrialConfig, job: TrialEnvironment, search: Search) -> dict[str, Any]:
    """One configuration to the end of its budget, or to a loss that is no number."""
    watched = Watched(build_trial(config, job).task)
    reports = list(fit(watched, patches=config.patches, report_every=job.report_every))
    last = reports[-1]
    if last.status == "diverged":
        watched.seconds.append(time.process_time() - watched._began)
    verdict = watched.verdict or StopReason(last.status, last.reason)
    return {
        "config": config.model_dump_json(),
        "status": verdict.status,
        "reason": verdict.reason,
        "stopped_at": watched.stopped_at or last.seen,
        "seen": [report.seen for report in reports],
        "seconds": watched.seconds,
        "objective": [guarded(report, search) for report in reports],
        "metrics": [report.metrics for report in reports],
    }


def guarded(report: Report, search: Search) -> float:
    """Objective that the search would receive; the raw mAP is one of the metrics."""
    gone = report.status == "diverged" or report.metrics.get("val/collapsed", 0.0) > 0
    return search.objective.value(report.metrics, collapsed=gone)


def write_table(lines: Path, table: Path) -> None:
    """One row a run; curves are lists, parameters and configurations are JSON.

    Rows of other spaces that the table has are kept.
    """
    rows = [json.loads(line) for line in lines.read_text().splitlines()]
    spaces = {row["space"] for row in rows}
    before = pq.read_table(table).to_pylist() if table.exists() else []
    kept = ("val/mAP", "val/verification", "val/matching", "val/retrieval", "val/collapsed")
    for row in rows:
        metrics = row.pop("metrics")
        for name in (*kept, "train/loss", "train/dispersion"):
            row[name] = [report.get(name) for report in metrics]
        row["params"] = json.dumps(row["params"])
    rows = [row for row in before if row["space"] not in spaces] + rows
    pq.write_table(pa.Table.from_pylist(rows), table, compression="zstd")
    log(f"{len(rows)} runs in {table}, {table.stat().st_size / 1e3:.0f} kB")


def log(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
