"""Where everything lies: one folder with the data, the searches, and MLflow's files."""

import fcntl
import os
import shlex
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

from pydantic import Field

from hpsearch.atomic_files import make_private, write_atomic
from hpsearch.config.base import FrozenConfig
from hpsearch.data.arrow_header import StoreProgress
from hpsearch.data.builtin_sets import BUILTIN_SETS, check_exists, open_builtin
from hpsearch.data.patch_store import PatchStore
from hpsearch.data.splits import TrialSplit
from hpsearch.defaults import DEFAULT_HOME, DEFAULT_MODEL_NAME
from hpsearch.errors import UserError
from hpsearch.locations import located, moved, recorded
from hpsearch.redaction import redacted, refuse_password
from hpsearch.schema import KEY, parsed, to_json, unstamped
from hpsearch.search.resources import Resources
from hpsearch.search.search import Search, load_search
from hpsearch.search.stopping import Limits
from hpsearch.tracking.connection import TrackingServer, resolve_tracking
from hpsearch.tracking.event_log import EventLog
from hpsearch.tracking.mlflow_sync import MlflowSync
from hpsearch.tracking.mlflow_tags import SPACE_NAME, default_uri, is_server
from hpsearch.tracking.relocation import former_homes
from hpsearch.tracking.run_state import Run, runs_from
from hpsearch.training.artifact_cache import ArtifactCache
from hpsearch.training.trial import TrialEnvironment
from hpsearch.untrusted import check_name, name_from, reading

RECORD_FILE = "search.json"
ADDRESSES = ("store", "tracking_uri", "study", "space_path")
"""What is written down relative to the home, where it lies inside."""


class SearchRecord(FrozenConfig):
    """What a search was started with, beside its space."""

    former_names: ClassVar[Mapping[str, str]] = {
        "max_concurrent_trials": "concurrent",
        "wait_for_nodes": "wait",
        "space_path": "origin",
        "report_timeout": "hang_after",
        "warm_start_from": "warm_from",
        "patience_offset": "forgiven",
    }

    space: str
    store: str
    """Path of the patch store."""
    fingerprint: str
    split: str
    tracking_uri: str
    model: str = DEFAULT_MODEL_NAME
    trials: int
    max_concurrent_trials: int | None = None
    cpus: int | None = None
    address: str | None = None
    wait_for_nodes: bool = False
    """Whether a session asks the cluster for nodes that it needs, and waits for them."""
    space_path: str | None = None
    """The space file that was copied; None if changes of it are of no interest any more."""
    limits: Limits = Limits()
    resources: Resources = Resources()
    report_timeout: float | None = Field(default=None, gt=0)
    """Seconds without a report after which a trial hangs; None to judge by the others."""
    study: str | None = None
    """Storage of the study, if it is not a file in the search's folder."""
    warm_start_from: str | None = None
    """An earlier search that the sampler knows."""
    patience_offset: int = 0
    """Trials that had ended when the search was last extended; patience is counted from there."""

    def addresses(self) -> dict[str, str | None]:
        """What of it is an address, by the option that gives it."""
        return {
            "--study": self.study,
            "--tracking-uri": self.tracking_uri,
            "--address": self.address,
            "--warm-start-from": self.warm_start_from,
            "--data": self.store,
        }

    @classmethod
    def read(cls, folder: Path) -> "SearchRecord":
        """As it was last written, with addresses as they are where its home lies now.

        Raises:
            UserError: if it is damaged, or a newer hpsearch wrote it.
        """
        path = folder / RECORD_FILE
        with reading(path, "record of a search", "restore it from a copy"):
            content = parsed(path.read_text(), path)
            record = cls.model_validate(unstamped(content, path))
        home = folder.absolute().parents[1]
        if KEY in content:
            return record._with_addresses(lambda address: located(address, home))
        former = record._former_homes(home)
        return record._with_addresses(lambda address: moved(address, home, former))

    def write(self, folder: Path) -> None:
        """Whole or not at all, for its owner alone, without a password.

        What lies inside its home is recorded relative to it.
        """
        kept = self.model_copy(update={"tracking_uri": redacted(self.tracking_uri)})
        home = folder.absolute().parents[1]
        kept = kept._with_addresses(lambda address: recorded(address, home))
        write_atomic(
            folder / RECORD_FILE, to_json(kept.model_dump(mode="json"), indent=1), private=True
        )

    def _with_addresses(self, change: Callable[[str], str]) -> "SearchRecord":
        addresses = {name: getattr(self, name) for name in ADDRESSES}
        return self.model_copy(
            update={
                name: change(address)
                for name, address in addresses.items()
                if address and not is_server(address)
            }
        )

    def _former_homes(self, home: Path) -> tuple[Path, ...]:
        """Where the home lay before; if MLflow's database cannot say it, as this record does."""
        data = Path(self.store).parent
        own = (home / data.name / Path(self.store).name).is_file()
        says = own and self.tracking_uri == default_uri(data.parent)
        return (*former_homes(home), *((data.parent,) if says else ()))


