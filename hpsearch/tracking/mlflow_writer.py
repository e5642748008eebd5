"""Writer of events to MLflow runs, which tracks what each run already contains."""

from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

from mlflow.entities import Param, RunTag
from mlflow.exceptions import MlflowException

from hpsearch.tracking import mlflow_mapping
from hpsearch.tracking.event_log import Event
from hpsearch.tracking.mlflow_run_index import SEARCH_RUN, MlflowRunIndex
from hpsearch.tracking.mlflow_tags import (
    MLFLOW_STATUS,
    PARENT_RUN_ID,
    PARENT_SEARCH_ID,
    STATUS_TAG,
)
from hpsearch.tracking.run_state import Run, SearchState

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
    may_have_duplicates: bool = True
    """True if a request may have succeeded although its response was lost, or another process may
    have written."""
    _sync_states: dict[str, RunSyncState] = field(default_factory=dict)
    _view: str = ""
    _columns: dict[str, None] = field(default_factory=dict)
    """Parameters of the runs whose columns the view has; of a dict's keys, which keep order."""
    _num_viewed: int = 0
    """Number of those runs, the first of the search."""

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
        doubt, self.may_have_duplicates = self.may_have_duplicates, True
        self.run_index.is_complete = not doubt
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
        self.may_have_duplicates = False
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
        is_new, params, tags, present = False, list[Param](), list[RunTag](), set[int]()
        if not got.created:
            is_new = not self.run_index.has(run.id)
            params, tags, present = self._create_trial_run(run)
        elif state != got.state:
            tags = mlflow_mapping.state_tags(run)
        run_id = self.run_index.run_id(run)
        fresh = run.reports[got.reports :]
        missing = [report for report in fresh if report["seen"] not in present]
        for metrics in mlflow_mapping.batches(missing, num_others=len(params) + len(tags)):
            self.run_index.client.log_batch(run_id, metrics=metrics, params=params, tags=tags)
            params, tags = [], []
        got.created, got.reports = True, len(run.reports)
        delivery.sent += len(missing)
        delivery.already_present += len(fresh) - len(missing)
        if state != got.state:
            self._set_status(run, run_id, is_new=is_new)
            got.state = state

    def _create_trial_run(self, run: Run) -> tuple[list[Param], list[RunTag], set[int]]:
        """Create a trial's run, or find it, and write what does not change during the trial.

        Returns:
            Parameters and tags that are still to be written, and the steps that MLflow holds.
        """
        index, search = self.run_index, self.search_state.search_event or {}
        constants = search.get("constants", {})
        tags = mlflow_mapping.trial_tags(run, search) if search else []
        tags += mlflow_mapping.state_tags(run)
        if index.has(run.id):
            artifact_uri, present = None, index.reported_steps(run.id)
            tags.append(RunTag(PARENT_RUN_ID, index.run_id(None)))
        else:
            name = mlflow_mapping.run_name(run, constants)
            artifact_uri = index.create(run, name=name, tags=tags).info.artifact_uri
            tags, present = [], set[int]()
        if search:
            inputs = [mlflow_mapping.dataset_input(search, "train")]
            index.client.log_inputs(index.run_id(run), datasets=inputs)
        index.upload_json(index.run_id(run), artifact_uri, "config.json", run.config)
        return mlflow_mapping.trial_params(run, constants), tags, present

    def _set_status(self, run: Run, run_id: str, *, is_new: bool) -> None:
        status, client = MLFLOW_STATUS[run.status], self.run_index.client
        if run.ended is not None:
            client.set_terminated(run_id, status, end_time=mlflow_mapping.milliseconds(run.ended))
        elif not (is_new and status == "RUNNING"):
            client.update_run(run_id, status=status)


def _run_state(run: Run) -> tuple[str, ...]:
    return run.status, run.reason, str(run.retries), str(len(run.restarted_attempts))


def _search_status(search_state: SearchState) -> tuple[str, str]:
    """Status of the search in MLflow's terms and in hpsearch's."""
    if search_state.finish_event is None:
        return "RUNNING", "running"
    status = search_state.finish_event["status"]
    return ("FINISHED" if status == "completed" else "KILLED"), status
