"""Errors caused by user input, as opposed to bugs."""

import errno
from collections.abc import Iterable
from typing import ClassVar

DISK_FULL_ERRNOS = (errno.ENOSPC, errno.EDQUOT)
FILE_ERRNOS = frozenset(
    {
        *DISK_FULL_ERRNOS, errno.EACCES, errno.EFBIG, errno.EIO, errno.EISDIR, errno.ELOOP,
        errno.EMFILE, errno.ENAMETOOLONG, errno.ENFILE, errno.ENOENT, errno.ENOTDIR, errno.EPERM,
        errno.EROFS, errno.ESTALE,
    }
)  # fmt: skip
"""Codes of operating-system errors that a path or a disk causes, and not the program."""
EXIT_INTERRUPTED = 130
"""Exit code of a command that was interrupted and can be resumed, as a shell reports Ctrl-C."""


class UserError(ValueError):
    """Error that the user can correct; the command prints its sentence and exits with code 2.

    Args:
        message: one sentence with state, cause and action.
        code: short kebab-case name of the kind of error, for callers of the Python API; that of
            the class if empty.

    Example:
        >>> UserError("there is no search 'full'", code="no-such-search").code
        'no-such-search'
    """

    default_code: ClassVar[str] = "user-error"

    def __init__(self, message: str = "", code: str = "") -> None:
        super().__init__(message)
        self.code = code or self.default_code


class OldSpellingWarning(UserWarning):
    """Warning that a search space uses names of an earlier version; they are still read."""


def list_names(names: Iterable[object], *, limit: int) -> str:
    """Names with commas, at most ``limit`` of them; the number of the others follows.

    Example:
        >>> list_names(["v_wall", "v_tree", "i_lamp", "i_sky"], limit=2)
        'v_wall, v_tree and 2 more'
    """
    every = [str(name) for name in names]
    more = f" and {len(every) - limit:,} more" if len(every) > limit else ""
    return ", ".join(every[:limit]) + more


def file_error_sentence(error: OSError) -> str | None:
    """Sentence for an error of a path or a disk; None for any other operating-system error.

    Example:
        >>> file_error_sentence(FileNotFoundError(2, "No such file or directory", "/nodir/x"))
        '/nodir/x cannot be used (no such file or directory); choose another path'
    """
    if error.errno not in FILE_ERRNOS:
        return None
    path = error.filename2 or error.filename
    if error.errno in DISK_FULL_ERRNOS:
        location = "" if path is None else f" ({path})"
        return f"disk full{location}; free some space and rerun the command"
    cause = error.strerror or type(error).__name__
    cause = cause[0].lower() + cause[1:]
    if path is None:
        return f"a file cannot be used ({cause}); correct that and rerun the command"
    return f"{path} cannot be used ({cause}); choose another path"
