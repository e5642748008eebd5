"""Commands for patch sets: ``hpsearch data`` build, info, preview, and one for each source."""

from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hpsearch.atomic_files import check_target_file
from hpsearch.cli.app import Home, app
from hpsearch.cli.old_words import CommandGroup
from hpsearch.console.output import out, print_plain
from hpsearch.console.progress_bars import progress_bar
from hpsearch.data.arrow_header import NoiseLevels
from hpsearch.defaults import DEFAULT_HOME
from hpsearch.errors import UserError

if TYPE_CHECKING:
    from hpsearch.data.patch_store import PatchStore

data = typer.Typer(
    help="Build, import and inspect patch sets.", cls=CommandGroup, no_args_is_help=True
)
app.add_typer(data, name="data", rich_help_panel="Data")

Store = Annotated[str, typer.Argument(help="mini, tiny, or the path of a store.")]
Workers = Annotated[
    int | None, typer.Option(min=1, help="Number of processes (default: all cores).")
]
Seed = Annotated[
    int, typer.Option(min=0, help="Seed of the noise, and of how photographs are transformed.")
]
Easy = Annotated[
    float, typer.Option(help="Standard deviation of the noise on ref and e1..e5, in gray levels.")
]
Hard = Annotated[
    float, typer.Option(help="Standard deviation of the noise on h1..h5, in gray levels.")
]
Tough = Annotated[
    float, typer.Option(help="Standard deviation of the noise on t1..t5, in gray levels.")
]
StoreOutput = Annotated[Path, typer.Option("--output", "-o", help="The store to write.")]
Force = Annotated[bool, typer.Option("--force", help="Replace the output if it exists.")]
DEFAULT_NOISE = NoiseLevels()


@data.command("build")
def build(
    name: Annotated[str, typer.Argument(help="mini or tiny.")] = "mini", home: Home = DEFAULT_HOME
) -> None:
    """Build a built-in patch set from photographs.

    Example: hpsearch data build mini
    """
    from hpsearch.search.workspace import Workspace

    with progress_bar("building") as advance:
        store = Workspace(home).store(name, progress=advance)
    print_facts(store)


@data.command("import")
def import_command(
    path: Annotated[Path, typer.Argument(help="An HPatches or N-HPatches tree, or its archive.")],
    output: StoreOutput,
    skip_invalid: Annotated[
        bool, typer.Option("--skip-invalid", help="Leave out sequences with an invalid strip.")
    ] = False,
    easy: Easy = DEFAULT_NOISE.easy,
    hard: Hard = DEFAULT_NOISE.hard,
    tough: Tough = DEFAULT_NOISE.tough,
    seed: Seed = 0,
    workers: Workers = None,
    force: Force = False,
) -> None:
    """Read an HPatches (65×65) or N-HPatches (32×32 with _noise twins) tree into a store.

    The kind of tree is detected. Noise is added if the set has none.

    Example: hpsearch data import hpatches-release --output hpatches.arrow
    """
    check_output(output, force=force)

    from hpsearch.data.hpatches_import import ImportSettings, import_tree

    noise = NoiseLevels(easy=easy, hard=hard, tough=tough)
    settings = ImportSettings(noise=noise, seed=seed, skip_invalid=skip_invalid)
    with progress_bar("importing") as advance:
        found = import_tree(path, output, settings=settings, workers=workers, progress=advance)
    print_facts(found.store)
    _print_skipped(found.skipped)


class PhotoViews(StrEnum):
    """Views of the points of photographs."""

    protocol = "protocol"
    detected = "detected"


