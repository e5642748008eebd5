"""Description of patches from any source, chunk by chunk, into a file."""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from hpsearch.data.builtin_sets import BUILTIN_SETS
from hpsearch.data.hpatches_import import SequenceFolder, check_headers, read_views, scan
from hpsearch.data.images import SOURCE_SIDE, area_downsample, decoding
from hpsearch.data.patch_store import PatchStore
from hpsearch.defaults import DEFAULT_HOME
from hpsearch.errors import UserError
from hpsearch.evaluation.descriptor_io import (
    DescriptorTableSpec,
    PatchKeys,
    check_can_write,
    descriptor_output,
)
from hpsearch.models.ensemble import output_dim
from hpsearch.models.serialization import LoadedPipeline, describe_any, validate_patches
from hpsearch.patch_views import SIDE, VIEW_NAMES, VIEWS
from hpsearch.promotion.model_evaluation import load_pipeline_by_ref
from hpsearch.search.workspace import Workspace
from hpsearch.shapes import Int, Num, UInt8
from hpsearch.training.devices import choose_device, torch_threads
from hpsearch.untrusted import is_clutter, load_npy
from hpsearch.workflows.observer import Observer

CHUNK_PATCHES = 1024
"""Patches per chunk: a multiple of 16, the views of a point."""
INPUT_SIDES = (SIDE, SOURCE_SIDE)


class PatchChunk(NamedTuple):
    """Chunk of patches with their keys."""

    keys: PatchKeys
    pixels: Num[np.ndarray, "n 32 32"]


@dataclass(frozen=True)
class PatchSource:
    """Source of patches to describe."""

    description: str
    """Description of the source for messages."""
    num_patches: int
    chunks: Callable[[], Iterator[PatchChunk]]
    complete_points: bool = False
    """True if sequences have all views of every point, as the official layout needs."""


def from_store(store: PatchStore, *, clean: bool) -> PatchSource:
    """Noisy or clean patches of a store."""
    pixels, first = store.clean_rows if clean else store.noisy_rows, store.first_rows
    most = range(np.diff(first).max())
    view_names = VIEW_NAMES if store.has_levels else [str(view) for view in most]

    def chunks() -> Iterator[PatchChunk]:
        for name, start, count in zip(store.names, store.starts, store.counts, strict=True):
            yield from _row_chunks(name, pixels, first[start : start + count + 1], view_names)

    description = f"{'clean' if clean else 'noisy'} patches of {store.path.stem}"
    return PatchSource(description, len(pixels), chunks, complete_points=store.has_levels)


def from_folder(folder: Path, *, clean: bool) -> PatchSource:
    """Patches of a folder: strips of an HPatches or N-HPatches tree or sequence, or PNG patches.

    Noisy strips are described if there are any, unless ``clean`` is set.

    Raises:
        UserError: with the file name, if a file is not a strip or patch; if there are none.
    """
    if (folder / "ref.png").is_file():
        return _from_strips([check_headers(folder)], folder, clean=clean)
    if next(folder.rglob("ref.png"), None) is None:
        return _from_patches(folder)
    tree = scan(folder)
    if tree.invalid:
        raise UserError(
            f"{next(iter(tree.invalid.values()))}; correct the file or remove it from {folder}"
        )
    return _from_strips(tree.valid, folder, clean=clean)


def from_array(path: Path) -> PatchSource:
    """Patches of a .npy file: 32×32 of any number type, or 65×65 of uint8.

    Raises:
        UserError: if the file is missing, damaged, or contains something else.
    """
    array = load_npy(path, "save patches with numpy.save")
    if not (array.shape[1:] == (SOURCE_SIDE, SOURCE_SIDE) and array.dtype == np.uint8):
        try:  # checks the shape alone; values are checked when they are described
            validate_patches(np.empty((0, *array.shape[1:]) if array.ndim else (), array.dtype))
        except UserError as error:
            raise UserError(
                f"{path} has the shape {array.shape} and the type {array.dtype}; patches are "
                f"(N, {SIDE}, {SIDE}) of numbers, or (N, {SOURCE_SIDE}, {SOURCE_SIDE}) of uint8",
                code="wrong-patch-shape",
            ) from error

    def chunks() -> Iterator[PatchChunk]:
        for start in range(0, len(array), CHUNK_PATCHES):
            rows = np.arange(start, min(start + CHUNK_PATCHES, len(array)))
            yield PatchChunk(
                PatchKeys(None, rows, None), to_32x32(np.array(array[rows]), first=start)
            )

    return PatchSource(f"patches of {path}", len(array), chunks)


