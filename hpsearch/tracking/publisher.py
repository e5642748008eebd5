"""Feeds MLflow from the ledger: one parent run a search, one child run a trial.

It runs beside the search in a thread of its own. A slow or dead tracking server holds up nothing:
events wait in the ledger and are sent in order when it answers. Runs are found again by their tags
and a point that is sent twice is stored once (same key, time, step and value), so sending from the
start again does no harm.
"""

import json
import tempfile
import threading
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from mlflow import MlflowClient
from mlflow.entities import Dataset, DatasetInput, InputTag, Metric, Param, RunTag
from mlflow.exceptions import MlflowException

from hpsearch.config.flat import flatten, title
from hpsearch.tracking.ledger import Event, Ledger
from hpsearch.tracking.names import KIND, MLFLOW_STATUS, PARENT, SEARCH, STATUS, TRIAL
from hpsearch.tracking.runs import Run, advance

EXPERIMENT = "hpsearch"
TrackingError = MlflowException
"""What a tracking server that refuses or does not answer raises."""


@dataclass(frozen=True, kw_only=True)
class Tracking:
    """Where runs go."""

    uri: str
    artifacts: str | None = None
    """Artifact location for a new experiment; None lets the server decide."""
    experiment: str = EXPERIMENT

    def client(self) -> MlflowClient:
        """A client of the tracking server and of the registry behind it."""
        return MlflowClient(tracking_uri=self.uri, registry_uri=self.uri)


