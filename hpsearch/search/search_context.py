"""One search for one command: where its files lie, and what they hold, each read once."""

import fcntl
import os
import shlex
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NoReturn

from hpsearch.atomic_files import acquire_lock, check_target_file
from hpsearch.config.custom_source import search_sources
from hpsearch.data.patch_store import PatchStore
from hpsearch.data.splits import TrialSplit
from hpsearch.defaults import DEFAULT_HOME
from hpsearch.errors import UserError
from hpsearch.locations import home_address
from hpsearch.object_storage.lease import require_driver
from hpsearch.search.constraints import cost_metrics
from hpsearch.search.objective import Objective
from hpsearch.search.overrides import with_overrides
from hpsearch.search.resources import Resources
from hpsearch.search.search import Search
from hpsearch.search.search_data import SearchData
from hpsearch.search.search_record import SearchRecord
from hpsearch.search.space_file import load_search
from hpsearch.search.stopping import runs_are_out_of_patience
from hpsearch.tracking.connection import TrackingServer, resolve_tracking
from hpsearch.tracking.event_log import EventLog
from hpsearch.tracking.mlflow_tags import SPACE_NAME, default_uri
from hpsearch.tracking.run_state import UNFINISHED, Run, SearchState, SearchStateReader
from hpsearch.training.artifact_cache import ArtifactCache

if TYPE_CHECKING:
    from hpsearch.tracking.mlflow_sync import MlflowSync
    from hpsearch.tracking.model_registry import Registry
    from hpsearch.training.trial import TrialEnvironment

SEARCHES_DIR, SCORES_FILE, TRACKING_URI_ENV = "searches", "test_scores.json", "MLFLOW_TRACKING_URI"


def tracking_server(
    home: Path, uri: str | None = None, *, read_only: bool = False
) -> TrackingServer:
    """MLflow at ``uri``, else at MLFLOW_TRACKING_URI, else in SQLite in the home folder.

    Raises:
        UserError: if that is not the address of a server or a database.
    """
    address = uri or os.environ.get(TRACKING_URI_ENV) or default_uri(home)
    return resolve_tracking(address, home, read_only=read_only)


def artifact_cache(home: Path) -> ArtifactCache:
    """Denoisers and other results that trials share, in the home folder."""
    return ArtifactCache(str((home / "artifacts").absolute()))


@dataclass(frozen=True)
class SearchPaths:
    """Paths of the files of one search; computed only, nothing is read or written.

    Args:
        home: folder of data, searches and MLflow's files.
        name: name of the search.

    Example:
        >>> SearchPaths(Path("runs"), "quickstart").trials_dir.as_posix()
        'runs/searches/quickstart/trials'
    """

    home: Path
    name: str

    @property
    def folder(self) -> Path:
        """Folder of everything that belongs to the search alone."""
        return self.home / SEARCHES_DIR / self.name

    @property
    def space(self) -> Path:
        """Copy of the space file that the search runs."""
        return self.folder / SPACE_NAME

    @property
    def trials_dir(self) -> Path:
        """Folder of the trials; each has a folder there, named by its id, for its checkpoint."""
        return self.folder / "trials"

    @property
    def event_log(self) -> Path:
        """File of the event log."""
        return self.folder / "ledger.jsonl"

    @property
    def sync_state(self) -> Path:
        """File that remembers how much of the event log each MLflow server has received."""
        return self.folder / "published.json"

    @property
    def test_scores(self) -> Path:
        """File of the test scores of winner and baselines, once the search has finished."""
        return self.folder / SCORES_FILE

    @property
    def lock(self) -> Path:
        """File that the process which runs the search holds locked."""
        return self.folder / "lock"

    @property
    def home_option(self) -> str:
        """Option that makes a command find this search; empty for the default home."""
        return (
            "" if self.home == DEFAULT_HOME else f" --home {shlex.quote(home_address(self.home))}"
        )

    def command(self, verb: str, *options: str) -> str:
        """Command line that a user can copy to do something to this search."""
        return f"{shlex.join(['hpsearch', verb, self.name, *options])}{self.home_option}"


STORE_FIELDS = frozenset(
    f"{part}{field}" for part in ("", "validation_", "test_") for field in ("store", "fingerprint")
)
RECORD_FIELDS: Mapping[str, frozenset[str]] = MappingProxyType(
    {
        "search": frozenset({"overrides"}),
        "_state_reader": frozenset(),
        "store": frozenset({"store", "fingerprint"}),
        "data": STORE_FIELDS | {"split"},
        "resources": frozenset({"resources"}),
    }
)
"""Fields of the record that each cached property of ``SearchContext`` depends on."""