def to_32x32(pixels: Num[np.ndarray, "n s s"], *, first: int = 0) -> Num[np.ndarray, "n 32 32"]:
    """Downsample patches of 65×65 as the importer does; check patches of 32×32."""
    if pixels.shape[1:] == (SOURCE_SIDE, SOURCE_SIDE) and pixels.dtype == np.uint8:
        return area_downsample(pixels)
    return validate_patches(pixels, first=first)


def _from_strips(sequences: list[SequenceFolder], folder: Path, *, clean: bool) -> PatchSource:
    noisy = sequences[0].kind.has_noisy and not clean

    def chunks() -> Iterator[PatchChunk]:
        for sequence in sequences:
            pixels = read_views(sequence, noisy=noisy).reshape(-1, SIDE, SIDE)
            first = VIEWS * np.arange(sequence.points + 1)
            yield from _row_chunks(sequence.name, pixels, first)

    total = VIEWS * sum(sequence.points for sequence in sequences)
    description = f"{'noisy ' if noisy else ''}strips of {folder}"
    return PatchSource(description, total, chunks, complete_points=True)


def _row_chunks(
    name: str,
    pixels: UInt8[np.ndarray, "n 32 32"],
    first: Int[np.ndarray, " points+1"],
    view_names: Sequence[str] = VIEW_NAMES,
) -> Iterator[PatchChunk]:
    """Split the patches of a sequence; ``first`` holds the rows of its points and of the end."""
    for start in range(first[0], first[-1], CHUNK_PATCHES):
        rows = np.arange(start, min(start + CHUNK_PATCHES, first[-1]))
        point = np.searchsorted(first, rows, side="right") - 1
        keys = PatchKeys([name] * len(rows), point, rows - first[point], view_names)
        yield PatchChunk(keys, pixels[rows[0] : rows[-1] + 1])


def _from_patches(folder: Path) -> PatchSource:
    pictures = (path for path in folder.rglob("*") if path.suffix.lower() == ".png")
    files = sorted(path for path in pictures if not is_clutter(path.relative_to(folder)))
    if not files:
        raise UserError(
            f"{folder} contains neither strips (SEQUENCE/ref.png …) nor patches (PNG, 32×32 or "
            "65×65)",
            code="no-patches",
        )
    for file in files:
        _check_header(file)

    def chunks() -> Iterator[PatchChunk]:
        for start in range(0, len(files), CHUNK_PATCHES):
            some = files[start : start + CHUNK_PATCHES]
            names = [path.relative_to(folder).with_suffix("").as_posix() for path in some]
            pixels = np.concatenate([_read_patch(file) for file in some])
            yield PatchChunk(PatchKeys(names, np.arange(start, start + len(some)), None), pixels)

    return PatchSource(f"patches of {folder} in alphabetical order", len(files), chunks)


def _check_header(file: Path) -> None:
    with (
        decoding(file, "remove it from the folder"),
        Image.open(file, formats=["PNG"]) as image,
    ):
        mode, (width, height) = image.mode, image.size
    if mode != "L" or width != height or width not in INPUT_SIDES:
        raise UserError(
            f"{file} is {width}×{height} in mode {mode}; expected a patch of 32×32 or 65×65 in "
            "8-bit gray"
        )


def _read_patch(file: Path) -> UInt8[np.ndarray, "1 32 32"]:
    with decoding(file, "expected a complete PNG"), Image.open(file, formats=["PNG"]) as image:
        return to_32x32(np.asarray(image)[None])


FILE_SUFFIXES = (".npy", ".parquet")


def open_source(ref: str, workspace: Workspace, *, clean: bool, observer: Observer) -> PatchSource:
    """Open a source of patches by its path or the name of a built-in set.

    Raises:
        UserError: if there is no such source, or it is damaged.
    """
    path = Path(ref)
    if ref not in BUILTIN_SETS and path.is_dir():
        return from_folder(path, clean=clean)
    if path.suffix == ".npy":
        return from_array(path)
    if path.suffix.lower() in (".png", ".jpg", ".jpeg") and path.exists():
        raise UserError(f"{path} is a single image; give the folder with the strips or patches")
    with observer.progress("building patches") as advance:
        return from_store(workspace.store(ref, progress=advance), clean=clean)


