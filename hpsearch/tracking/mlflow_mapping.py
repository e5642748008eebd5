"""Mapping of events to MLflow parameters, metrics and tags."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from importlib.metadata import PackageNotFoundError, version
from itertools import islice
from pathlib import Path
from typing import Any

from mlflow.entities import Dataset, DatasetInput, InputTag, Metric, Param, RunTag
from pydantic import BaseModel
from pydantic_core import PydanticUndefined

from hpsearch.config import TrialConfig
from hpsearch.config.formatting import ALWAYS_SHOWN, Flat, flatten, summary
from hpsearch.tracking.event_log import Event
from hpsearch.tracking.mlflow_tags import (
    OBJECTIVE_METRIC,
    RUN_KIND,
    SEARCH_ID,
    SOURCE_COMMIT,
    SOURCE_NAME,
    SOURCE_TYPE,
    STATUS_TAG,
)
from hpsearch.tracking.run_state import BestSoFar, Run, SearchState

RECORDED_PACKAGES = ("hpsearch", "torch", "ray", "optuna", "mlflow", "numpy")


def software_versions() -> dict[str, str]:
    """Versions by name: commit of the code, Python, and the packages that results depend on."""
    found = {"git.commit": code_commit(), "version.python": sys.version.split()[0]}
    for package in RECORDED_PACKAGES:
        try:
            found[f"version.{package}"] = version(package)
        except PackageNotFoundError:
            continue  # a checkout that is not installed
    return found


def code_commit() -> str:
    """Commit of the code; ``unknown`` for an installed package."""
    command = ["git", "-C", str(Path(__file__).parent), "rev-parse", "HEAD"]
    try:
        found = subprocess.run(command, capture_output=True, text=True, timeout=5, check=False)
    except OSError:
        return "unknown"
    return found.stdout.strip() or os.environ.get("HPSEARCH_COMMIT", "unknown")


SHOWN_METRICS = ("val/mAP", "val/verification", "val/matching", "val/retrieval")
"""Metrics in the table of trials. MLflow sorts columns by name, so another would come before."""
SYSTEM_METRICS = ("shared/", "cost/", "device/", "val/collapsed")
"""Beginnings of metrics that hardly change in a trial; MLflow gets them among its system metrics,
or their flat lines would lead its page of learning curves, which is sorted by name."""
RESTORATION_METRIC = re.compile(r"val/((?:PSNR|PSNR_per_patch|MAE|SSIM)(?:/\w+)?)")
"""Metrics of the patches that a trial's descriptor sees, which do not change either; MLflow gets
them under ``val_restoration/``, which its pages show after ``val/``."""
MAX_COLUMNS = 40
MAX_BATCH_METRICS = 900
"""Metric values per request; MLflow accepts 1,000 metrics, parameters and tags together."""
MAX_VALUE_CHARS, MAX_NAME_CHARS = 6000, 250
"""Maximum length of a parameter and of a run name in MLflow."""


def search_params(event: Event) -> list[Param]:
    """MLflow parameters of the search's run."""
    return [Param(key, str(value)) for key, value in event["params"].items()]


def trial_params(run: Run, fixed: Mapping[str, Flat]) -> list[Param]:
    """MLflow parameters of a trial: settings that differ between trials of the space."""
    flat = flatten(run.config).items()
    return [
        Param(key, str(value)[:MAX_VALUE_CHARS])
        for key, value in flat
        if key not in fixed or fixed[key] != value
    ]


def run_name(run: Run, fixed: Mapping[str, Flat]) -> str:
    """Run name of a trial: number, loss, sampler, optimizer, and other settings that vary."""
    own = _strip_shared(run.config, _shared_names(run.config, fixed))
    return f"{run.label} {summary(own)}"[:MAX_NAME_CHARS]


