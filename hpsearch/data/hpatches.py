"""From an HPatches or N-HPatches tree to one patch store."""

from collections import Counter
from functools import partial
from pathlib import Path
from typing import NamedTuple

from pydantic import Field

from hpsearch.config.base import Setting
from hpsearch.data.header import Digests
from hpsearch.data.layout import VIEWS, Layout, planned
from hpsearch.data.meta import NoiseLevels, Progress, StoreMeta
from hpsearch.data.noise import add_noise
from hpsearch.data.parallel import in_order, usable_cores
from hpsearch.data.store import PatchStore
from hpsearch.data.strips import SequenceFolder, inspect, read_views, strip
from hpsearch.errors import UserError

MAX_WORKERS = 6
"""A worker holds one sequence, up to 150 MB; more of them could pass 1 GB together."""
LICENCE = "HPatches (Balntas et al., CVPR 2017): see the licence of the release it was read from"


class ImportSettings(Setting):
    """How a tree is read."""

    noise: NoiseLevels = NoiseLevels()
    """Of the noisy patches, where the set has none."""
    seed: int = Field(default=0, ge=0)
    skip_bad: bool = False
    """Leave a sequence with a bad strip out instead of giving up."""


class Imported(NamedTuple):
    """A finished import."""

    store: PatchStore
    left_out: dict[str, str]
    """What was wrong, by sequence."""


class Tree(NamedTuple):
    """The sequences of a tree, told good from bad by the headers of their strips."""

    good: list[SequenceFolder]
    bad: dict[str, str]


def import_tree(
    path: Path,
    out: Path,
    *,
    settings: ImportSettings = ImportSettings(),  # noqa: B008  frozen
    workers: int | None = None,
    progress: Progress | None = None,
) -> Imported:
    """Read the tree at ``path`` into a store at ``out``, which appears whole or not at all.

    Sequences are shared among ``workers`` processes, which write them straight into their places.

    Raises:
        UserError: if there are no sequences, the disk has no room, or a strip is bad (its message
            names the file and what was expected).
    """
    tree = scan(Path(path))
    left_out = dict(tree.bad)
    while True:
        _give_up(tree.good, left_out, settings)
        store, bad = _write(tree.good, Path(out), settings, workers, progress)
        if store is not None:
            return Imported(store, left_out)
        # A strip that looks whole from outside shows its damage late; the next store lacks it.
        left_out |= bad
        tree = tree._replace(good=[s for s in tree.good if s.name not in left_out])


def scan(path: Path) -> Tree:
    """Find the sequences under ``path`` and check the headers of their strips.

    Raises:
        UserError: if there are none.
    """
    good, bad = [], {}
    for folder in _sequence_folders(path):
        try:
            good.append(inspect(folder))
        except UserError as e:
            bad[folder.name] = str(e)
    if good:
        usual = Counter(s.kind for s in good).most_common(1)[0][0]
        for s in good:
            if s.kind != usual:
                bad[s.name] = f"{s.path} has strips {s.kind}; expected {usual} like the others"
        good = [s for s in good if s.kind == usual]
    return Tree(good, bad)


def _sequence_folders(path: Path) -> list[Path]:
    if not path.is_dir():
        raise UserError(f"no folder at {path}; give the folder that holds the sequences")
    inner = sorted(p for p in path.iterdir() if p.is_dir() and not p.name.startswith("."))
    found = [p for p in inner if any(strip(p, v, noisy=False).exists() for v in range(VIEWS))]
    if not found and len(inner) == 1:
        return _sequence_folders(inner[0])  # archives wrap everything into one folder
    if not found:
        raise UserError(
            f"{path} holds no sequences; expected folders with ref.png, e1.png … t5.png"
        )
    return found


def _give_up(good: list[SequenceFolder], bad: dict[str, str], settings: ImportSettings) -> None:
    if bad and (not settings.skip_bad or not good):
        first = next(iter(bad.values()))
        more = f", and {len(bad) - 1} more sequences are bad" if len(bad) > 1 else ""
        advice = "" if not good else "; mend it, or leave such sequences out with --skip-bad"
        raise UserError(first + more + advice)


def _write(
    sequences: list[SequenceFolder],
    out: Path,
    settings: ImportSettings,
    workers: int | None,
    progress: Progress | None,
) -> tuple[PatchStore | None, dict[str, str]]:
    """The sealed store, or none and what was wrong with which sequence."""
    names, counts = [s.name for s in sequences], [s.points for s in sequences]
    meta = _meta(sequences[0], settings)
    parts: list[Digests] = []
    bad: dict[str, str] = {}
    with planned(out, names=names, counts=counts, meta=meta) as layout:
        work = partial(_convert, layout=layout, sequences=sequences, settings=settings)
        workers = min(workers or usable_cores(), len(sequences), MAX_WORKERS)
        results = in_order(work, range(len(sequences)), workers=workers)
        for done, (name, result) in enumerate(zip(names, results, strict=True), start=1):
            if isinstance(result, Digests):
                parts.append(result)
            else:
                bad[name] = result
                _give_up(sequences, bad, settings)
            if progress:
                progress(done, len(names), name)
        if bad:
            return None, bad
        layout.seal(out, parts)
    return PatchStore.open(out), {}


def _convert(
    position: int, *, layout: Layout, sequences: list[SequenceFolder], settings: ImportSettings
) -> Digests | str:
    """Write one sequence into its place; a bad strip comes back as what is wrong with it."""
    sequence = sequences[position]
    try:
        pixels = read_views(sequence, noisy=False)
        clean = layout.write(position, pixels, noisy=False)
        if sequence.kind.twins:
            pixels = read_views(sequence, noisy=True)
        else:
            pixels = add_noise(
                pixels, name=sequence.name, levels=settings.noise, seed=settings.seed, out=pixels
            )
    except UserError as e:
        return str(e)
    return Digests(clean, layout.write(position, pixels, noisy=True))


def _meta(sequence: SequenceFolder, settings: ImportSettings) -> StoreMeta:
    twins = sequence.kind.twins
    kind = "N-HPatches" if twins else "HPatches"
    return StoreMeta(
        source=f"{kind}, strips {sequence.kind}",
        licence=LICENCE,
        noise=None if twins else settings.noise,
    )