@dataclass(frozen=True)
class SearchContext:
    """A search on disk, as one command sees it.

    The space file, the patch store, the split and the resources are loaded at first use and kept;
    the space file is the user's program and is executed once. ``runs`` reads what the event log
    has gained since it was last asked for. A context stays in the process that opened it.

    Args:
        paths: paths of its files.
        record: what it was started with.

    Example:
        >>> from hpsearch.search.workspace import Workspace
        >>> context = Workspace(Path("runs")).open("quickstart")  # doctest: +SKIP
        >>> [run.status for run in context.runs]  # doctest: +SKIP
        ['completed', 'pruned']
    """

    paths: SearchPaths
    record: SearchRecord

    @property
    def name(self) -> str:
        """Name of the search."""
        return self.paths.name

    @property
    def home(self) -> Path:
        """Home folder of the search."""
        return self.paths.home

    @property
    def home_option(self) -> str:
        """Option that makes a command find this search; empty for the default home."""
        return self.paths.home_option

    def command(self, verb: str, *options: str) -> str:
        """Command line that a user can copy to do something to this search."""
        return self.paths.command(verb, *options)

    @cached_property
    def search(self) -> Search:
        """Settings of the space file and the overrides.

        Raises:
            UserError: if the file does not run, or exports no search.
        """
        return with_overrides(load_search(self.paths.space), self.record.overrides)

    @property
    def objective(self) -> Objective:
        """Metric that is optimized."""
        return self.search.objective

    @cached_property
    def store(self) -> PatchStore:
        """Patch store that the search began with.

        Raises:
            UserError: if it is gone, or has changed.
        """
        return self._open_store(self.record.store, self.record.fingerprint)

    @cached_property
    def data(self) -> SearchData:
        """Patches that it trains, validates and tests on; raises what ``store`` raises."""
        record, others = self.record, {}
        if record.validation_store is not None:
            others["validation_store"] = self._open_store(
                record.validation_store, record.validation_fingerprint
            )
        if record.test_store is not None:
            others["test_store"] = self._open_store(record.test_store, record.test_fingerprint)
        return SearchData.divide(self.store, record.split, **others)

    @property
    def split(self) -> TrialSplit:
        """Sequences of the store that train, validate and test."""
        return self.data.split

    def _open_store(self, path: str, fingerprint: str | None) -> PatchStore:
        store = PatchStore.open(path)
        if store.fingerprint != fingerprint:
            what = f"{path} has changed since search {self.name!r} began"
            raise UserError(f"{what}; restore it, or start a new search")
        return store

    @cached_property
    def resources(self) -> Resources:
        """Resources that each trial requests."""
        return self.record.resources.with_default_device(self.search.compute.device)

    @property
    def environment(self) -> "TrialEnvironment":
        """Environment that all trials of the search share, with an artifact cache without costs."""
        from hpsearch.training.trial import TrialEnvironment

        return TrialEnvironment(
            store=self.store,
            split=self.split,
            validation_on=self.data.validation_on,
            artifacts=artifact_cache(self.home),
            report_every=self.search.report_every,
            validation_points=self.search.validation_points,
            computing=self.search.compute,
            costs=cost_metrics(self.search.objectives, self.search.promotion_gates),
            sources=search_sources(self.paths.space, self.search.folder),
        )

    @property
    def event_log(self) -> EventLog:
        """Event log of the search."""
        return EventLog(self.paths.event_log)

    @cached_property
    def _state_reader(self) -> SearchStateReader:
        return SearchStateReader(self.event_log)

    @property
    def state(self) -> SearchState:
        """State of the search by now.

        Raises:
            UserError: if the event log is damaged, or a newer hpsearch began it.
        """
        return self._state_reader.read()

    @property
    def runs(self) -> list[Run]:
        """Trials and baselines so far, by number; raises what ``state`` raises."""
        return self.state.ordered_runs

    @property
    def is_complete(self) -> bool:
        """True if no trial is left to train."""
        final = [run for run in self.runs if run.status not in UNFINISHED]
        enough = sum(run.kind == "trial" for run in final) >= self.record.trials
        return enough or runs_are_out_of_patience(
            self.runs, self.search, patience_offset=self.record.patience_offset
        )

    @property
    def is_scored(self) -> bool:
        """True if the search has finished but for its registration and figures."""
        completed = (self.state.finish_event or {}).get("status") == "completed"
        return completed and self.paths.test_scores.exists()

    def tracking(self, *, read_only: bool = False) -> TrackingServer:
        """MLflow server or database that receives the runs."""
        return tracking_server(self.home, self.record.tracking_uri, read_only=read_only)

    def mlflow_sync(self) -> "MlflowSync":
        """Sender of the event log to MLflow."""
        from hpsearch.tracking.mlflow_sync import MlflowSync

        return MlflowSync(self.event_log, self.tracking(), self.name, self.paths.sync_state)

    def registry(self) -> "Registry":
        """Registry of the search's models."""
        from hpsearch.tracking.model_registry import Registry

        return Registry(tracking=self.tracking(), model=self.record.model)

    @contextmanager
    def lock(self, *, shared: bool = False) -> Iterator[None]:
        """Hold the search until this process ends, alone or ``shared`` by all that ask for trials.

        Raises:
            UserError: if another process holds it, or the home cannot be written.
        """
        require_driver(self.home)
        check_target_file(self.paths.lock, "--home")
        with self.paths.lock.open("w") as file:
            try:
                acquire_lock(file, fcntl.LOCK_SH if shared else fcntl.LOCK_EX)
            except OSError as error:
                raise UserError(
                    f"search {self.name!r} is running in another process; wait for its end, or "
                    "stop it with Ctrl-C there",
                    code="search-running",
                ) from error
            yield

    def changed(self, **fields: Any) -> "SearchContext":
        """Context with another record, which is not written; keeps what is loaded.

        Args:
            fields: fields of the record that change.
        """
        new = replace(self, record=self.record.model_copy(update=fields))
        for name, needed in RECORD_FIELDS.items():
            if name in self.__dict__ and not needed & fields.keys():
                new.__dict__[name] = self.__dict__[name]
        return new

    def with_record(self, **fields: Any) -> "SearchContext":
        """Context as of ``changed``, whose record is written."""
        new = self.changed(**fields)
        new.record.write(self.paths.folder)
        return new

    def with_search(self, search: Search) -> "SearchContext":
        """Context with a search that is loaded already, so that its space file is not executed."""
        new = self.changed(resources=self.record.resources)  # they depend on the search as well
        new.__dict__["search"] = search
        return new

    def __reduce__(self) -> NoReturn:
        raise TypeError("a SearchContext cannot be pickled; send its paths or its record instead")