def check_layout(source: PatchSource, output: Path) -> None:
    """Check that a source has what the format of ``output`` needs.

    Raises:
        UserError: if the format is unknown, or the source has no sequences and views.
    """
    if output.suffix in FILE_SUFFIXES:
        return
    if output.suffix and not output.is_dir():
        raise UserError(
            f"{output.suffix} is not an output format; give --output a .npy file, a .parquet "
            "file, or a folder",
            code="unknown-format",
        )
    if not source.complete_points:
        raise UserError(
            f"{source.description} have no sequences of 16 views, which the official layout needs; "
            "give --output a .npy or .parquet file",
            code="no-sequences-and-views",
        )


@dataclass(frozen=True)
class DescribeResult:
    """Result of a description: number of descriptors and their files."""

    output: Path
    count: int
    """Number of descriptors."""
    dimensions: int
    patches_per_s: float

    @property
    def files(self) -> str:
        """Path of the file, or pattern of the files in the official layout."""
        suffix = self.output.suffix
        return str(self.output) if suffix in FILE_SUFFIXES else f"{self.output}/SEQUENCE/VIEW.csv"


def describe_patches(
    model: str,
    patches: str,
    output: str | Path,
    *,
    clean: bool = False,
    force: bool = False,
    threads: int = 1,
    tracking_uri: str | None = None,
    home: str | Path = DEFAULT_HOME,
    observer: Observer | None = None,
) -> DescribeResult:
    """Compute descriptors of patches with a model, and write them to a file.

    Args:
        model: ``hpsearch-base``, ``models:/NAME@champion``, ``models:/NAME/VERSION``, a folder of
            ``hpsearch train``, or ``SEARCH/TRIAL``.
        patches: ``mini``, ``tiny``, a patch store, a folder of strips or of patches, or a ``.npy``
            file.
        output: a ``.npy`` file, a ``.parquet`` file, or a folder for the official layout.
        clean: describe clean patches if a source has noisy ones too.
        force: replace an output that exists.
        threads: torch's threads on the CPU. With two of them, which wait for each other in every
            layer, a busy machine is several times slower than with one.
        tracking_uri: address of MLflow; SQLite in ``home`` if None.
        home: folder of data, searches and MLflow's files.
        observer: receives progress.

    Raises:
        UserError: if a patch is malformed, a descriptor is not finite, or the output cannot be
            written.
    """
    observer, output = observer or Observer(), Path(output)
    check_can_write(output, force=force)
    workspace = Workspace(Path(home))
    pipeline = load_pipeline_by_ref(model, workspace, uri=tracking_uri)
    source = open_source(patches, workspace, clean=clean, observer=observer)
    check_layout(source, output)
    with torch_threads(threads):
        return describe_source(
            pipeline, source, output, model=model, force=force, observer=observer
        )


def describe_source(
    pipeline: LoadedPipeline,
    source: PatchSource,
    output: Path,
    *,
    model: str,
    force: bool,
    observer: Observer,
) -> DescribeResult:
    """Write the descriptors of all patches of a source, chunk by chunk.

    Raises:
        UserError: if a patch is malformed, or a descriptor is not finite.
    """
    device = choose_device("auto")
    descriptor_dim = output_dim(pipeline)
    table = DescriptorTableSpec(
        rows=source.num_patches,
        descriptor_dim=descriptor_dim,
        metadata={"model": model, "patches": source.description},
    )
    pipeline.to(device)
    started, done = time.monotonic(), 0
    with (
        observer.progress("describing") as advance,
        descriptor_output(output, table, force=force) as write,
    ):
        for keys, pixels in source.chunks():
            found = describe_any(pipeline, pixels, device=device)
            if not np.isfinite(found).all():
                raise UserError(
                    f"{model} returns NaN for these patches, so its weights are damaged; use "
                    "another model"
                )
            write(keys, found)
            done += len(found)
            advance(done, source.num_patches, "")
    return DescribeResult(
        output, done, descriptor_dim, done / max(time.monotonic() - started, 1e-9)
    )
