"""Summary of a patch store: facts and a contact sheet."""

import io
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from hpsearch.atomic_files import write_target
from hpsearch.data.patch_store import PatchStore
from hpsearch.data.splits import SPLIT_NAMES
from hpsearch.errors import UserError
from hpsearch.patch_views import SIDE, VIEW_NAMES, VIEWS
from hpsearch.rng import rng_for
from hpsearch.shapes import Int, UInt8

ZOOM_FACTOR = 2
LEFT_PIXELS, TOP_PIXELS, GAP_PIXELS = (
    110,
    16,
    4,
)  # space for sequence names, view names, and between points


def store_facts(store: PatchStore) -> dict[str, str]:
    """Facts about a store by heading, in print order."""
    noise = store.meta.noise
    kinds = [n[:2] for n in store.names]
    return {
        "source": store.meta.source,
        "license": store.meta.license,
        "sequences": f"{len(store.names)} ({kinds.count('i_')} i_, {kinds.count('v_')} v_)",
        "points": f"{sum(store.counts):,} ({min(store.counts)} to {max(store.counts)} a sequence)",
        "patches": f"{len(store.clean_rows):,} of {SIDE}×{SIDE}, clean and noisy",
        "views": _view_facts(store),
        "noise": "part of the data set"
        if noise is None
        else f"σ {noise.easy:g} (ref, easy), {noise.hard:g} (hard), {noise.tough:g} (tough)",
        "fingerprint": store.fingerprint[:16],
        "size": f"{store.path.stat().st_size / 1e6:,.1f} MB",
        "splits": "; ".join(_split_facts(store)),
    }


def contact_sheet(store: PatchStore, *, rows: int = 12, seed: int = 0) -> Image.Image:
    """Image of random points in rows and views in columns, clean patches above noisy ones.

    Sequences alternate, so that few rows show many of them. At most 16 views are shown.
    """
    points = _choose_points(store, rows, seed)
    height = 2 * SIDE * ZOOM_FACTOR + GAP_PIXELS
    columns = min(int(np.diff(store.first_rows)[points].max()), VIEWS)
    names = VIEW_NAMES if store.has_levels else [str(view) for view in range(columns)]
    sheet = Image.new(
        "L", (LEFT_PIXELS + columns * SIDE * ZOOM_FACTOR, TOP_PIXELS + len(points) * height), 255
    )
    draw = ImageDraw.Draw(sheet)
    for view, name in enumerate(names):
        draw.text((LEFT_PIXELS + view * SIDE * ZOOM_FACTOR + 4, 2), name, fill=0)
    for row, point in enumerate(points):
        y = TOP_PIXELS + row * height
        draw.text((4, y + 4), store.names[store.sequence_of[point]], fill=0)
        tiles = Image.fromarray(_point_tiles(store, point))
        sheet.paste(
            tiles.resize((ZOOM_FACTOR * tiles.width, ZOOM_FACTOR * tiles.height), 0),
            (LEFT_PIXELS, y),
        )
    return sheet


def save_contact_sheet(store: PatchStore, out: Path, *, rows: int = 12, seed: int = 0) -> Path:
    """Write the contact sheet as a PNG.

    Raises:
        UserError: if the file cannot be written.
    """
    picture = io.BytesIO()
    contact_sheet(store, rows=rows, seed=seed).save(picture, format="PNG")
    try:
        write_target(out, picture.getvalue())
    except OSError as e:
        raise UserError(f"cannot write {out} ({e.strerror}); choose another file") from e
    return Path(out)


def _split_facts(store: PatchStore) -> list[str]:
    found = []
    for name in SPLIT_NAMES:
        try:
            split = store.split(name)
        except UserError:
            continue
        sizes = "+".join(str(len(p)) for p in (split.train, split.validation, split.test))
        found.append(f"{name} = {split.name} {sizes}" if name == "auto" else f"{name} {sizes}")
    return found


def _choose_points(store: PatchStore, rows: int, seed: int) -> Int[np.ndarray, " rows"]:
    rng = rng_for(seed, "preview", 0)
    order = rng.permutation(len(store.names))
    shuffled = [store.starts[s] + rng.permutation(store.counts[s]) for s in order]
    turns = [p[k] for k in range(max(store.counts)) for p in shuffled if k < len(p)]
    return np.array(turns[:rows])


def _point_tiles(store: PatchStore, point: int) -> UInt8[np.ndarray, "64 w"]:
    first, stop = store.first_rows[point : point + 2]
    rows = slice(first, min(stop, first + VIEWS))
    pair = np.stack([store.clean_rows[rows], store.noisy_rows[rows]])
    return pair.transpose(0, 2, 1, 3).reshape(2 * SIDE, -1)


def _view_facts(store: PatchStore) -> str:
    if store.views is None:
        return " ".join(VIEW_NAMES)
    views = np.diff(store.first_rows)
    pairs = sum(len(v.pairs) for v in store.views)
    official = f", {pairs:,} pairs for verification" if pairs else ""
    return f"{views.min()} to {views.max()} a point, without levels{official}"
