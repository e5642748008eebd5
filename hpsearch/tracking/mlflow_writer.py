"""Writer of events to MLflow runs, which tracks what each run already contains."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from itertools import islice
from pathlib import Path

from mlflow import MlflowClient
from mlflow.entities import Run as MlflowRun
from mlflow.entities import RunTag
from mlflow.exceptions import MlflowException

from hpsearch.config.formatting import Flat
from hpsearch.tracking import mlflow_mapping
from hpsearch.tracking.connection import TrackingServer
from hpsearch.tracking.event_log import Event
from hpsearch.tracking.mlflow_tags import (
    MLFLOW_STATUS,
    OBJECTIVE_METRIC,
    PARENT_RUN_ID,
    PARENT_SEARCH_ID,
    PARENT_TRIAL_RUN_TAG,
    PARENT_TRIAL_TAG,
    RUN_KIND,
    SAVED_VIEW_PREFIX,
    SEARCH_ID,
    SEARCH_NAME_TAG,
    STATUS_TAG,
    TRIAL_ID_TAG,
    saved_view_name,
)
from hpsearch.tracking.run_state import Run, SearchState

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

    def run_id(
        self, run: Run | None, *, name: str | None = None, started: float | None = None
    ) -> str:
        """MLflow run id of a trial, or of the search (None); the run is created if missing.

        Args:
            run: the trial; None for the search.
            name: name of a run that is created.
            started: start of the search, seconds since 1970.
        """
        trial = SEARCH_RUN if run is None else run.id
        if trial not in self.ids:
            runs = list(self._find_runs(trial))
            self.ids[trial] = (
                self._canonical_run(trial, runs) if runs else self._create_run(run, name, started)
            )
        return self.ids[trial]

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

    def _create_run(self, run: Run | None, name: str | None, started: float | None) -> str:
        tags = {SEARCH_NAME_TAG: self.search, SEARCH_ID: self.search_id, RUN_KIND: "search"}
        trial = SEARCH_RUN
        if run is not None:
            parent = self.run_id(None)
            tags |= {RUN_KIND: run.kind, TRIAL_ID_TAG: run.id, PARENT_RUN_ID: parent}
            if run.parent is not None:
                tags |= {PARENT_TRIAL_TAG: run.parent}
                tags |= {PARENT_TRIAL_RUN_TAG: self.ids.get(run.parent, "")}
            trial, started = run.id, run.started
        moment = None if started is None else round(1000 * started)
        made = self.client.create_run(
            self.experiment, start_time=moment, tags=tags, run_name=name or self.search
        )
        self.created.add(trial)
        return made.info.run_id

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
        elif trial is not None:
            rule += f" and tags.`{TRIAL_ID_TAG}` = '{trial}'"
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


SyncProgress = Callable[[int, int], None]
"""Callback with the number of trials sent and the number of all."""


@dataclass
class SyncResult:
    """Counts of what a synchronization sent."""

    runs: int = 0
    """Runs of the search, including its own."""
    created: int = 0
    sent: int = 0
    """Reports sent; each is one value of every metric."""
    already_present: int = 0
    """Reports that MLflow held already."""


@dataclass
class RunSyncState:
    """State of one MLflow run: what has been written to it."""

    created: bool = False
    reports: int = 0
    state: tuple[str, ...] | None = None
    deleted: bool = False
    """True if a user deleted the run in MLflow; nothing more is written to it."""


@dataclass
class MlflowWriter:
    """Writer of one search's events to its runs on one server."""

    run_index: MlflowRunIndex
    space_path: Path
    """The search's space file; uploaded if it exists."""
    search_state: SearchState = field(default_factory=SearchState)
    _sync_states: dict[str, RunSyncState] = field(default_factory=dict)
    _view: str = ""
    _columns: dict[str, None] = field(default_factory=dict)
    """Parameters of the runs whose columns the view has; of a dict's keys, which keep order."""
    _num_viewed: int = 0
    """Number of those runs, the first of the search."""
    _may_have_duplicates: bool = True
    """True if a request may have succeeded although its response was lost."""

    def mark_synced(self) -> None:
        """Mark all events so far as written by an earlier process."""
        for run in self.search_state.runs.values():
            self._sync_states[run.id] = RunSyncState(True, len(run.reports), _run_state(run))
        self.search_state.changed.clear()
        if self.search_state.search_event is not None:
            self._sync_states[SEARCH_RUN] = RunSyncState(
                True, len(self.search_state.best), _search_status(self.search_state)
            )

    def flush(self, progress: SyncProgress | None = None) -> SyncResult:
        """Write everything that has not been acknowledged; no request if there is nothing.

        Raises:
            MlflowException: if the server refuses or does not answer; what it acknowledged before
                is not sent again.
        """
        delivery, before = SyncResult(), len(self.run_index.created)
        doubt, self._may_have_duplicates = self._may_have_duplicates, True
        self._unless_deleted(SEARCH_RUN, self._create_search_run)
        state = self.search_state
        runs = [state.runs[trial] for trial in (state.runs if progress else state.changed)]
        for number, run in enumerate(runs, 1):
            self._unless_deleted(run.id, lambda run=run: self._send_run(run, delivery))
            if progress:
                progress(number, len(runs))
        ended = self._unless_deleted(SEARCH_RUN, self._send_end)
        self._update_view()
        if (doubt or ended) and self.run_index.ids:
            self.run_index.refresh()
        self._may_have_duplicates = False
        state.changed.clear()
        delivery.runs = len(state.runs) + 1
        delivery.created = len(self.run_index.created) - before
        return delivery

    def _update_view(self) -> None:
        state, search = self.search_state, self.search_state.search_event or {}
        new = list(islice(state.runs.values(), self._num_viewed, None))
        if not new:
            return
        names = mlflow_mapping.param_names(new, search.get("constants", {}))
        columns = self._columns | dict.fromkeys(names)
        view = mlflow_mapping.saved_view(search, self.run_index.search_id, columns)
        if view != self._view:
            self.run_index.save_view(view)
        self._view, self._columns, self._num_viewed = view, columns, len(state.runs)

    def _unless_deleted(self, trial: str, send: Callable[[], bool | None]) -> bool:
        """Write to a run unless a user has deleted it, which does not affect other runs."""
        got = self._sync_states.setdefault(trial, RunSyncState())
        if got.deleted:
            return False
        try:
            return bool(send())
        except MlflowException as error:
            if "Current state is deleted" not in str(error):
                raise
            got.deleted = True
            return False

    def _create_search_run(self) -> None:
        got, search = self._sync_states[SEARCH_RUN], self.search_state.search_event
        if got.created or search is None:
            return
        client = self.run_index.client
        parent = self.run_index.run_id(None, started=search["time"])
        tags = [*mlflow_mapping.search_tags(search), *self._parent_tags(search)]
        client.log_batch(parent, params=mlflow_mapping.search_params(search), tags=tags)
        client.log_inputs(parent, datasets=[mlflow_mapping.dataset_input(search, "search")])
        if self.space_path.is_file():
            client.log_artifact(parent, str(self.space_path))
        got.created = True

    def _parent_tags(self, search: Event) -> list[RunTag]:
        """Tag with the parent run on this server, if the search has a parent search."""
        search_id = search.get("tags", {}).get(PARENT_SEARCH_ID)
        above = self.run_index.find_run(search_id) if search_id else None
        return [RunTag(PARENT_RUN_ID, above)] if above else []

    def _send_end(self) -> bool:
        """Write metrics and status of the search; return whether it has just finished."""
        search_state, got, state = (
            self.search_state,
            self._sync_states[SEARCH_RUN],
            _search_status(self.search_state),
        )
        points = mlflow_mapping.search_metrics(search_state.best[got.reports :])
        if search_state.search_event is None or (not points and state == got.state):
            return False
        client, parent = self.run_index.client, self.run_index.run_id(None)
        points += mlflow_mapping.final_metrics(search_state)
        client.log_batch(parent, metrics=points, tags=[RunTag(STATUS_TAG, state[1])])
        got.reports = len(search_state.best)
        if search_state.finish_event is not None:
            moment = mlflow_mapping.milliseconds(search_state.finish_event["time"])
            client.set_terminated(parent, status=state[0], end_time=moment)
        elif got.state != state:
            client.update_run(parent, status=state[0])
        got.state = state
        return search_state.finish_event is not None

    def _send_run(self, run: Run, delivery: SyncResult) -> None:
        got, state = self._sync_states[run.id], _run_state(run)
        if got.created and got.reports == len(run.reports) and got.state == state:
            return
        constants = (self.search_state.search_event or {}).get("constants", {})
        name = None if run.id in self.run_index.ids else mlflow_mapping.run_name(run, constants)
        run_id = self.run_index.run_id(run, name=name)
        present = set() if got.created else self._create_trial_run(run, run_id, constants)
        fresh = run.reports[got.reports :]
        missing = [report for report in fresh if report["seen"] not in present]
        tags = mlflow_mapping.state_tags(run) if state != got.state else []
        for metrics in mlflow_mapping.batches(missing):
            self.run_index.client.log_batch(run_id, metrics=metrics, tags=tags)
        got.created, got.reports = True, len(run.reports)
        delivery.sent += len(missing)
        delivery.already_present += len(fresh) - len(missing)
        if state != got.state:
            self._set_status(run, run_id)
            got.state = state

    def _create_trial_run(self, run: Run, run_id: str, constants: Mapping[str, Flat]) -> set[int]:
        """Write what does not change during a trial; return the steps that MLflow already holds."""
        client, search = self.run_index.client, self.search_state.search_event
        present = self.run_index.reported_steps(run.id)
        tags = [RunTag(PARENT_RUN_ID, self.run_index.run_id(None))]
        if search is not None:
            tags += mlflow_mapping.trial_tags(run, search)
            client.log_inputs(run_id, datasets=[mlflow_mapping.dataset_input(search, "train")])
        client.log_batch(run_id, params=mlflow_mapping.trial_params(run, constants), tags=tags)
        client.log_dict(run_id, run.config.model_dump(mode="json"), "config.json")
        return present

    def _set_status(self, run: Run, run_id: str) -> None:
        status, client = MLFLOW_STATUS[run.status], self.run_index.client
        if run.ended is None:
            client.update_run(run_id, status=status)
        else:
            client.set_terminated(run_id, status, end_time=mlflow_mapping.milliseconds(run.ended))


def _run_state(run: Run) -> tuple[str, ...]:
    return run.status, run.reason, str(run.retries), str(len(run.restarted_attempts))


def _search_status(search_state: SearchState) -> tuple[str, str]:
    """Status of the search in MLflow's terms and in hpsearch's."""
    if search_state.finish_event is None:
        return "RUNNING", "running"
    status = search_state.finish_event["status"]
    return ("FINISHED" if status == "completed" else "KILLED"), status