@data.command("photos")
def photos(
    folder: Annotated[
        Path, typer.Argument(help="A folder or archive of JPEG, PNG or WebP photographs.")
    ],
    output: StoreOutput,
    points: Annotated[
        int, typer.Option(min=1, max=2000, help="Largest number of points of a photograph.")
    ] = 300,
    views: Annotated[
        PhotoViews,
        typer.Option(
            help="protocol: 16 views with levels; detected: what a detector finds in warps."
        ),
    ] = PhotoViews.protocol,
    warps: Annotated[
        int | None,
        typer.Option(min=1, max=100, help="Warps of a photograph, for detected views (14)."),
    ] = None,
    tilt: Annotated[
        float | None,
        typer.Option(
            min=1, max=75, help="Largest angle to the camera in degrees, for detected views (65)."
        ),
    ] = None,
    easy: Easy = DEFAULT_NOISE.easy,
    hard: Hard = DEFAULT_NOISE.hard,
    tough: Tough = DEFAULT_NOISE.tough,
    seed: Seed = 0,
    workers: Workers = None,
    force: Force = False,
) -> None:
    """Build a patch set from a folder of photographs, one sequence per photograph.

    Detected views have the errors of a detector, and their number differs from point to point.

    Example: hpsearch data photos ~/Pictures --output mine.arrow
    """
    detected = views is PhotoViews.detected
    chosen = {"warps": warps, "tilt": tilt}
    own = {name: value for name, value in chosen.items() if value is not None}
    if own and not detected:
        raise UserError(f"--{next(iter(own))} is for detected views only; add --views detected")
    check_output(output, force=force)

    from hpsearch.data.detected_views import DetectedViewSettings
    from hpsearch.data.photo_folder import import_photos
    from hpsearch.data.photo_synthesis import PhotoSettings

    noise = NoiseLevels(easy=easy, hard=hard, tough=tough)
    make = partial(DetectedViewSettings, **own) if detected else PhotoSettings
    settings = make(points=points, noise=noise, seed=seed)
    with progress_bar("building") as advance:
        found = import_photos(folder, output, settings=settings, workers=workers, progress=advance)
    print_facts(found.store)
    _print_skipped(found.skipped)


@data.command("sequences")
def sequences(
    folder: Annotated[
        Path,
        typer.Argument(help="A folder or archive of sequences of six pictures with homographies."),
    ],
    output: StoreOutput,
    points: Annotated[
        int, typer.Option(min=1, max=5000, help="Largest number of points of a sequence.")
    ] = 1000,
    easy: Easy = DEFAULT_NOISE.easy,
    hard: Hard = DEFAULT_NOISE.hard,
    tough: Tough = DEFAULT_NOISE.tough,
    seed: Seed = 0,
    workers: Workers = None,
    force: Force = False,
) -> None:
    """Build a patch set for testing from full pictures with known homographies.

    HPatches' full images (1.ppm … 6.ppm, H_1_2 … H_1_6) and Oxford's naming (img1.png, H1to2p) are
    read; every sequence is in the test part.

    Example: hpsearch data sequences hpatches-sequences-release --output hpatches-images.arrow
    """
    check_output(output, force=force)

    from hpsearch.data.image_sequences import SequenceSettings, import_sequences

    noise = NoiseLevels(easy=easy, hard=hard, tough=tough)
    settings = SequenceSettings(points=points, noise=noise, seed=seed)
    with progress_bar("building") as advance:
        found = import_sequences(
            folder, output, settings=settings, workers=workers, progress=advance
        )
    print_facts(found.store)
    _print_skipped(found.skipped)


@data.command("phototour")
def phototour(
    folder: Annotated[
        Path, typer.Argument(help="A folder or archive of scenes: liberty, notredame, yosemite.")
    ],
    output: StoreOutput,
    pairs: Annotated[
        int | None,
        typer.Option(
            min=1, help="List of pairs m50_N_N_0.txt to keep (default: 100000, else the longest)."
        ),
    ] = None,
    easy: Easy = DEFAULT_NOISE.easy,
    hard: Hard = DEFAULT_NOISE.hard,
    tough: Tough = DEFAULT_NOISE.tough,
    seed: Seed = 0,
    workers: Workers = None,
    force: Force = False,
) -> None:
    """Read scenes of UBC PhotoTour (Brown) into a store, one sequence per scene.

    Points have as many views as there are, without levels. The official pairs are kept, for the
    false positive rate at 95 % recall.

    Example: hpsearch data phototour liberty.zip --output liberty.arrow
    """
    check_output(output, force=force)

    from hpsearch.data.phototour import PhototourSettings, import_phototour

    noise = NoiseLevels(easy=easy, hard=hard, tough=tough)
    settings = PhototourSettings(noise=noise, seed=seed, pairs=pairs)
    with progress_bar("importing") as advance:
        found = import_phototour(
            folder, output, settings=settings, workers=workers, progress=advance
        )
    print_facts(found.store)


