"""Mapping of events to MLflow parameters, metrics and tags."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from mlflow.entities import Dataset, DatasetInput, InputTag, Metric, Param, RunTag
from pydantic import BaseModel
from pydantic_core import PydanticUndefined

from hpsearch.config import TrialConfig
from hpsearch.config.formatting import ALWAYS, Flat, flatten, title
from hpsearch.tracking.event_log import Event
from hpsearch.tracking.mlflow_tags import (
    COMMIT,
    IDENTITY,
    KIND,
    OBJECTIVE,
    SOURCE,
    SOURCE_TYPE,
    STATUS,
)
from hpsearch.tracking.run_state import Run, Told

PACKAGES = ("hpsearch", "torch", "ray", "optuna", "mlflow", "numpy")


def versions() -> dict[str, str]:
    """By name: the code's commit, Python, and the packages that results depend on."""
    found = {"git.commit": commit(), "version.python": sys.version.split()[0]}
    for package in PACKAGES:
        try:
            found[f"version.{package}"] = version(package)
        except PackageNotFoundError:
            continue  # run from a checkout that is not installed
    return found


def commit() -> str:
    """The commit of the code, or ``unknown`` for an installed package."""
    command = ["git", "-C", str(Path(__file__).parent), "rev-parse", "HEAD"]
    try:
        found = subprocess.run(command, capture_output=True, text=True, timeout=5, check=False)
    except OSError:
        return "unknown"
    return found.stdout.strip() or os.environ.get("HPSEARCH_COMMIT", "unknown")


SHOWN_METRICS = (OBJECTIVE, "val/verification", "val/matching", "val/retrieval", "train/loss")
MOST_COLUMNS = 40
LARGEST_BATCH = 900
"""Points in one request, with room for the tags; MLflow takes 1,000 of all together."""
LONGEST_VALUE, LONGEST_NAME = 6000, 250
"""Characters of a parameter, and of a run's name, that MLflow keeps."""


def search_params(event: Event) -> list[Param]:
    """The search's own settings."""
    return [Param(key, str(value)) for key, value in event["params"].items()]


def trial_params(run: Run, constants: Mapping[str, Flat]) -> list[Param]:
    """Settings that are not the same in every trial of the space: the columns worth comparing."""
    flat = flatten(run.config).items()
    return [
        Param(key, str(value)[:LONGEST_VALUE])
        for key, value in flat
        if key not in constants or constants[key] != value
    ]


def run_name(run: Run, constants: Mapping[str, Flat]) -> str:
    """Number, loss, sampler, optimiser, and what else is not the same in every trial."""
    own = _without(run.config, _shared(run.config, constants))
    return f"{run.label} {title(own)}"[:LONGEST_NAME]


def search_tags(event: Event) -> list[RunTag]:
    """Versions of the code and its libraries, and where the search was defined."""
    tags = {key: str(value) for key, value in event.get("tags", {}).items()}
    return _tags({**tags, **_source(event)})


def trial_tags(run: Run, search: Event) -> list[RunTag]:
    """Where the trial came from, and its seed."""
    return _tags({"seed": str(run.config.seed), **_source(search)})


def state_tags(run: Run) -> list[RunTag]:
    """How the trial stands, or ended and why, and how often it went on or began anew."""
    anew = {"anew": str(len(run.anew))} if run.anew else {}
    return _tags({STATUS: run.status, "reason": run.reason, "retries": str(run.retries), **anew})


def view(told: Told, identity: str) -> str:
    """The trials of a search as a table: the best first, with the columns worth sorting by."""
    search = told.search or {}
    params: dict[str, None] = {}
    for run in told.runs.values():
        if run.kind == "trial":
            own = trial_params(run, search.get("constants", {}))
            params |= dict.fromkeys(param.key for param in own)
    columns = [
        "attributes.`Duration`",
        *(f"metrics.`{name}`" for name in SHOWN_METRICS),
        *(f"params.`{name}`" for name in list(params)[:MOST_COLUMNS]),
        f"tags.`{STATUS}`",
    ]
    facets = {
        "searchFilter": f"tags.`{IDENTITY}` = '{identity}' and tags.`{KIND}` = 'trial'",
        "orderByKey": f"metrics.`{OBJECTIVE}`",
        "orderByAsc": search.get("direction") == "minimize",
    }
    return json.dumps({**facets, "selectedColumns": columns})


