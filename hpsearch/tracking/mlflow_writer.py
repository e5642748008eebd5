"""Writes events to MLflow runs and tracks what each run already contains."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from mlflow import MlflowClient
from mlflow.entities import Run as MlflowRun
from mlflow.entities import RunTag
from mlflow.exceptions import MlflowException

from hpsearch.config.formatting import Flat
from hpsearch.tracking import mlflow_mapping
from hpsearch.tracking.connection import Tracking
from hpsearch.tracking.event_log import Event
from hpsearch.tracking.mlflow_tags import (
    BENEATH,
    IDENTITY,
    KIND,
    MLFLOW_STATUS,
    OBJECTIVE,
    PARENT,
    SEARCH,
    STATUS,
    TRIAL,
    VIEW,
    view_name,
)
from hpsearch.tracking.run_state import Run, Told

PAGE = 500
SEARCH_RUN = ""
"""Stands for the search's own run where a trial's id is expected."""


@dataclass
class Mirror:
    """The runs of one search on one server."""

    tracking: Tracking
    search: str
    identity: str
    """Tells the search from another of the same name."""
    ids: dict[str, str] = field(default_factory=dict)
    """MLflow's run ids by trial."""
    created: set[str] = field(default_factory=set)
    """Trials whose run was made here."""

    @cached_property
    def client(self) -> MlflowClient:
        """The connection; opening it touches a database, but not a server."""
        return self.tracking.client()

    def look(self) -> None:
        """Learn the ids of all runs that are there, and delete second ones."""
        found: dict[str, list[MlflowRun]] = {}
        for run in self._all():
            found.setdefault(run.data.tags.get(TRIAL, SEARCH_RUN), []).append(run)
        for trial, runs in found.items():
            kept = self._kept(trial, runs)
            self.ids[trial] = kept
            for run in runs:
                if run.info.run_id != kept:
                    self.client.delete_run(run.info.run_id)

    def run_id(
        self, run: Run | None, *, name: str | None = None, started: float | None = None
    ) -> str:
        """The MLflow run of a trial, or of the search (None); made if there is none.

        Args:
            name: what to call it if it is made.
            started: when the search began, seconds since 1970.
        """
        trial = SEARCH_RUN if run is None else run.id
        if trial not in self.ids:
            runs = list(self._all(trial))
            self.ids[trial] = self._kept(trial, runs) if runs else self._create(run, name, started)
        return self.ids[trial]

    def run_of(self, identity: str) -> str | None:
        """The run of another search, if this server has it."""
        found = next(Mirror(self.tracking, "", identity)._all(SEARCH_RUN), None)
        return None if found is None else found.info.run_id

    def steps(self, trial: str) -> set[int]:
        """Patches seen at each report that MLflow has in whole."""
        if trial in self.created or trial not in self.ids:
            return set()
        history = self.client.get_metric_history(self.ids[trial], OBJECTIVE)
        return {point.step for point in history}

    def lay_out(self, view: str) -> None:
        """Save how the table of runs shows this search."""
        self.client.set_experiment_tag(self.experiment, VIEW + view_name(self.identity), view)

    def _create(self, run: Run | None, name: str | None, started: float | None) -> str:
        tags = {SEARCH: self.search, IDENTITY: self.identity, KIND: "search"}
        trial = SEARCH_RUN
        if run is not None:
            parent = self.run_id(None)
            tags |= {KIND: run.kind, TRIAL: run.id, PARENT: parent}
            trial, started = run.id, run.started
        moment = None if started is None else round(1000 * started)
        made = self.client.create_run(
            self.experiment, start_time=moment, tags=tags, run_name=name or self.search
        )
        self.created.add(trial)
        return made.info.run_id

    def _kept(self, trial: str, runs: Iterable[MlflowRun]) -> str:
        """The one that is written to, else the one with the most metrics."""
        by_id = {run.info.run_id: run for run in runs}
        if self.ids.get(trial) in by_id:
            return self.ids[trial]
        return min(by_id, key=lambda i: (-len(by_id[i].data.metrics), by_id[i].info.run_id))

    def _all(self, trial: str | None = None) -> Iterator[MlflowRun]:
        rule = f"tags.`{IDENTITY}` = '{self.identity}'"
        if trial == SEARCH_RUN:
            rule += f" and tags.`{KIND}` = 'search'"
        elif trial is not None:
            rule += f" and tags.`{TRIAL}` = '{trial}'"
        token = None
        while True:
            found = self.client.search_runs(
                [self.experiment], rule, max_results=PAGE, page_token=token
            )
            yield from found
            token = found.token
            if not token:
                return

    @cached_property
    def experiment(self) -> str:
        """Id of the experiment."""
        return self.tracking.experiment_id()


