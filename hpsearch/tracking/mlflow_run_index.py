"""Index of the MLflow runs of one search: which exist, and what is created."""

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from tempfile import TemporaryDirectory

from mlflow import MlflowClient
from mlflow.entities import Run as MlflowRun
from mlflow.entities import RunTag
from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository
from pydantic import BaseModel

from hpsearch.tracking.connection import TrackingServer
from hpsearch.tracking.mlflow_tags import (
    OBJECTIVE_METRIC,
    PARENT_RUN_ID,
    PARENT_TRIAL_RUN_TAG,
    PARENT_TRIAL_TAG,
    RUN_KIND,
    SAVED_VIEW_PREFIX,
    SEARCH_ID,
    SEARCH_NAME_TAG,
    TRIAL_ID_TAG,
    saved_view_name,
)
from hpsearch.tracking.run_state import Run

PAGE_SIZE = 500
SEARCH_RUN = ""
"""Trial id that denotes the search's own run."""


@dataclass
class MlflowRunIndex:
    """Index of the runs of one search on one server."""

    tracking: TrackingServer
    search: str
    search_id: str
    """Unique id of the search."""
    ids: dict[str, str] = field(default_factory=dict)
    """MLflow's run ids by trial id."""
    created: set[str] = field(default_factory=set)
    """Ids of trials whose run this process has created."""
    is_complete: bool = False
    """True if ``ids`` has all runs that the server holds, so that a missing one is not there."""

    @cached_property
    def client(self) -> MlflowClient:
        """MLflow client; opening it connects to a database, but not to a server."""
        return self.tracking.client()

    def refresh(self) -> None:
        """Look up the ids of all existing runs, and delete duplicates."""
        found: dict[str, list[MlflowRun]] = {}
        for run in self._find_runs():
            found.setdefault(run.data.tags.get(TRIAL_ID_TAG, SEARCH_RUN), []).append(run)
        for trial, runs in found.items():
            kept = self._canonical_run(trial, runs)
            self.ids[trial] = kept
            for run in runs:
                if run.info.run_id != kept:
                    self.client.delete_run(run.info.run_id)
        self.is_complete = True

    def run_id(self, run: Run | None, *, started: float | None = None) -> str:
        """MLflow run id of a trial, or of the search (None); the run is created if missing.

        Args:
            run: the trial; None for the search.
            started: start of the search, seconds since 1970.
        """
        trial = SEARCH_RUN if run is None else run.id
        if not self.has(trial):
            self.create(run, started=started)
        return self.ids[trial]

    def has(self, trial: str) -> bool:
        """Return whether the server holds the run of a trial.

        It is asked for all runs of the search once, unless they are known.
        """
        if trial not in self.ids and not self.is_complete:
            self.refresh()
        return trial in self.ids

    def find_run(self, search_id: str) -> str | None:
        """MLflow run id of another search; None if this server does not have it."""
        found = next(MlflowRunIndex(self.tracking, "", search_id)._find_runs(SEARCH_RUN), None)
        return None if found is None else found.info.run_id

    def reported_steps(self, trial: str) -> set[int]:
        """Patches seen at each report that MLflow holds completely."""
        if trial in self.created or trial not in self.ids:
            return set()
        history = self.client.get_metric_history(self.ids[trial], OBJECTIVE_METRIC)
        return {point.step for point in history}

    def save_view(self, view: str) -> None:
        """Save the view of the table of runs for this search."""
        self.client.set_experiment_tag(
            self.experiment, SAVED_VIEW_PREFIX + saved_view_name(self.search_id), view
        )

    def create(
        self,
        run: Run | None,
        *,
        name: str | None = None,
        started: float | None = None,
        tags: Iterable[RunTag] = (),
    ) -> MlflowRun:
        """Create the run of a trial, or of the search (None), with its id among its tags.

        Args:
            run: the trial; None for the search.
            name: name of the run; None for the search's.
            started: start of the search, seconds since 1970.
            tags: further tags.
        """
        own = {SEARCH_NAME_TAG: self.search, SEARCH_ID: self.search_id, RUN_KIND: "search"}
        trial = SEARCH_RUN
        if run is not None:
            parent = self.run_id(None)
            own |= {RUN_KIND: run.kind, TRIAL_ID_TAG: run.id, PARENT_RUN_ID: parent}
            if run.parent is not None:
                own |= {PARENT_TRIAL_TAG: run.parent}
                own |= {PARENT_TRIAL_RUN_TAG: self.ids.get(run.parent, "")}
            trial, started = run.id, run.started
        moment = None if started is None else round(1000 * started)
        made = self.client.create_run(
            self.experiment,
            start_time=moment,
            tags=own | {tag.key: tag.value for tag in tags},
            run_name=name or self.search,
        )
        self.created.add(trial)
        self.ids[trial] = made.info.run_id
        return made

    def upload_json(
        self, run_id: str, artifact_uri: str | None, name: str, content: BaseModel
    ) -> None:
        """Upload a JSON file to a run, as ``MlflowClient.log_dict`` does.

        Args:
            run_id: MLflow's id of the run.
            artifact_uri: location of the run's files, where a response has just given it, which
                spares the client from reading the run again; None if it is unknown.
            name: name of the file.
            content: its content.
        """
        fields = content.model_dump(mode="json")
        if artifact_uri is None or self.tracking.uri.startswith("databricks"):
            self.client.log_dict(run_id, fields, name)
            return
        with TemporaryDirectory() as folder:
            file = Path(folder) / name
            file.write_text(json.dumps(fields, indent=2), "utf-8")
            files = get_artifact_repository(artifact_uri, tracking_uri=self.tracking.uri)
            files.log_artifact(str(file))

    def _canonical_run(self, trial: str, runs: Iterable[MlflowRun]) -> str:
        """Choose among duplicates: the run in use, else the one with the most metrics."""
        by_id = {run.info.run_id: run for run in runs}
        if self.ids.get(trial) in by_id:
            return self.ids[trial]
        return min(by_id, key=lambda i: (-len(by_id[i].data.metrics), by_id[i].info.run_id))

    def _find_runs(self, trial: str | None = None) -> Iterator[MlflowRun]:
        rule = f"tags.`{SEARCH_ID}` = '{self.search_id}'"
        if trial == SEARCH_RUN:
            rule += f" and tags.`{RUN_KIND}` = 'search'"
        token = None
        while True:
            found = self.client.search_runs(
                [self.experiment], rule, max_results=PAGE_SIZE, page_token=token
            )
            yield from found
            token = found.token
            if not token:
                return

    @cached_property
    def experiment(self) -> str:
        """MLflow's id of the experiment."""
        return self.tracking.experiment_id()