def points(report: Event) -> list[Metric]:
    """Metrics of one report over patches seen; the objective first, where MLflow shows it first.

    Names with ``system/`` in front stand on MLflow's page of system metrics.
    """
    values = {OBJECTIVE: report["objective"], **report["metrics"], **_pace(report)}
    moment, seen = milliseconds(report["time"]), report["seen"]
    return [Metric(metric_name(key), value, moment, seen) for key, value in values.items()]


def batches(reports: Sequence[Event]) -> Iterator[list[Metric]]:
    """Points of whole reports, as many as MLflow stores at once: all of a report or nothing."""
    batch: list[Metric] = []
    for report in reports:
        more = points(report)
        if batch and len(batch) + len(more) > LARGEST_BATCH:
            yield batch
            batch = []
        batch += more
    yield batch


def parent_points(told: Told) -> list[Metric]:
    """The best completed trial after each trial that ended: the search's own chart."""
    return [
        Metric(f"best/{OBJECTIVE}", best.value, milliseconds(best.time), best.ended)
        for best in told.best
    ]


def test_points(told: Told) -> list[Metric]:
    """Scores on test of the winner and what it is compared with, once the search has finished."""
    finish = told.finish or {}
    tasks = ("verification", "matching", "retrieval", "mAP")
    return [
        Metric(metric_name(f"test/{task}/{_who(name)}"), value, milliseconds(finish["time"]), 0)
        for name, scores in finish.get("test", {}).items()
        for task, value in zip(tasks, scores, strict=True)
    ]


def dataset_input(search: Event, context: str) -> DatasetInput:
    """The patch set, with its fingerprint as the digest."""
    facts = search["dataset"]
    dataset = Dataset(
        name=facts["name"],
        digest=facts["fingerprint"][:16],
        source_type="local",
        source=json.dumps({"uri": facts["path"]}),
        profile=facts["profile"],
    )
    return DatasetInput(dataset, tags=[InputTag("mlflow.data.context", context)])


def metric_name(name: str) -> str:
    """A name as MLflow allows it: letters, digits, and ``_-. :/``."""
    return re.sub(r"[^\w\-. :/]", "_", name.replace("×", "x"), flags=re.ASCII)


def milliseconds(seconds: float) -> int:
    """MLflow's unit of time."""
    return round(1000 * seconds)


def _pace(report: Event) -> dict[str, float]:
    seconds = report.get("seconds", 0.0)
    if seconds <= 0:
        return {}
    return {"system/seconds": seconds, "system/patches_per_second": report["seen"] / seconds}


def _without(config: BaseModel, shared: frozenset[str], path: str = "") -> Any:
    """Defaults in place of what all trials share, so that a title leaves it out."""
    changes = {}
    for name, field in type(config).model_fields.items():
        value, key = getattr(config, name), f"{path}{name}"
        default = field.get_default(call_default_factory=True)
        if key in ALWAYS:
            continue
        if key in shared and default is not PydanticUndefined:
            changes[name] = default
        elif isinstance(value, BaseModel):
            changes[name] = _without(value, shared, f"{key}.")
    return config.model_copy(update=changes)


def _shared(config: TrialConfig, constants: Mapping[str, Flat]) -> frozenset[str]:
    """Names of settings, and of groups of them, that have the same values in all trials."""
    flat = flatten(config)
    varying = [name for name, value in flat.items() if constants.get(name) != value]
    names = {name.rsplit(".", depth)[0] for name in flat for depth in range(name.count(".") + 1)}
    return frozenset(
        name
        for name in names
        if not any(other == name or other.startswith(f"{name}.") for other in varying)
    )


def _source(search: Event) -> dict[str, str]:
    space, commit = search["params"].get("space"), search.get("tags", {}).get("git.commit")
    found = {SOURCE: space, SOURCE_TYPE: space and "LOCAL", COMMIT: commit}
    return {key: str(value) for key, value in found.items() if value}


def _who(name: str) -> str:
    return "winner" if name.startswith("winner") else name


def _tags(tags: Mapping[str, str]) -> list[RunTag]:
    return [RunTag(key, value) for key, value in tags.items()]