@dataclass
class Publisher:
    """Sends what the ledger says to MLflow; ``sync`` does it now, ``start`` does it in a thread."""

    ledger: Ledger
    tracking: Tracking
    search: str
    position: Path
    """File that remembers how far the ledger has been sent."""
    _runs: dict[str, Run] = field(default_factory=dict)
    _ids: dict[str, str] = field(default_factory=dict)
    _stop: threading.Event = field(default_factory=threading.Event)
    _thread: threading.Thread | None = None
    last_error: str = ""

    def __post_init__(self) -> None:
        self._client: MlflowClient | None = None
        self._offset = 0

    def sync(self, *, again: bool = False) -> int:
        """Send every event that has not been sent; the number sent.

        Args:
            again: send from the start, for a tracking server that has lost what it had.

        Raises:
            MlflowException: if the tracking server refuses or does not answer.
        """
        self._catch_up(again=again)
        events, offset = self.ledger.read(self._offset)
        for event in events:
            self._send(event)
        self._offset = offset
        if events:
            self.position.write_text(json.dumps({"offset": offset, "uri": self.tracking.uri}))
        return len(events)

    def start(self) -> None:
        """Follow the ledger until ``stop``."""
        self._thread = threading.Thread(target=self._follow, name="mlflow", daemon=True)
        self._thread.start()

    def stop(self, *, patience: float = 30.0) -> bool:
        """Send what is left, for at most ``patience`` seconds; whether everything has been sent."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join(patience)
            if self._thread.is_alive():
                return False
        return not self.ledger.read(self._offset)[0]

    @property
    def parent(self) -> str:
        """Run id of the search."""
        return self._run_id(None)

    def run_id(self, trial: str) -> str:
        """Run id of a trial that the ledger knows."""
        return self._run_id(self._runs[trial])

    def attach(self, trial: str | None, name: str, content: bytes) -> None:
        """Store a file with a trial's run, or with the search's (None)."""
        run_id = self.parent if trial is None else self.run_id(trial)
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / Path(name).name
            path.write_bytes(content)
            inside = str(Path(name).parent) if "/" in name else None
            self._require().log_artifact(run_id, str(path), inside)

    def describe(self, text: str) -> None:
        """Set what MLflow shows first on the search's page (Markdown)."""
        self._require().set_tag(self.parent, "mlflow.note.content", text)

    def _follow(self) -> None:
        wait = 0.5
        while True:
            stopping = self._stop.is_set()
            try:
                self.sync()
                wait, self.last_error = 0.5, ""
            except (MlflowException, OSError) as error:
                self.last_error = str(error).splitlines()[0]
                wait = min(2 * wait, 10.0)
            if stopping:
                return
            self._stop.wait(wait)

    def _catch_up(self, *, again: bool) -> None:
        """Know the runs of what has been sent already, by an earlier process or this one."""
        if self._client is not None and not again:
            return
        self._client = self.tracking.client()
        self._runs, self._ids, self._offset = {}, {}, 0
        if again or not self.position.exists():
            return
        sent = json.loads(self.position.read_text())
        if sent["uri"] != self.tracking.uri:
            return
        for event in self.ledger.events_until(sent["offset"]):
            if "trial" in event:
                self._runs[event["trial"]] = advance(self._runs.get(event["trial"]), event)
        self._offset = sent["offset"]

    def _send(self, event: Event) -> None:
        if "trial" not in event:
            self._send_search(event)
            return
        before = self._runs.get(event["trial"])
        run = advance(before, event)
        run_id = self._run_id(run)
        match event["event"]:
            case "start":
                self._send_start(run, run_id, event)
            case "report" if before is None or run.seen > before.seen:
                self._log(run_id, metrics=_points(event))
            case "end":
                self._send_end(run, run_id, event)
        self._runs[event["trial"]] = run
        if event["event"] == "end":
            self._send_best(event)

    def _send_start(self, run: Run, run_id: str, event: Event) -> None:
        self._require().update_run(run_id, status="RUNNING")
        params = [Param(key, str(value)) for key, value in flatten(run.config).items()]
        tags = [RunTag(STATUS, "running"), RunTag("retries", str(run.retries))]
        self._log(run_id, params=params, tags=tags)
        if run.retries == 0:
            config = run.config.model_dump(mode="json")
            self._require().log_dict(run_id, config, "config.json")

    def _send_best(self, event: Event) -> None:
        """The incumbent on the parent, so that its charts are not empty."""
        ended = [run for run in self._runs.values() if run.kind == "trial" and run.ended]
        values = [run.reports[-1]["objective"] for run in ended if run.status == "completed"]
        if values:
            best = max(values) if self._direction == "maximize" else min(values)
            point = Metric("best/objective", best, _milliseconds(event), len(ended))
            self._log(self.parent, metrics=[point])

    @cached_property
    def _direction(self) -> str:
        return next(e for e in self.ledger.events() if e["event"] == "search")["direction"]

    def _send_end(self, run: Run, run_id: str, event: Event) -> None:
        tags = [RunTag(STATUS, run.status), RunTag("reason", run.reason)]
        self._log(run_id, tags=tags)
        self._require().set_terminated(
            run_id, status=MLFLOW_STATUS[run.status], end_time=_milliseconds(event)
        )

    def _send_search(self, event: Event) -> None:
        client, parent = self._require(), self._run_id(None)
        match event["event"]:
            case "search":
                client.update_run(parent, status="RUNNING")
                params = [Param(key, str(value)) for key, value in event["params"].items()]
                tags = [RunTag(key, value) for key, value in event.get("tags", {}).items()]
                self._log(parent, params=params, tags=tags)
                client.log_inputs(parent, datasets=[_dataset(event["dataset"], "search")])
            case "finish":
                self._log(parent, tags=[RunTag(STATUS, event["status"])])
                status = "FINISHED" if event["status"] == "completed" else "KILLED"
                client.set_terminated(parent, status=status, end_time=_milliseconds(event))

    def _log(self, run_id: str, **batch: Any) -> None:
        self._require().log_batch(run_id, **batch, synchronous=True)

    def _require(self) -> MlflowClient:
        assert self._client is not None, "sync opens the client"
        return self._client

    def _run_id(self, run: Run | None) -> str:
        key = "" if run is None else run.id
        if key not in self._ids:
            self._ids[key] = self._find(key) or self._create(run)
        return self._ids[key]

    def _find(self, trial: str) -> str | None:
        rule = f"tags.`{SEARCH}` = '{self.search}' and "
        rule += f"tags.`{TRIAL}` = '{trial}'" if trial else f"tags.`{KIND}` = 'search'"
        found = self._require().search_runs([self._experiment()], rule, max_results=1)
        return found[0].info.run_id if found else None

    def _create(self, run: Run | None) -> str:
        tags = {SEARCH: self.search, KIND: "search"}
        name, started = self.search, None
        if run is not None:
            tags = {SEARCH: self.search, KIND: run.kind, TRIAL: run.id, PARENT: self._run_id(None)}
            name, started = f"{run.label} {title(run.config)}", round(1000 * run.started)
        created = self._require().create_run(
            self._experiment(), start_time=started, tags=tags, run_name=name
        )
        return created.info.run_id

    def _experiment(self) -> str:
        client = self._require()
        found = client.get_experiment_by_name(self.tracking.experiment)
        if found is not None:
            return found.experiment_id
        return client.create_experiment(
            self.tracking.experiment, artifact_location=self.tracking.artifacts
        )


def _points(report: Event) -> list[Metric]:
    moment, seen = _milliseconds(report), report["seen"]
    values = {**report["metrics"], "objective": report["objective"]}
    return [Metric(key, value, moment, seen) for key, value in values.items()]


def _dataset(facts: dict[str, str], context: str) -> DatasetInput:
    dataset = Dataset(
        name=facts["name"],
        digest=facts["fingerprint"][:16],
        source_type="local",
        source=json.dumps({"uri": facts["path"]}),
        profile=facts["profile"],
    )
    return DatasetInput(dataset, tags=[InputTag("mlflow.data.context", context)])


def _milliseconds(event: Event) -> int:
    return round(1000 * event["time"])