TRACKING_URI_ENV = "MLFLOW_TRACKING_URI"


@dataclass(frozen=True)
class Workspace:
    """The folder that ``--home`` names; ``runs`` unless told otherwise."""

    home: Path

    def tracking(self, uri: str | None = None) -> TrackingServer:
        """MLflow at ``uri``, at MLFLOW_TRACKING_URI, or in SQLite in this folder."""
        return resolve_tracking(
            uri or os.environ.get(TRACKING_URI_ENV) or default_uri(self.home), self.home
        )

    def store(self, data: str, *, progress: StoreProgress | None = None) -> PatchStore:
        """An embedded set by name, built once, or a store by path.

        Raises:
            UserError: if there is no such set or store.
        """
        if data in BUILTIN_SETS:
            make_private(self.home)
            return PatchStore.open(open_builtin(data, self.home / "data", progress=progress))
        check_exists(data)
        return PatchStore.open(data)

    @property
    def artifacts(self) -> ArtifactCache:
        """Denoisers and other results that trials share."""
        return ArtifactCache(str((self.home / "artifacts").absolute()))

    def searches(self) -> list[str]:
        """Names of all searches, oldest first."""
        folders = self.home.glob("searches/*/search.json")
        return [path.parent.name for path in sorted(folders, key=lambda p: p.stat().st_mtime)]

    def folder(self, name: str) -> Path:
        """The folder of a search, whether it exists or not.

        Raises:
            UserError: if the name can be none, and is none of an older search either.
        """
        if name not in self.searches():
            check_name(name, "a search")
        return self.home / "searches" / name

    def open(self, name: str, *, tracking_uri: str | None = None) -> "SearchFolder":
        """A search that exists.

        Args:
            tracking_uri: MLflow for now; else MLFLOW_TRACKING_URI, else where the search began.

        Raises:
            UserError: if there is none of that name.
        """
        folder = self.folder(name)
        if not (folder / "search.json").is_file():
            known = ", ".join(self.searches()[-5:]) or "none yet"
            raise UserError(f"there is no search {name!r} in {self.home}; there are: {known}")
        record = SearchRecord.read(folder)
        uri = tracking_uri or os.environ.get(TRACKING_URI_ENV)
        if uri:
            record = record.model_copy(update={"tracking_uri": self.tracking(uri).given})
        return SearchFolder(self, folder, record)

    def create(self, name: str, space: Path, record: SearchRecord) -> "SearchFolder":
        """Begin a search; its space is copied, so that a resume finds it as it was.

        Raises:
            UserError: if the name is taken, or an address of the record holds a password.
        """
        for option, kept in record.addresses().items():
            refuse_password(kept, option)
        self.check_name_available(name)
        make_private(self.home)
        folder = self.folder(name)
        draft = folder.with_name(f".{name}.draft")
        shutil.rmtree(draft, ignore_errors=True)
        draft.mkdir(parents=True)
        shutil.copyfile(space, draft / SPACE_NAME)
        record.write(draft)
        draft.rename(folder)
        return SearchFolder(self, folder, record)

    def check_name_available(self, name: str) -> None:
        """Make sure that a name is free.

        Raises:
            UserError: if it is not.
        """
        if self.folder(name).exists():
            raise UserError(
                f"a search {name!r} exists already; go on with `hpsearch resume {name}`, "
                "or choose another --name"
            )

    def unique_name(self, stem: str) -> str:
        """``stem``, or ``stem-2``, ``stem-3`` … if that is taken; without what no name may hold."""
        stem = name_from(stem)
        name, number = stem, 1
        while self.folder(name).exists():
            number += 1
            name = f"{stem}-{number}"
        return name


