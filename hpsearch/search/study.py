"""Where a search keeps its study: in a file of its own, or wherever its user says.

A study is known by the search's name. ``optuna-dashboard FILE`` shows a journal, and
``optuna-dashboard URL`` a database. What stands in an
address as ``$NAME`` is taken from the environment each time, so that no password need be kept.
"""

import os
from pathlib import Path

import optuna
from optuna.storages import RDBStorage
from sqlalchemy.exc import SQLAlchemyError

from hpsearch.errors import UserError
from hpsearch.search.journal import open_journal
from hpsearch.search.points import begun
from hpsearch.search.samplers import build_sampler
from hpsearch.search.search import Search

JOURNAL, FILE = "journal:", "study.journal"


def study_address(folder: Path, url: str | None = None) -> str:
    """A database's URL, or ``journal:PATH`` for a file that a shared disk can hold."""
    return url or f"{JOURNAL}{folder / FILE}"


def in_database(url: str | None) -> bool:
    """Whether reading a study asks a database; a journal is read once and then kept in memory."""
    return url is not None and not url.startswith(JOURNAL)


def open_study(folder: Path, *, search: Search, url: str | None = None) -> optuna.Study:
    """The study of a search, made if need be.

    Raises:
        UserError: if its storage does not open.
    """
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    storage = _storage(study_address(folder, url))
    return optuna.create_study(
        storage=storage,
        study_name=folder.name,
        sampler=build_sampler(search.sampler, seed=search.seed, point=0),
        pruner=optuna.pruners.NopPruner(),  # Ray's scheduler decides who is stopped
        directions=[objective.direction for objective in search.objectives],
        load_if_exists=True,
    )


def own_study(study: optuna.Study) -> optuna.Study:
    """The same study with the trials of this search alone, in memory, to look at."""
    own = optuna.create_study(study_name=study.study_name, directions=study.directions)
    own.add_trials(begun(study.get_trials(deepcopy=False)))
    return own


def check_free(url: str, name: str) -> None:
    """Make sure that a storage opens and has no study of this name yet.

    Raises:
        UserError: if it does not, or has.
    """
    if name in optuna.get_all_study_names(_storage(url)):
        raise UserError(f"there is a study {name!r} at {shown(url)} already; choose another --name")


def shown(url: str) -> str:
    """An address without its password; a variable in it stays a variable."""
    head, at, tail = url.rpartition("@")
    scheme, _, user = head.partition("://")
    return f"{scheme}://{user.partition(':')[0]}:***@{tail}" if at and ":" in user else url


def _storage(url: str) -> optuna.storages.BaseStorage:
    try:
        if not url.startswith(JOURNAL):
            return RDBStorage(os.path.expandvars(url))
        path = Path(os.path.expandvars(url.removeprefix(JOURNAL)))
        if not path.parent.is_dir():
            raise UserError(f"there is no folder {path.parent} for the study's journal; make it")
        return open_journal(path)
    except UserError:
        raise
    except (SQLAlchemyError, ImportError, OSError, ValueError, RuntimeError) as error:
        reason = str(error).strip().splitlines()[0]
        raise UserError(
            f"no study can be kept at {shown(url)} ({reason}); give the URL of a database that "
            "SQLAlchemy knows and that answers, or journal:PATH"
        ) from error
