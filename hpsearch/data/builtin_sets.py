"""Built-in patch sets, built once from photographs that are part of scikit-image.

``mini`` is for the demo, ``tiny`` for tests. Both have a fixed split by photograph.
"""

import hashlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from hpsearch.atomic_files import check_target_file
from hpsearch.data.arrow_header import StoreMeta, StoreProgress
from hpsearch.data.arrow_writer import SequencePatches
from hpsearch.data.patch_store import write_store
from hpsearch.data.photo_synthesis import PhotoSettings, photo_sequence
from hpsearch.data.process_pool import imap_ordered, usable_cores
from hpsearch.errors import UserError
from hpsearch.shapes import UInt8

CODE_VERSION = 3
"""Version of the synthesis; increment with every change of the resulting pixels."""
PHOTOGRAPHS_LICENSE = (
    "Photographs as shipped with scikit-image: astronaut (NASA), rocket and text public domain; "
    "camera, chelsea, coffee, grass and gravel CC0; coins and ihc no known copyright restrictions"
)

# SHA-256 of the gray pixels: a changed photograph would give other patches under the same name.
PHOTOGRAPHS: Mapping[str, str] = {
    "astronaut": "f98a00b3351f8ba2cf8abfdebcef54ee691a83bbab15093edbf3d87078126618",
    "camera": "5cb24482a53416f99052258be2b1ee38cd31c559a70c8a8b321cba231b332e21",
    "chelsea": "cd822d0a5b86379f987b3120f75a6e7c7be64e292b25a23bd858af5c9db1fed6",
    "coffee": "3e8857c7e771b09cbf5d2e6e60d921830a1b1f097fe066f05d238ba19f87bf61",
    "coins": "e080cc03805f1fa70516c3cb84883d4633bda2a1b51841da7c22f3d14c072451",
    "grass": "b18dae4c68bf850a7a7b28a29d1846c76be890665117b57fd125fe29c4d4ede6",
    "gravel": "3d51ad45f789cd8b98534b7af6bce774e499ead45421135afd757358c7230009",
    "ihc": "fd48ca0459de8527d943851e5c3d2318e3f7dc501bdd06a102a75301c1dbd107",
    "rocket": "a085ff3db7e5c7be0845abf3f2296d0c79d053f3f3d54065904408ad34c72424",
    "text": "6705caed21e6281799a52591c27498da5526cace39f2b6af3141b2ff11e2e517",
}
LOADER_NAMES = {"ihc": "immunohistochemistry"}


class BuiltinSet(NamedTuple):
    """Photographs and synthesis settings of a built-in set."""

    sequences: tuple[str, ...]
    test: tuple[str, ...]
    settings: PhotoSettings
    downscale: int
    """Factor by which the photographs are reduced first."""


BUILTIN_SETS: Mapping[str, BuiltinSet] = {
    "mini": BuiltinSet(
        sequences=(
            "i_astronaut",
            "i_chelsea",
            "i_coins",
            "i_grass",
            "i_ihc",
            "v_camera",
            "v_coffee",
            "v_gravel",
            "v_rocket",
            "v_text",
        ),
        test=("i_astronaut", "i_ihc", "v_coffee", "v_gravel"),
        settings=PhotoSettings(points=300),
        downscale=1,
    ),
    # Two photographs a part, because retrieval takes its distractors from other sequences.
    "tiny": BuiltinSet(
        sequences=("i_astronaut", "i_chelsea", "i_ihc", "v_camera", "v_coffee", "v_rocket"),
        test=("i_astronaut", "v_coffee"),
        settings=PhotoSettings(points=32),
        downscale=2,
    ),
}


def check_exists(data: str) -> None:
    """Check that ``data`` is the name of a built-in set or the path of a file.

    Raises:
        UserError: if it is neither.
    """
    if data not in BUILTIN_SETS and not Path(data).exists():
        sets = " or ".join(BUILTIN_SETS)
        raise UserError(f"there is no patch store {data!r}; give a path, or {sets}")


def open_builtin(
    name: str, folder: Path, *, progress: StoreProgress | None = None, workers: int | None = None
) -> Path:
    """Open the built-in store ``name`` (``mini`` or ``tiny``) in ``folder``; build it if missing.

    ``workers`` processes share the photographs; by default one per core.

    Raises:
        UserError: for another name, if a photograph is missing or has other pixels, or if the
            folder cannot be written.
    """
    if name not in BUILTIN_SETS:
        raise UserError(f"no built-in set {name!r}; choose one of {', '.join(BUILTIN_SETS)}")
    recipe = BUILTIN_SETS[name]
    path = Path(folder) / f"{name}-{_cache_key(recipe)}.arrow"
    if not path.exists():
        check_target_file(path, "--home")
        meta = StoreMeta(
            source=f"photographs of scikit-image, set {name!r}",
            license=PHOTOGRAPHS_LICENSE,
            noise=recipe.settings.noise,
            split=name,
            test=recipe.test,
        )
        workers = min(workers or usable_cores(), len(recipe.sequences))
        write_store(path, _synthesize_sequences(recipe, progress, workers), meta=meta)
    return path


def photograph(name: str, *, known: Mapping[str, str] = PHOTOGRAPHS) -> UInt8[np.ndarray, "h w"]:
    """One of the known photographs in gray, uint8.

    Raises:
        UserError: if the installed scikit-image lacks it or has another picture of that name.
    """
    from skimage import data  # imported here because it is slow and needed only for a build

    advice = "install scikit-image 0.26, whose photographs the built-in sets are made of"
    try:
        pixels = getattr(data, LOADER_NAMES.get(name, name))()
    except (AttributeError, OSError, ModuleNotFoundError) as e:
        raise UserError(f"scikit-image has no photograph {name!r} here; {advice}") from e
    gray = np.asarray(Image.fromarray(pixels).convert("L"))
    if hashlib.sha256(gray.tobytes()).hexdigest() != known[name]:
        raise UserError(f"scikit-image's photograph {name!r} has unexpected pixels; {advice}")
    return gray


def _cache_key(builtin: BuiltinSet) -> str:
    hashes = [PHOTOGRAPHS[n[2:]] for n in builtin.sequences]
    what = [
        CODE_VERSION,
        builtin.settings.model_dump(),
        builtin.downscale,
        builtin.sequences,
        hashes,
    ]
    return hashlib.sha256(json.dumps(what).encode()).hexdigest()[:12]


def _synthesize_sequences(
    builtin: BuiltinSet, progress: StoreProgress | None, workers: int
) -> Iterator[SequencePatches]:
    jobs = [(name, builtin.settings, builtin.downscale) for name in builtin.sequences]
    built = imap_ordered(_build_sequence, jobs, workers=workers)
    for done, patches in enumerate(built, start=1):
        if progress:
            progress(done, len(jobs), patches.name)
        yield patches


def _build_sequence(job: tuple[str, PhotoSettings, int]) -> SequencePatches:
    name, settings, factor = job
    gray = photograph(name.partition("_")[2])
    if factor > 1:
        gray = np.asarray(Image.fromarray(gray).reduce(factor))
    return photo_sequence(gray, name=name, settings=settings)
