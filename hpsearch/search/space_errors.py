"""Errors of a search space, which its author corrects, apart from those of the study's storage."""

import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from optuna.exceptions import StorageInternalError
from pydantic import ValidationError

from hpsearch.config import TrialConfig
from hpsearch.errors import UserError
from hpsearch.redaction import redacted
from hpsearch.untrusted import reason, user_location, validation_sentence


def suggest_error(error: Exception) -> UserError:
    """Error for the user that names the line of the space."""
    where = user_location(error)
    if isinstance(error, UserError):
        return UserError(f"{where}: {error}" if where else str(error), code=error.code)
    if isinstance(error, ValidationError):
        sentence = f"{where or 'suggest'}: {error.title}: {validation_sentence(error)}"
        return UserError(f"{sentence}; correct the space and rerun", code="suggest-failed")
    at = f" at {where}" if where else ""
    return UserError(
        f"suggest raised {type(error).__name__}{at} ({first_line(error)}); correct the space and "
        "rerun",
        code="suggest-failed",
    )


def check_suggested(found: Any, budget: int) -> TrialConfig:
    """Check that a space has drawn the configuration of a trial, and return it.

    Raises:
        UserError: if it is something else, has another budget than the search, or settings that do
            not fit together.
    """
    if not isinstance(found, TrialConfig):
        raise UserError(
            f"suggest must return a TrialConfig, but returned {type(found).__name__}",
            code="suggest-returned-other",
        )
    if found.patches != budget:
        raise UserError(
            f"suggest set patches={found.patches}, but the search's budget is {budget}; "
            "pass patches=BUDGET in suggest so that all trials have the same budget",
            code="other-budget",
        )
    try:
        TrialConfig.model_validate(dict(found))  # model_copy, as of a recipe, checks nothing
    except ValidationError as error:
        raise UserError(
            f"suggest returned settings that do not fit: {validation_sentence(error)}",
            code="suggest-returned-invalid",
        ) from error
    return found


def is_storage_error(error: BaseException) -> bool:
    """Return whether an error comes from the storage of a study, not from a space."""
    from sqlalchemy.exc import SQLAlchemyError  # takes long to import, and is rarely needed

    if isinstance(error, (StorageInternalError, SQLAlchemyError)):
        return True
    modules = (f.f_globals.get("__name__", "") for f, _ in traceback.walk_tb(error.__traceback__))
    return isinstance(error, OSError) and any(m.startswith("optuna.storages") for m in modules)


def first_line(error: BaseException) -> str:
    """Message of an error, reduced to one line."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return " ".join(lines[:3]) + (" …" if len(lines) > 3 else "") if lines else "no message"


@contextmanager
def translate_study_errors(address: str) -> Iterator[None]:
    """Translate errors of a study's storage at ``address``, for example of a locked database.

    Raises:
        UserError: if the storage fails; other errors are raised as they are.
    """
    try:
        yield
    except Exception as error:
        cause: BaseException | None = error
        while cause is not None and not is_storage_error(cause):
            cause = cause.__cause__ or cause.__context__
        if cause is None or isinstance(error, UserError):
            raise
        why = reason(cause.__cause__ or cause).partition("[SQL")[0].strip()
        raise UserError(
            f"the study at {redacted(address)} failed ({why}); what has ended is kept: make sure "
            "that the study answers and no other program holds it locked, then resume",
            code="study-unavailable",
        ) from error