@dataclass(frozen=True)
class SearchFolder:
    """One search on disk."""

    workspace: Workspace
    path: Path
    record: SearchRecord

    @property
    def name(self) -> str:
        """The search's name."""
        return self.path.name

    @property
    def home_option(self) -> str:
        """The option that makes a command find this search; empty for the default home."""
        home = self.workspace.home
        return "" if home == DEFAULT_HOME else f" --home {shlex.quote(str(home))}"

    def command(self, verb: str, *options: str) -> str:
        """The command line that does something to this search, to be copied by a user."""
        return f"{shlex.join(['hpsearch', verb, self.name, *options])}{self.home_option}"

    @property
    def space(self) -> Path:
        """The copy of the space that the search runs."""
        return self.path / SPACE_NAME

    @property
    def trials(self) -> Path:
        """Where each trial keeps its latest checkpoint, under its id."""
        return self.path / "trials"

    @property
    def event_log(self) -> EventLog:
        """What has happened."""
        return EventLog(self.path / "ledger.jsonl")

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Hold the search while it runs; the system lets go of it when this process dies.

        Raises:
            UserError: if another process holds it.
        """
        with (self.path / "lock").open("w") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                raise UserError(
                    f"search {self.name!r} is running in another process; wait for its end, or "
                    "stop it with Ctrl-C there"
                ) from error
            yield

    def with_record(self, **fields: Any) -> "SearchFolder":
        """The search with another record, which is written down."""
        record = self.record.model_copy(update=fields)
        record.write(self.path)
        return replace(self, record=record)

    def runs(self) -> list[Run]:
        """Trials and yardsticks so far."""
        return runs_from(self.event_log.events())

    def search(self) -> Search:
        """The search that its space states."""
        return load_search(self.space)

    def store(self) -> PatchStore:
        """The patch store.

        Raises:
            UserError: if it is gone, or is not the one that the search began with.
        """
        store = PatchStore.open(self.record.store)
        if store.fingerprint != self.record.fingerprint:
            raise UserError(
                f"{self.record.store} has changed since search {self.name!r} began; restore it, "
                "or start a new search"
            )
        return store

    def split(self) -> TrialSplit:
        """Which sequences train, validate and test."""
        return self.store().split(self.record.split)

    def environment(self) -> TrialEnvironment:
        """What all its trials share."""
        search = self.search()
        return TrialEnvironment(
            store=self.store(),
            split=self.split(),
            artifacts=self.workspace.artifacts,
            report_every=search.report_every,
            validation_points=search.validation_points,
            computing=search.compute,
        )

    def resources(self) -> Resources:
        """What each of its trials asks for."""
        return self.record.resources.with_default_device(self.search().compute.device)

    def tracking(self) -> TrackingServer:
        """Where its runs go."""
        return self.workspace.tracking(self.record.tracking_uri)

    def mlflow_sync(self) -> MlflowSync:
        """What feeds MLflow from the ledger."""
        return MlflowSync(self.event_log, self.tracking(), self.name, self.path / "published.json")
