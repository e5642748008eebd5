"""The home folder: its patch stores, its searches, and MLflow's files."""

import json
import os
import shutil
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from hpsearch.atomic_files import check_target_folder, make_private
from hpsearch.data.arrow_header import StoreProgress
from hpsearch.data.builtin_sets import BUILTIN_SETS, check_exists, open_builtin
from hpsearch.data.patch_store import PatchStore
from hpsearch.defaults import BUILT_IN_MODELS
from hpsearch.errors import UserError
from hpsearch.locations import home_address, remote_address
from hpsearch.redaction import refuse_password
from hpsearch.search.search import Search
from hpsearch.search.search_context import (
    SEARCHES_DIR,
    TRACKING_URI_ENV,
    SearchContext,
    SearchPaths,
    artifact_cache,
    tracking_server,
)
from hpsearch.search.search_record import PLAN_FILE, RECORD_FILE, SearchRecord
from hpsearch.search.space_file import MODULES_DIR, copy_modules
from hpsearch.tracking.connection import TrackingServer, accept_address
from hpsearch.tracking.mlflow_tags import SPACE_NAME
from hpsearch.training.artifact_cache import ArtifactCache
from hpsearch.untrusted import check_name, name_from

__all__ = ["SearchRecord", "Workspace"]


@dataclass(frozen=True)
class Workspace:
    """The folder that ``--home`` names; ``runs`` by default."""

    home: Path

    def __post_init__(self) -> None:
        address = remote_address(self.home)
        if address is not None:
            raise UserError(
                f"{address} is in an object store; open it with "
                "hpsearch.object_storage.open_home, and pass the path that it gives",
                code="remote-home",
            )

    def tracking(self, uri: str | None = None, *, read_only: bool = False) -> TrackingServer:
        """MLflow at ``uri``, at MLFLOW_TRACKING_URI, or in SQLite in this folder."""
        return tracking_server(self.home, uri, read_only=read_only)

    def store(self, data: str, *, progress: StoreProgress | None = None) -> PatchStore:
        """An embedded set by name, built once, or a store by path.

        Raises:
            UserError: if there is no such set or store.
        """
        if data in BUILTIN_SETS:
            if not self.home.is_dir():
                self.check_writable()
                make_private(self.home)
            return PatchStore.open(open_builtin(data, self.home / "data", progress=progress))
        check_exists(data)
        return PatchStore.open(data)

    def check_writable(self) -> None:
        """Check before work that the home can be written, or created; nothing is left behind.

        Raises:
            UserError: if it cannot.
        """
        check_target_folder(self.home, "--home")

    @property
    def artifacts(self) -> ArtifactCache:
        """Denoisers and other results that trials share."""
        return artifact_cache(self.home)

    def searches(self) -> list[str]:
        """Names of all searches, oldest first.

        Raises:
            UserError: if the home is a file.
        """
        if self.home.is_file():
            raise UserError(
                f"{self.home} is a file; give --home the path of a folder", code="target-is-file"
            )
        folders = self.home.glob(f"{SEARCHES_DIR}/*/{RECORD_FILE}")
        return [path.parent.name for path in sorted(folders, key=lambda p: p.stat().st_mtime)]

    def paths(self, name: str) -> SearchPaths:
        """Paths of a search, whether it exists or not.

        Raises:
            UserError: if the name can be none, and is none of an older search either.
        """
        if name not in self.searches():
            check_name(name, "a search")
        return SearchPaths(self.home, name)

    def open(self, name: str, *, tracking_uri: str | None = None) -> SearchContext:
        """A search that exists.

        Args:
            tracking_uri: MLflow for now; else MLFLOW_TRACKING_URI, else where the search began.

        Raises:
            UserError: if there is none of that name.
        """
        paths = self.paths(name)
        if not (paths.folder / RECORD_FILE).is_file():
            known = ", ".join(self.searches()[-5:]) or "none yet"
            raise UserError(
                f"there is no search {name!r} in {home_address(self.home)}; there are: {known}"
            )
        record = SearchRecord.read(paths.folder)
        uri = tracking_uri or os.environ.get(TRACKING_URI_ENV)
        if uri:
            record = record.model_copy(update={"tracking_uri": accept_address(uri)[0]})
        return SearchContext(paths, record)

    def check_model(self, ref: str) -> None:
        """Check that a reference can be a model's, before anything heavy is imported.

        Args:
            ref: ``hpsearch-base``, ``models:/NAME@ALIAS``, a folder, or ``SEARCH/TRIAL``.

        Raises:
            UserError: if it is none of these.
        """
        search, _, trial = ref.partition("/")
        is_trial = bool(trial) and search in self.searches()
        named = ref in BUILT_IN_MODELS or ref.startswith("models:/")
        if not (named or Path(ref).is_dir() or is_trial):
            raise self.no_such_model(ref)

    def no_such_model(self, ref: str) -> UserError:
        """Error of a reference that names no model."""
        known = ", ".join(self.searches()[-3:]) or "none yet"
        return UserError(
            f"{ref!r} is not a model; give hpsearch-base, models:/NAME@ALIAS, a folder of "
            f"`hpsearch train`, SEARCH/TRIAL of a search in {self.home} (there are: {known}), or a "
            "folder of descriptors DESC/SEQUENCE/VIEW.csv",
            code="no-such-model",
        )

    def create(
        self,
        name: str,
        space: Path | str,
        record: SearchRecord,
        *,
        search: Search | None = None,
        modules: Mapping[str, Path] = MappingProxyType({}),
    ) -> SearchContext:
        """Begin a search; its space file is copied, so that a resume finds it as it was.

        Args:
            name: name of the search.
            space: path of the space file, or its text.
            record: what the search is started with.
            search: what the space file exports, if it is loaded already.
            modules: files that the space imports from its folder, by their path in it.

        Raises:
            UserError: if the name is taken, or an address of the record holds a password.
        """
        for option, kept in record.addresses().items():
            refuse_password(kept, option)
        self.check_name_available(name)
        self.check_writable()
        record = record.model_copy(update={"study_name": name})
        make_private(self.home)
        paths = self.paths(name)
        draft = paths.folder.with_name(f".{name}.draft")
        shutil.rmtree(draft, ignore_errors=True)
        draft.mkdir(parents=True)
        content = space.read_bytes() if isinstance(space, Path) else space.encode()
        (draft / SPACE_NAME).write_bytes(content)
        copy_modules(modules, draft / MODULES_DIR)
        record.write(draft)
        draft.rename(paths.folder)
        context = SearchContext(paths, record)
        return context if search is None else context.with_search(search)

    def check_name_available(self, name: str) -> None:
        """Make sure that a name is free.

        Raises:
            UserError: if it is not.
        """
        paths = self.paths(name)
        if not paths.folder.exists():
            return
        try:
            advice = next_step(self.open(name))
        except UserError as error:
            raise UserError(
                f"the folder {paths.folder} is in the way: it holds no search that can be opened; "
                "move it away, or give the new search another --name",
                code="search-exists",
            ) from error
        raise UserError(
            f"a search {name!r} exists already; {advice}, or give a new search another --name",
            code="search-exists",
        )

    def unique_name(self, stem: str) -> str:
        """``stem``, or ``stem-2``, ``stem-3`` … if that is taken; without what no name may hold."""
        stem = name_from(stem)
        name, number = stem, 1
        while self.paths(name).folder.exists():
            number += 1
            name = f"{stem}-{number}"
        return name


