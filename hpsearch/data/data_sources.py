"""Kinds of data sets on disk: which a folder holds, and by which command it is read."""

import functools
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal, NamedTuple, TypeVar

from hpsearch.data.archives import unpacked
from hpsearch.errors import UserError
from hpsearch.patch_views import VIEW_NAMES
from hpsearch.untrusted import is_clutter

Kind = Literal["import", "photos", "sequences", "phototour"]
"""Kind of a data set, as the command of ``hpsearch data`` that reads it."""
DESCRIPTIONS: dict[Kind, str] = {
    "import": "strips of HPatches (ref.png, e1.png … t5.png)",
    "photos": "photographs",
    "sequences": "sequences of full pictures with homographies",
    "phototour": "patches of PhotoTour (info.txt, patches0000.bmp …)",
}
MAX_DEPTH = 5
"""Folders below the given one that are searched."""
FIRST_PICTURE = re.compile(r"(?:img)?1\.(ppm|pgm|png|jpe?g|webp|bmp|tiff?)", re.IGNORECASE)
HOMOGRAPHY = re.compile(r"h_1_\d|h1to\dp", re.IGNORECASE)
SHEET = re.compile(r"patches(\d+)\.(bmp|png)", re.IGNORECASE)
STRIPS = frozenset(f"{view}.png" for view in VIEW_NAMES)
PICTURE_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".ppm", ".bmp")

Import = TypeVar("Import", bound=Callable[..., Any])


class FolderKind(NamedTuple):
    """Folder that holds one part of a data set, such as a sequence."""

    path: Path
    kind: Kind
    num_pictures: int


def reads(kind: Kind) -> Callable[[Import], Import]:
    """Decorator of an import of data sets of one kind from a folder into a store.

    The import then also takes an archive, and names the right command for data of another kind.
    Paths in its messages lie in the archive that the user gave.

    Args:
        kind: what the import reads. Its first argument is the folder, its second the store, and its
            result has the field ``skipped``.
    """

    def decorate(function: Import) -> Import:
        @functools.wraps(function)
        def wrapper(source: Path, out: Path, **options: Any) -> Any:
            source = Path(source)
            with unpacked(source, Path(out)) as folder:
                inside = functools.partial(_in_archive, source=source, folder=folder)
                try:
                    check_kind(folder, kind)
                    found = function(folder, out, **options)
                except UserError as error:
                    raise type(error)(inside(str(error)), code=error.code) from error
                skipped = {inside(name): inside(why) for name, why in found.skipped.items()}
                return found._replace(skipped=skipped)

        return wrapper  # pyright: ignore[reportReturnType]

    return decorate


def _in_archive(text: str, *, source: Path, folder: Path) -> str:
    return text if source == folder else text.replace(str(folder), str(source))


def check_kind(folder: Path, wanted: Kind) -> None:
    """Check that a folder does not hold a data set for another command.

    Photographs may lie with anything, so only a folder in which they are fewer than half of the
    pictures is refused to them; to the others, one without what they read.

    Raises:
        UserError: naming the command that reads it.
    """
    found = [part for part in classified_folders(folder) if part.num_pictures]
    other = [part for part in found if part.kind not in (wanted, "photos")]
    own = sum(part.num_pictures for part in found if part.kind == wanted)
    of_others = sum(part.num_pictures for part in other)
    is_other = 2 * own < of_others if wanted == "photos" else bool(other) and not own
    if is_other:
        kind = max(other, key=lambda part: part.num_pictures).kind
        raise UserError(
            f"{folder} holds {DESCRIPTIONS[kind]}, and not {DESCRIPTIONS[wanted]}; "
            f"read it with `hpsearch data {kind}`",
            code="other-kind-of-data",
        )


def classified_folders(folder: Path, depth: int = MAX_DEPTH) -> Iterator[FolderKind]:
    """Yield the kind of each folder with pictures, at most five levels down."""
    files, folders = list[Path](), list[Path]()
    for entry in sorted(folder.iterdir()):
        if not is_clutter(Path(entry.name)) and not entry.name.startswith("."):
            (folders if is_real_folder(entry) else files).append(entry)
    pictures = sum(file.suffix.lower() in PICTURE_SUFFIXES for file in files)
    kind = _kind_of({file.name.lower() for file in files}, pictures)
    yield FolderKind(folder, kind, pictures)
    for inner in folders if depth else ():
        yield from classified_folders(inner, depth - 1)


def is_real_folder(path: Path) -> bool:
    """Return whether a path is a folder, and no link to one that it lies in."""
    if not path.is_dir():
        return False
    return not (path.is_symlink() and path.resolve() in {p.resolve() for p in path.parents})


def actual_file(file: Path) -> Path:
    """File whose name differs at most by upper and lower case; the path itself if there is none."""
    if file.exists() or not file.parent.is_dir():
        return file
    wanted = file.name.lower()
    return next((p for p in sorted(file.parent.iterdir()) if p.name.lower() == wanted), file)


def _kind_of(names: set[str], num_pictures: int) -> Kind:
    if "info.txt" in names and any(SHEET.fullmatch(name) for name in names):
        return "phototour"
    if any(FIRST_PICTURE.fullmatch(n) for n in names) and any(
        HOMOGRAPHY.fullmatch(n) for n in names
    ):
        return "sequences"
    strips = len(STRIPS & names)
    return "import" if strips and 2 * strips >= num_pictures else "photos"
