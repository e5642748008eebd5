"""Give a store of gcompris-qt's photographs a split of its own, by scene.

Some places are shown by two or more of the photographs. All of these go into the test part, so that
no scene is in two parts; the rest of it is drawn. A fifth of the others validates.

    python benchmarks/photograph_scenes.py all.arrow photographs.arrow
"""

import sys
from collections.abc import Iterable
from pathlib import Path

from hpsearch.data.patch_store import PatchStore, SequencePatches, StoreMeta, write_store
from hpsearch.rng import rng_for

SCENES = {
    "Notre-Dame": ("details_0000", "explore_monuments_0066"),
    "Taj Mahal": ("details_0004", "explore_monuments_0096"),
    "Neuschwanstein": ("details_0012", "explore_monuments_0101"),
    "Chenonceau": ("details_0018", "explore_monuments_0064"),
    "pyramids": ("details_0016", *(f"explore_monuments_00{n}" for n in (70, 71, 72, 73))),
}
"""Photographs of one place, as found by looking at all of them."""
TEST_SHARE = 0.3
LICENSE = (
    "Photographs of GCompris (Debian package gcompris-qt-data 3.1-2), each under its own license, "
    "see the LICENSE and README files of its activities; not for redistribution with this project"
)


def choose_test_part(names: Iterable[str], *, share: float) -> tuple[str, ...]:
    """Every photograph of a shared scene, and others by lot, balanced over ``i_`` and ``v_``."""
    shared = {photograph for photographs in SCENES.values() for photograph in photographs}
    chosen = []
    for kind in ("i_", "v_"):
        own = sorted(name for name in names if name.startswith(kind))
        fixed = [name for name in own if name[2:] in shared]
        others = [name for name in own if name[2:] not in shared]
        lots = rng_for(0, f"scenes {kind}", 0).permutation(others).tolist()
        chosen += [*fixed, *lots[: max(0, round(share * len(own)) - len(fixed))]]
    return tuple(sorted(chosen))


def main() -> None:
    source, target = PatchStore.open(sys.argv[1]), Path(sys.argv[2])
    meta = StoreMeta(
        source="photographs of gcompris-qt-data 3.1-2",
        license=LICENSE,
        noise=source.meta.noise,
        split="scenes",
        test=choose_test_part(source.names, share=TEST_SHARE),
    )
    stops = [start + count for start, count in zip(source.starts, source.counts, strict=True)]
    parts = zip(source.names, source.starts, stops, strict=True)
    sequences = (SequencePatches(n, source.clean[a:b], source.noisy[a:b]) for n, a, b in parts)
    split = write_store(target, sequences, meta=meta).split()
    sizes = {part: len(getattr(split, part)) for part in ("train", "validation", "test")}
    sys.stdout.write(f"{target}: {sizes}\n")


if __name__ == "__main__":
    main()
