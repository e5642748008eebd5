"""Archives of data sets: unpacked once, next to the store that is made of them, and removed."""

import lzma
import os
import shutil
import stat
import tarfile
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import IO, NamedTuple

from hpsearch.data.arrow_writer import create_parent, draft_path, remove_leftovers
from hpsearch.errors import UserError
from hpsearch.untrusted import is_clutter, printable, reason

MAX_RATIO = 200
"""Maximum ratio of the content's size to the archive's; pictures reach some 10."""
FREE_BYTES = 50_000_000
"""Size of a content that is always accepted: a few flat pictures shrink by more than the ratio."""
MAX_MEMBERS = 500_000
"""Maximum number of files of an archive; HPatches has some 9,000."""
CHUNK_BYTES = 1 << 20
ARCHIVE_SUFFIXES = (".zip", ".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz")


class Member(NamedTuple):
    """File of an archive."""

    name: str
    size: int
    """Bytes, as the archive states them."""
    problem: str
    """Kind of member that is refused, such as ``a link``; empty for a file."""
    content: IO[bytes] | None
    """Its bytes, until the next member is read."""


@contextmanager
def unpacked(source: Path, near: Path) -> Iterator[Path]:
    """Folder of a data set; an archive is unpacked next to ``near``, and then removed.

    Args:
        source: a folder, or a .zip, .tar or .tar.gz file.
        near: path of the store that is made of it, whose disk has room.

    Raises:
        UserError: if there is no such file, it is no archive, is damaged or encrypted, or holds
            links, names outside its own folder, or far more than its size lets expect.
    """
    if source.is_dir():
        yield source
        return
    if not source.exists():
        raise UserError(f"no folder at {source}; give the folder or the archive of a data set")
    kind = _archive_kind(source)
    with create_parent(near):
        remove_leftovers(near)
        draft = draft_path(near)
        folder = draft / archive_stem(source)
        try:
            folder.mkdir(parents=True, mode=0o700)
            _unpack(source, kind, folder)
            yield folder
        finally:
            shutil.rmtree(draft, ignore_errors=True)


def archive_stem(path: Path) -> str:
    """Name of an archive without its suffix.

    Example:
        >>> archive_stem(Path("data/hpatches-release.tar.gz"))
        'hpatches-release'
    """
    suffixes = [s for s in ARCHIVE_SUFFIXES if path.name.lower().endswith(s)]
    return path.name[: -len(max(suffixes, key=len))] if suffixes else path.stem or path.name


def _archive_kind(source: Path) -> str:
    try:
        if zipfile.is_zipfile(source):
            return "zip"
        if tarfile.is_tarfile(source):
            return "tar"
    except (OSError, EOFError, lzma.LZMAError) as error:
        raise UserError(f"{source} cannot be read ({reason(error)}); download it again") from error
    raise UserError(
        f"{source} is neither a folder nor a complete .zip, .tar or .tar.gz archive; give one of "
        "these, or download it again",
        code="no-archive",
    )


def _unpack(source: Path, kind: str, folder: Path) -> None:
    """Write the files of an archive into a new folder.

    Raises:
        UserError: naming the archive and the cause.
    """
    limit = max(FREE_BYTES, MAX_RATIO * source.stat().st_size)
    limit = min(limit, shutil.disk_usage(folder).free)
    written, seen = 0, set[str]()
    try:
        for number, member in enumerate(_members(source, kind)):
            if number >= MAX_MEMBERS:
                raise ValueError(f"it holds more than {MAX_MEMBERS:,} files")
            target = _target(folder, member)
            if target is None:
                continue
            if str(target) in seen:
                raise ValueError(f"it holds {shown(member.name)} twice")
            seen.add(str(target))
            written += member.size
            if written > limit:
                raise ValueError(
                    f"its files need more than {limit / 1e6:,.0f} MB, which is the free space of "
                    f"the disk, or {MAX_RATIO} times the archive"
                )
            _write(target, member)
    except Exception as error:  # a decoder of crafted bytes may raise anything
        _raise_refusal(source, error)
    if not seen:
        raise UserError(f"{source} holds no files; download it again")


def _raise_refusal(source: Path, error: Exception) -> None:
    if isinstance(error, OSError) and error.errno is not None:
        raise error
    raise UserError(
        f"{source} cannot be unpacked ({reason(error)}); download it again, or unpack it and give "
        "its folder",
        code="archive-refused",
    ) from error


def _members(source: Path, kind: str) -> Iterator[Member]:
    if kind == "zip":
        with zipfile.ZipFile(source) as archive:
            for entry in archive.infolist():
                mode = entry.external_attr >> 16
                is_link = stat.S_ISLNK(mode)
                if entry.is_dir() and not is_link:
                    yield Member(entry.filename, 0, "", None)
                elif is_link:
                    yield Member(entry.filename, 0, "a link", None)
                else:
                    with archive.open(entry) as content:
                        yield Member(entry.orig_filename, entry.file_size, "", content)
        return
    with tarfile.open(source, "r:*") as archive:
        for entry in archive:
            if entry.isfile():
                yield Member(entry.name, entry.size, "", archive.extractfile(entry))
            else:
                link = "a link" if entry.issym() or entry.islnk() else "a device"
                yield Member(entry.name, 0, "" if entry.isdir() else link, None)


def _target(folder: Path, member: Member) -> Path | None:
    """Path of a member's file; None for a folder, or what operating systems add.

    Raises:
        ValueError: if it may not be unpacked.
    """
    name = member.name.replace("\\", "/")
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or (path.parts and ":" in path.parts[0]):
        raise ValueError(f"its member {shown(member.name)} lies outside the archive")
    if not name.isprintable() or any(len(os.fsencode(part)) > 255 for part in path.parts):
        raise ValueError(f"its member {shown(member.name)} has no usable name")
    if is_clutter(Path(name)):
        return None
    if member.problem:
        raise ValueError(f"its member {shown(member.name)} is {member.problem}")
    return None if member.content is None else folder / path


def _write(target: Path, member: Member) -> None:
    """Write a member's file, which must have the stated size."""
    assert member.content is not None, "the caller skips folders"
    target.parent.mkdir(parents=True, exist_ok=True)
    size = 0
    with target.open("xb") as file:
        while chunk := member.content.read(CHUNK_BYTES):
            size += len(chunk)
            if size > member.size:
                raise ValueError(f"its member {shown(member.name)} is larger than it states")
            file.write(chunk)
    if size < member.size:
        raise ValueError(f"its member {shown(member.name)} is incomplete")


def shown(name: str) -> str:
    """Name of a member for a message: one line of at most 80 characters."""
    return repr(printable(name)[:80])