def is_finished(context: SearchContext) -> bool:
    """Return True if a search has nothing left to do: no trial, no score, no step of its end."""
    return context.is_complete and context.is_scored and not context.state.steps_left


def resume_command(context: SearchContext) -> str:
    """Command line that resumes a search; of a promotion, the one that promotes at its scale."""
    parent, options = context.record.promoted_search, list[str]()
    if parent is None:
        return context.command("resume")
    with suppress(OSError, ValueError, KeyError, TypeError):  # no plan yet
        plan = json.loads((context.paths.folder / PLAN_FILE).read_text("utf-8"))
        scale = plan["scale"]
        for name, value in (
            ("--budget", scale["budget"]),
            ("--width", scale["width"] and f"{scale['width']:g}"),
            ("--data", scale["data"] and context.record.store),
        ):
            options += [] if value is None else [name, str(value)]
    return SearchPaths(context.home, parent).command("promote", *options)


def next_step(context: SearchContext) -> str:
    """Advice how to continue a search: part of a sentence, with a command that accepts it.

    Args:
        context: a search that no process runs.

    Raises:
        UserError: if its space or its event log is damaged.
    """
    parent, trials = context.record.promoted_search, context.record.trials
    if parent is not None:
        return f"continue this promotion of {parent!r} with `{resume_command(context)}`"
    if not is_finished(context):
        return f"resume it with `{resume_command(context)}`"
    if context.search.num_trials(trials + 1) == trials:
        return f"see its trials, all that its space has, with `{context.command('show')}`"
    return f"add trials with `{context.command('extend', '--trials', '20')}`"