@data.command("arrays")
def arrays(
    patches: Annotated[
        Path, typer.Argument(help="A .npy file of patches: n×32×32, n×64×64 or n×65×65, uint8.")
    ],
    output: StoreOutput,
    points: Annotated[
        Path, typer.Option(help="A .npy file of n numbers or texts: the point of each patch.")
    ],
    sequences: Annotated[
        Path | None,
        typer.Option(help="A .npy file of n names: the sequence of each patch (default: one)."),
    ] = None,
    easy: Easy = DEFAULT_NOISE.easy,
    hard: Hard = DEFAULT_NOISE.hard,
    tough: Tough = DEFAULT_NOISE.tough,
    seed: Seed = 0,
    force: Force = False,
) -> None:
    """Build a patch set from your own correspondences, such as the tracks of COLMAP.

    Patches of one point are its views; a sequence is trained, validated or tested as a whole.

    Example: hpsearch data arrays patches.npy --points ids.npy --sequences names.npy -o own.arrow
    """
    check_output(output, force=force)

    from hpsearch.data.array_import import ArraySettings, import_arrays

    settings = ArraySettings(noise=NoiseLevels(easy=easy, hard=hard, tough=tough), seed=seed)
    with progress_bar("importing") as advance:
        store = import_arrays(
            patches, output, points=points, sequences=sequences, settings=settings, progress=advance
        )
    print_facts(store)


@data.command("info")
def info(
    store: Store,
    verify: Annotated[
        bool, typer.Option("--verify", help="Read every patch and compare with the fingerprint.")
    ] = False,
    home: Home = DEFAULT_HOME,
) -> None:
    """Print the contents of a patch store.

    Example: hpsearch data info mini
    """
    from hpsearch.search.workspace import Workspace

    opened = Workspace(home).store(store)
    if verify:
        opened.verify()
    print_facts(opened)


@data.command("preview")
def preview(
    store: Store,
    output: Annotated[Path, typer.Option("--output", "-o", help="The PNG file to write.")] = Path(
        "preview.png"
    ),
    rows: Annotated[int, typer.Option(min=1, max=200, help="Number of points to show.")] = 12,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the choice of points.")] = 0,
    force: Force = False,
    home: Home = DEFAULT_HOME,
) -> None:
    """Draw a contact sheet: one row per point, one column per view, clean above noisy.

    Example: hpsearch data preview mini --output preview.png
    """
    check_output(output, force=force)

    from hpsearch.data.preview import save_contact_sheet
    from hpsearch.search.workspace import Workspace

    save_contact_sheet(Workspace(home).store(store), output, rows=rows, seed=seed)
    out.print(f"{output}", soft_wrap=True)


def check_output(output: Path, *, force: bool) -> None:
    """Check before work that an output can be written, and may be replaced if it exists.

    Raises:
        UserError: if it exists and ``force`` is not set, or cannot be written.
    """
    if output.is_file() and not force:
        raise UserError(
            f"{output} exists already; choose another --output, or replace it with --force",
            code="output-exists",
        )
    check_target_file(output, "--output")


def print_facts(store: "PatchStore") -> None:
    """Print the contents of a store, one fact per line."""
    from hpsearch.data.preview import store_facts

    out.print(f"{store.path}", soft_wrap=True)
    for name, value in store_facts(store).items():
        print_plain(f"  {name:<12} {value}")


def _print_skipped(skipped: dict[str, str]) -> None:
    if skipped:
        out.print(f"skipped: {len(skipped)}")
    for name, why in skipped.items():
        print_plain(f"  {name}: {why}")