Progress = Callable[[int, int], None]
"""Called with the number of trials done, and of all."""


@dataclass
class Delivery:
    """What was brought."""

    runs: int = 0
    """Runs of the search, its own among them."""
    created: int = 0
    sent: int = 0
    """Reports; each is one point of every metric."""
    there: int = 0
    """Reports that MLflow had already."""


@dataclass
class Got:
    """What a run has got."""

    introduced: bool = False
    reports: int = 0
    state: tuple[str, ...] | None = None
    deleted: bool = False
    """By somebody in MLflow; nothing more is sent to it."""


@dataclass
class Courier:
    """Between one search and its runs on one server."""

    mirror: Mirror
    space: Path
    """The search's space file; uploaded if it is there."""
    told: Told = field(default_factory=Told)
    _got: dict[str, Got] = field(default_factory=dict)
    _view: str = ""
    _doubt: bool = True
    """Whether a request may have been carried out without our knowing."""

    def assume_delivered(self) -> None:
        """Take everything told so far as delivered, by an earlier process."""
        for run in self.told.runs.values():
            self._got[run.id] = Got(True, len(run.reports), _state(run))
        if self.told.search is not None:
            self._got[SEARCH_RUN] = Got(True, len(self.told.best), _end(self.told))

    def deliver(self, progress: Progress | None = None) -> Delivery:
        """Bring everything that has not been acknowledged; no request if there is nothing.

        Raises:
            MlflowException: if the server refuses or does not answer; what came through by then
                is known.
        """
        delivery, before = Delivery(), len(self.mirror.created)
        doubt, self._doubt = self._doubt, True
        self._unless_deleted(SEARCH_RUN, self._send_beginning)
        runs = list(self.told.runs.values())
        for number, run in enumerate(runs, 1):
            self._unless_deleted(run.id, lambda run=run: self._send_run(run, delivery))
            if progress:
                progress(number, len(runs))
        ended = self._unless_deleted(SEARCH_RUN, self._send_end)
        self._lay_out()
        if (doubt or ended) and self.mirror.ids:
            self.mirror.look()
        self._doubt = False
        delivery.runs = len(runs) + 1
        delivery.created = len(self.mirror.created) - before
        return delivery

    def _lay_out(self) -> None:
        view = mlflow_mapping.view(self.told, self.mirror.identity)
        if self.told.runs and view != self._view:
            self.mirror.lay_out(view)
            self._view = view

    def _unless_deleted(self, trial: str, send: Callable[[], bool | None]) -> bool:
        """Send to a run; one that somebody has deleted stays deleted and holds up no other."""
        got = self._got.setdefault(trial, Got())
        if got.deleted:
            return False
        try:
            return bool(send())
        except MlflowException as error:
            if "Current state is deleted" not in str(error):
                raise
            got.deleted = True
            return False

    def _send_beginning(self) -> None:
        got, search = self._got[SEARCH_RUN], self.told.search
        if got.introduced or search is None:
            return
        client = self.mirror.client
        parent = self.mirror.run_id(None, started=search["time"])
        tags = [*mlflow_mapping.search_tags(search), *self._above(search)]
        client.log_batch(parent, params=mlflow_mapping.search_params(search), tags=tags)
        client.log_inputs(parent, datasets=[mlflow_mapping.dataset_input(search, "search")])
        if self.space.is_file():
            client.log_artifact(parent, str(self.space))
        got.introduced = True

    def _above(self, search: Event) -> list[RunTag]:
        """Beneath which run the search's own stands, if beneath any; run ids are a server's."""
        identity = search.get("tags", {}).get(BENEATH)
        above = self.mirror.run_of(identity) if identity else None
        return [RunTag(PARENT, above)] if above else []

    def _send_end(self) -> bool:
        """The search's chart, and how it stands; whether it has just ended."""
        told, got, state = self.told, self._got[SEARCH_RUN], _end(self.told)
        points = mlflow_mapping.parent_points(told)[got.reports :]
        if told.search is None or (not points and state == got.state):
            return False
        client, parent = self.mirror.client, self.mirror.run_id(None)
        points += mlflow_mapping.test_points(told)
        client.log_batch(parent, metrics=points, tags=[RunTag(STATUS, state[1])])
        got.reports = len(told.best)
        if told.finish is not None:
            moment = mlflow_mapping.milliseconds(told.finish["time"])
            client.set_terminated(parent, status=state[0], end_time=moment)
        elif got.state != state:
            client.update_run(parent, status=state[0])
        got.state = state
        return told.finish is not None

    def _send_run(self, run: Run, delivery: Delivery) -> None:
        got, state = self._got[run.id], _state(run)
        if got.introduced and got.reports == len(run.reports) and got.state == state:
            return
        constants = (self.told.search or {}).get("constants", {})
        run_id = self.mirror.run_id(run, name=mlflow_mapping.run_name(run, constants))
        there = set() if got.introduced else self._introduce(run, run_id, constants)
        fresh = run.reports[got.reports :]
        missing = [report for report in fresh if report["seen"] not in there]
        tags = mlflow_mapping.state_tags(run) if state != got.state else []
        for metrics in mlflow_mapping.batches(missing):
            self.mirror.client.log_batch(run_id, metrics=metrics, tags=tags)
        got.introduced, got.reports = True, len(run.reports)
        delivery.sent += len(missing)
        delivery.there += len(fresh) - len(missing)
        if state != got.state:
            self._set_status(run, run_id)
            got.state = state

    def _introduce(self, run: Run, run_id: str, constants: Mapping[str, Flat]) -> set[int]:
        """Everything about a trial that does not change while it runs; what is there already."""
        client, search = self.mirror.client, self.told.search
        there = self.mirror.steps(run.id)
        tags = [RunTag(PARENT, self.mirror.run_id(None))]
        if search is not None:
            tags += mlflow_mapping.trial_tags(run, search)
            client.log_inputs(run_id, datasets=[mlflow_mapping.dataset_input(search, "train")])
        client.log_batch(run_id, params=mlflow_mapping.trial_params(run, constants), tags=tags)
        client.log_dict(run_id, run.config.model_dump(mode="json"), "config.json")
        return there

    def _set_status(self, run: Run, run_id: str) -> None:
        status, client = MLFLOW_STATUS[run.status], self.mirror.client
        if run.ended is None:
            client.update_run(run_id, status=status)
        else:
            client.set_terminated(run_id, status, end_time=mlflow_mapping.milliseconds(run.ended))


def _state(run: Run) -> tuple[str, ...]:
    return run.status, run.reason, str(run.retries), str(len(run.anew))


def _end(told: Told) -> tuple[str, str]:
    """How the search stands, in MLflow's word and in ours."""
    if told.finish is None:
        return "RUNNING", "running"
    status = told.finish["status"]
    return ("FINISHED" if status == "completed" else "KILLED"), status
