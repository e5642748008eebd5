"""Housekeeping: disk usage of a home, removal and archives of searches."""

import os
import shutil
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from hpsearch.atomic_files import check_target_file
from hpsearch.errors import UserError
from hpsearch.promotion.promotion_search import promotion_name
from hpsearch.promotion.retraining_plan import SAME_SCALE
from hpsearch.search.search_context import SEARCHES_DIR, SearchContext
from hpsearch.search.workspace import Workspace
from hpsearch.tracking.mlflow_tags import SAVED_VIEW_PREFIX, SEARCH_ID, saved_view_name
from hpsearch.workflows.steer_search import is_running

NOT_ARCHIVED = ("lock", "external.lock", "asked", "tune")
"""Files of a search that only a running process needs."""


class DiskUse(NamedTuple):
    """Disk space of a part of a home."""

    name: str
    size: int
    """Number of bytes."""


@dataclass(frozen=True)
class Removal:
    """Search that can be removed."""

    context: SearchContext
    size: int
    """Bytes in its folder."""
    trials: int


def disk_usage(home: Path) -> list[DiskUse]:
    """Disk space of each search and of the other parts of a home, largest first.

    Raises:
        UserError: if there is no such home.
    """
    if not home.is_dir():
        raise UserError(f"there is no home {home}; give another --home", code="no-such-home")
    searches = home / SEARCHES_DIR
    parts = [path for path in home.iterdir() if path != searches]
    parts += list(searches.iterdir()) if searches.is_dir() else []
    uses = [DiskUse(path.relative_to(home).as_posix(), folder_size(path)) for path in parts]
    return sorted(uses, key=lambda use: -use.size)


def folder_size(path: Path) -> int:
    """Bytes of a file, or of all files in a folder; links count as links."""
    return sum(file.lstat().st_size for file in _files(path))


def _files(path: Path) -> Iterator[Path]:
    if not path.is_dir() or path.is_symlink():
        yield path
        return
    for folder, _, names in os.walk(path):
        yield from (Path(folder) / name for name in names)


def plan_removal(context: SearchContext) -> Removal:
    """Check that a search can be removed.

    Raises:
        UserError: if a process runs it, its study lies in a database, or another search needs it.
    """
    _check_not_running(context)
    _check_not_needed(context)
    trials = sum(run.kind == "trial" for run in context.runs)
    return Removal(context, folder_size(context.paths.folder), trials)


def _check_not_running(context: SearchContext) -> None:
    if is_running(context):
        raise UserError(
            f"search {context.name!r} is running; stop it with `{context.command('stop')}` first",
            code="search-running",
        )


def _check_not_needed(context: SearchContext) -> None:
    """Check that no promotion reads the space of this search."""
    first = promotion_name(context, SAME_SCALE)
    for promotion in Workspace(context.home).searches():
        if not promotion.startswith(first):
            continue
        raise UserError(
            f"search {promotion!r} reads the space of {context.name!r}; remove that one first",
            code="search-needed",
        )


def remove_search(removal: Removal) -> int:
    """Remove a search and its runs in MLflow; models in the registry stay.

    Returns:
        Number of MLflow runs that were deleted.

    Raises:
        UserError: if a process runs it, or MLflow does not answer; nothing is removed then.
    """
    context = removal.context
    with context.lock():
        deleted = _delete_runs(context)
        grave = context.paths.folder.with_name(f".{context.name}.removed")
        shutil.rmtree(grave, ignore_errors=True)
        context.paths.folder.rename(grave)  # no half-removed search is found by its name
    shutil.rmtree(grave)
    return deleted


def _delete_runs(context: SearchContext) -> int:
    if not context.paths.sync_state.exists():
        return 0
    from hpsearch.tracking.mlflow_errors import translate_all_errors

    tracking, search_id = context.tracking(), context.event_log.search_id()
    deleted = 0
    with translate_all_errors(tracking.uri):
        client, experiment = tracking.client(), tracking.experiment_id()
        query = f"tags.`{SEARCH_ID}` = '{search_id}'"
        while runs := list(client.search_runs([experiment], query, max_results=500)):
            for run in runs:
                client.delete_run(run.info.run_id)
                deleted += 1
        view = SAVED_VIEW_PREFIX + saved_view_name(search_id)
        if view in client.get_experiment(experiment).tags:
            client.delete_experiment_tag(experiment, view)
    return deleted


def archive_search(context: SearchContext, path: Path, *, checkpoints: bool = False) -> int:
    """Write a search into a compressed archive; the search stays as it is.

    Args:
        context: the search.
        path: file of the archive.
        checkpoints: whether to include the checkpoints of the trials.

    Returns:
        Bytes of the archive.

    Raises:
        UserError: if a process runs the search, or the file cannot be written.
    """
    check_target_file(path, "--output")
    _check_not_running(context)
    left_out = NOT_ARCHIVED if checkpoints else (*NOT_ARCHIVED, context.paths.trials_dir.name)
    draft = path.with_name(f".{path.name}.draft")
    try:
        with tarfile.open(draft, "w:gz") as archive:
            for part in sorted(context.paths.folder.iterdir()):
                if part.name not in left_out:
                    archive.add(part, f"{context.name}/{part.name}")
        draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)
    return path.stat().st_size
