"""Optuna study of a search, in a journal file or a database.

The journal is read once and then kept in memory. A database is queried for every running trial
whenever the study is read, about nine times for each trial that TPE draws: milliseconds with one
concurrent trial, seconds with a hundred. With many concurrent trials, keep the study in the journal
and publish it in a database at the end with ``optuna.copy_study``.
"""

from pathlib import Path

import optuna
from optuna.storages import BaseStorage, RDBStorage
from sqlalchemy.exc import SQLAlchemyError

from hpsearch.errors import UserError
from hpsearch.locations import database_path
from hpsearch.redaction import filled_in, redacted
from hpsearch.search.samplers import build_sampler, log_warnings_only
from hpsearch.search.search import Search
from hpsearch.search.search_context import SearchContext
from hpsearch.search.search_record import RECORD_FILE, SearchRecord
from hpsearch.search.space_errors import translate_study_errors
from hpsearch.search.study_journal import open_journal
from hpsearch.search.trial_queue import started_trials
from hpsearch.untrusted import reason

JOURNAL_PREFIX, JOURNAL_FILE = "journal:", "study.journal"
LOCK_TIMEOUT_S = 60
"""Seconds to wait for another process that holds an SQLite database locked."""


def study_address(folder: Path, url: str | None = None) -> str:
    """Address of a study: database URL, or ``journal:PATH`` of a file on any disk."""
    return url or f"{JOURNAL_PREFIX}{folder / JOURNAL_FILE}"


def open_study(folder: Path, *, search: Search, url: str | None = None) -> optuna.Study:
    """Open the study of a search, which is created if missing.

    Raises:
        UserError: if its storage is not available.
    """
    storage = open_study_storage(folder, url)
    return study_in(storage, study_name(folder, storage, url), search)


def read_study(folder: Path, *, search: Search, url: str | None = None) -> optuna.Study:
    """Read the study of a search; nothing is written, so its disk may be read-only.

    Returns:
        The study; an empty one in memory if there is none yet.

    Raises:
        UserError: if its storage does not open.
    """
    address = study_address(folder, url)
    path = _file_of(address)
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    if path is None or path.is_file():
        storage = open_storage(address, read_only=True)
        names = optuna.get_all_study_names(storage)
        name = names[0] if path is not None and len(names) == 1 else folder.name
        if name in names:  # the folder may have been renamed since the study was made
            return optuna.load_study(study_name=name, storage=storage)
    return optuna.create_study(directions=[objective.direction for objective in search.objectives])


def _file_of(address: str) -> Path | None:
    """File of a journal or of an SQLite database; None for any other storage."""
    if address.startswith(JOURNAL_PREFIX):
        return Path(filled_in(address.removeprefix(JOURNAL_PREFIX)))
    return database_path(filled_in(address))


def open_study_storage(folder: Path, url: str | None = None) -> BaseStorage:
    """Open the storage of a search's study.

    Raises:
        UserError: if it does not open.
    """
    return open_storage(study_address(folder, url))


def study_name(folder: Path, storage: BaseStorage, url: str | None = None) -> str:
    """Name of a search's study in its storage, the same after its folder was renamed.

    Records of version 0.1.0 have no name; the study is then the only one in the search's own file,
    or has the name of the folder.
    """
    recorded = (folder / RECORD_FILE).is_file() and SearchRecord.read(folder).study_name
    if recorded:
        return recorded
    names = optuna.get_all_study_names(storage) if url is None else []
    return names[0] if len(names) == 1 else folder.name


def check_study_complete(context: SearchContext) -> None:
    """Check that the study of a search has all the trials in its event log.

    Raises:
        UserError: if it lacks some, or is missing; it is then not created.
    """
    logged = 1 + max((run.number for run in context.runs if run.kind == "trial"), default=-1)
    address = study_address(context.paths.folder, context.record.study)
    with translate_study_errors(address):
        known = num_own_trials(context)
    if known < logged:
        raise UserError(
            f"the study at {redacted(address)} has {known} of the {logged} trials of search "
            f"{context.name!r}; restore it, or rebuild it from the event log with "
            f"`{context.command('sync')}`",
            code="study-incomplete",
        )


