"""A search's runs as MLflow has them: found again by their tags, and one of each.

A request to create a run may be carried out although its answer was lost, so a second one of the
same trial can appear at any time. The one with the most metrics is kept and written to; the others
are deleted, which in MLflow can be undone.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import cached_property

from mlflow import MlflowClient
from mlflow.entities import Run as MlflowRun

from hpsearch.tracking.names import (
    IDENTITY,
    KIND,
    OBJECTIVE,
    PARENT,
    SEARCH,
    TRIAL,
    VIEW,
    view_name,
)
from hpsearch.tracking.runs import Run
from hpsearch.tracking.server import Tracking

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