def search_tags(event: Event) -> list[RunTag]:
    """MLflow tags of the search: versions of code and libraries, and the space file."""
    tags = {key: str(value) for key, value in event.get("tags", {}).items()}
    return _run_tags({**tags, **_source_of(event)})


def trial_tags(run: Run, search: Event) -> list[RunTag]:
    """MLflow tags of a trial: its origin and its seed."""
    return _run_tags({"seed": str(run.config.seed), **_source_of(search)})


def state_tags(run: Run) -> list[RunTag]:
    """MLflow tags of a trial's status, its reason, and the number of resumes and restarts."""
    restarts = (
        {"restarts_from_scratch": str(len(run.restarted_attempts))}
        if run.restarted_attempts
        else {}
    )
    return _run_tags(
        {STATUS_TAG: run.status, "reason": run.reason, "retries": str(run.retries), **restarts}
    )


def param_names(runs: Iterable[Run], fixed: Mapping[str, Flat]) -> list[str]:
    """Names of the MLflow parameters of trials, in the order in which they first occur."""
    trials = (run for run in runs if run.kind == "trial")
    return list(dict.fromkeys(p.key for run in trials for p in trial_params(run, fixed)))


def saved_view(search: Event, search_id: str, params: Iterable[str]) -> str:
    """Saved view of a search: trials as a table, best first, with the columns worth sorting by.

    Args:
        search: first event of its log.
        search_id: unique id of the search.
        params: names of the parameters of its trials.
    """
    return table_view(
        f"tags.`{SEARCH_ID}` = '{search_id}' and tags.`{RUN_KIND}` = 'trial'",
        params,
        metric=OBJECTIVE_METRIC,
        ascending=search.get("direction") == "minimize",
    )


def table_view(
    rule: str,
    params: Iterable[str],
    *,
    metric: str,
    ascending: bool = False,
    tags: Sequence[str] = (),
) -> str:
    """View of a table of runs, as MLflow stores it: scores first, then settings.

    Args:
        rule: MLflow's filter of the runs.
        params: settings that are columns.
        metric: metric by which the runs are sorted.
        ascending: True for the smallest value first.
        tags: further tags that are columns.
    """
    columns = [
        *(f"metrics.`{name}`" for name in SHOWN_METRICS),
        *(f"params.`{name}`" for name in islice(params, MAX_COLUMNS)),
        *(f"tags.`{name}`" for name in (*tags, STATUS_TAG)),
    ]
    facets = {
        "searchFilter": rule,
        "orderByKey": f"metrics.`{metric}`",
        "orderByAsc": ascending,
    }
    return json.dumps({**facets, "selectedColumns": columns})


def report_metrics(report: Event) -> list[Metric]:
    """MLflow metrics of one report, by patches seen; the objective comes first, as MLflow shows it.

    Names that start with ``system/`` appear on MLflow's page of system metrics.
    """
    values = {OBJECTIVE_METRIC: report["objective"], **report["metrics"], **_throughput(report)}
    moment, seen = milliseconds(report["time"]), report["seen"]
    return [Metric(metric_name(key), value, moment, seen) for key, value in values.items()]


def batches(reports: Sequence[Event], *, num_others: int = 0) -> Iterator[list[Metric]]:
    """Group the metrics of complete reports into batches that MLflow accepts in one request.

    Args:
        reports: reports of one run.
        num_others: number of parameters and tags sent with the first batch, which may be empty.
    """
    batch: list[Metric] = []
    for report in reports:
        more = report_metrics(report)
        if (batch or num_others) and num_others + len(batch) + len(more) > MAX_BATCH_METRICS:
            yield batch
            batch, num_others = [], 0
        batch += more
    yield batch


def search_metrics(best_values: Iterable[BestSoFar]) -> list[Metric]:
    """MLflow metrics of the search: best objective so far after each trial that ended."""
    return [
        Metric(f"best/{OBJECTIVE_METRIC}", best.value, milliseconds(best.time), best.ended)
        for best in best_values
    ]