def num_own_trials(context: SearchContext) -> int:
    """Number of started trials in the study of a search; 0 if there is no study."""
    folder, url = context.paths.folder, context.record.study
    address = study_address(folder, url)
    file = database_path(filled_in(address)) or journal_path(address)
    if file is not None and not file.exists():
        return 0
    storage = open_study_storage(folder, url)
    name = study_name(folder, storage, url)
    if name not in optuna.get_all_study_names(storage):
        return 0
    study = optuna.load_study(study_name=name, storage=storage)
    return len(started_trials(study.get_trials(deepcopy=False)))


def study_in(storage: BaseStorage, name: str, search: Search) -> optuna.Study:
    """Load the study of a search from its storage, or create it there."""
    log_warnings_only()
    return optuna.create_study(
        storage=storage,
        study_name=name,
        sampler=build_sampler(search, point=0),
        pruner=optuna.pruners.NopPruner(),  # the tuner decides which trials are pruned
        directions=[objective.direction for objective in search.objectives],
        load_if_exists=True,
    )


def running_trial(study: optuna.Study, storage: BaseStorage, number: int) -> optuna.Trial:
    """Take over a trial that another session started, by its number in the study."""
    study_id = storage.get_study_id_from_name(study.study_name)
    return optuna.Trial(study, storage.get_trial_id_from_study_id_trial_number(study_id, number))


def study_without_imports(study: optuna.Study) -> optuna.Study:
    """In-memory copy of a study without the trials of a warm start."""
    own = optuna.create_study(study_name=study.study_name, directions=study.directions)
    own.add_trials(started_trials(study.get_trials(deepcopy=False)))
    return own


def check_study_name_available(url: str, name: str) -> None:
    """Check that a storage is available and has no study of this name.

    Raises:
        UserError: if it is not available, or has one.
    """
    with translate_study_errors(url):
        names = optuna.get_all_study_names(open_storage(url))
    if name in names:
        raise UserError(
            f"a study {name!r} exists at {redacted(url)}; choose another --name",
            code="study-exists",
        )


def export_study(study: optuna.Study, url: str, name: str) -> str:
    """Copy a study into another storage, without the trials of a warm start.

    Returns:
        Name of the copy.

    Raises:
        UserError: if the storage is not available, or has a study of this name.
    """
    check_study_name_available(url, name)
    with translate_study_errors(url):
        copy = optuna.create_study(
            study_name=name, storage=open_storage(url), directions=study.directions
        )
        copy.add_trials(started_trials(study.get_trials(deepcopy=False)))
    return name


def journal_path(address: str) -> Path | None:
    """File of a journal; None for any other address."""
    if not address.startswith(JOURNAL_PREFIX):
        return None
    return Path(filled_in(address.removeprefix(JOURNAL_PREFIX)))


def open_storage(url: str, *, read_only: bool = False) -> BaseStorage:
    """Open the storage at an address; a database is created if it is missing.

    Raises:
        UserError: if it does not open.
    """
    log_warnings_only()
    try:
        path = journal_path(url)
        if path is None:
            return _open_database(filled_in(url), read_only=read_only)
        if not path.parent.is_dir():
            raise UserError(
                f"there is no folder {path.parent} for the study's journal; create it",
                code="no-such-folder",
            )
        return open_journal(path)
    except UserError:
        raise
    except (SQLAlchemyError, ImportError, OSError, ValueError, RuntimeError) as error:
        raise UserError(
            f"{redacted(url)} is not a usable study storage ({reason(error)}); give the URL of a "
            "database that SQLAlchemy supports and that answers, or journal:PATH",
            code="study-unavailable",
        ) from error


def _open_database(url: str, *, read_only: bool) -> RDBStorage:
    waits = url.startswith("sqlite") and "timeout=" not in url
    arguments = {"connect_args": {"timeout": LOCK_TIMEOUT_S}} if waits else {}
    return RDBStorage(url, engine_kwargs=arguments, skip_table_creation=read_only)