def final_metrics(search_state: SearchState) -> list[Metric]:
    """MLflow metrics of a finished search: test scores of the winner and the baselines."""
    finish = search_state.finish_event or {}
    tasks = ("verification", "matching", "retrieval", "mAP")
    return [
        Metric(
            metric_name(f"test/{task}/{_display_name(name)}"),
            value,
            milliseconds(finish["time"]),
            0,
        )
        for name, scores in finish.get("test", {}).items()
        for task, value in zip(tasks, scores, strict=True)
    ]


def dataset_input(search: Event, context: str) -> DatasetInput:
    """MLflow dataset input of the patch set, with its fingerprint as the digest."""
    facts = search["dataset"]
    dataset = Dataset(
        name=facts["name"],
        digest=facts["fingerprint"][:16],
        source_type="local",
        source=json.dumps({"uri": facts["path"]}),
        profile=facts["profile"],
    )
    return DatasetInput(dataset, tags=[InputTag("mlflow.data.context", context)])


@lru_cache(maxsize=1_000)
def metric_name(name: str) -> str:
    """Name of a metric in MLflow, with ``_`` for characters that it does not allow.

    Allowed are letters, digits and ``_-. :/``.

    Example:
        >>> metric_name("test/pixels 16×16"), metric_name("cost/flops")
        ('test/pixels 16x16', 'system/cost_flops')
        >>> metric_name("val/PSNR/easy")
        'val_restoration/PSNR/easy'
    """
    restored = RESTORATION_METRIC.fullmatch(name)
    if restored is not None:
        name = f"val_restoration/{restored[1]}"
    if name.startswith(SYSTEM_METRICS):
        name = f"system/{name.replace('/', '_')}"
    return re.sub(r"[^\w\-. :/]", "_", name.replace("×", "x"), flags=re.ASCII)


def milliseconds(seconds: float) -> int:
    """Milliseconds from seconds, MLflow's unit of time."""
    return round(1000 * seconds)


def _throughput(report: Event) -> dict[str, float]:
    seconds = report.get("seconds", 0.0)
    if seconds <= 0:
        return {}
    return {"system/seconds": seconds, "system/patches_per_second": report["seen"] / seconds}


def _strip_shared(config: BaseModel, shared: frozenset[str], path: str = "") -> Any:
    """Replace settings that all trials share by defaults, so that a title omits them."""
    changes = {}
    for name, field in type(config).model_fields.items():
        value, key = getattr(config, name), f"{path}{name}"
        default = field.get_default(call_default_factory=True)
        if key in ALWAYS_SHOWN:
            continue
        if key in shared and default is not PydanticUndefined:
            changes[name] = default
        elif isinstance(value, BaseModel):
            changes[name] = _strip_shared(value, shared, f"{key}.")
    return config.model_copy(update=changes)


def _shared_names(config: TrialConfig, fixed: Mapping[str, Flat]) -> frozenset[str]:
    """Names of settings, and of groups of settings, that have the same values in all trials."""
    flat = flatten(config)
    varying = [name for name, value in flat.items() if fixed.get(name) != value]
    names = {name.rsplit(".", depth)[0] for name in flat for depth in range(name.count(".") + 1)}
    return frozenset(
        name
        for name in names
        if not any(other == name or other.startswith(f"{name}.") for other in varying)
    )


def _source_of(search: Event) -> dict[str, str]:
    space, commit = search["params"].get("space"), search.get("tags", {}).get("git.commit")
    found = {SOURCE_NAME: space, SOURCE_TYPE: space and "LOCAL", SOURCE_COMMIT: commit}
    return {key: str(value) for key, value in found.items() if value}


def _display_name(name: str) -> str:
    return "winner" if name.startswith("winner") else name


def _run_tags(tags: Mapping[str, str]) -> list[RunTag]:
    return [RunTag(key, value) for key, value in tags.items()]
