"""Commands for photographs: match, and what describe and evaluate do with pictures."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from hpsearch.cli.app import Home, TrackingUri, app
from hpsearch.cli.completion import complete_models
from hpsearch.cli.search import console_observer
from hpsearch.console.output import print_plain
from hpsearch.defaults import DEFAULT_HOME, ROOT_SIFT
from hpsearch.errors import UserError

BASE_MODEL = "hpsearch-base"
Force = Annotated[bool, typer.Option("--force", help="Replace the output if it exists.")]


def describe_picture(
    model: str,
    image: Path,
    keypoints: Path,
    output: Path,
    force: bool,
    tracking_uri: str | None,
    home: Path,
) -> None:
    """Describe keypoints of a file in a picture."""
    from hpsearch.evaluation.descriptor_io import atomic_output, check_can_write

    if output.suffix not in (".npy", ".txt"):
        raise UserError(f"{output} must end in .npy, or in .txt for COLMAP's layout; rename it")
    check_can_write(output, force=force)
    check_picture_model(model, home)

    import numpy as np

    from hpsearch.data.keypoint_files import colmap_features, read_keypoints
    from hpsearch.workflows.keypoint_descriptors import describe_keypoints

    points = read_keypoints(keypoints)
    found = describe_keypoints(image, points, model=model, tracking_uri=tracking_uri, home=home)
    with atomic_output(output, force=force) as draft:
        if output.suffix == ".txt":
            draft.write_text(colmap_features(points, found), "utf-8")
        else:
            with draft.open("wb") as file:
                np.save(file, found.astype(np.float32))
    print_plain(f"{len(found):,} descriptors of {found.shape[1]} numbers in {output}")


def check_picture_model(model: str, home: Path) -> None:
    """Check a model of pictures before anything heavy is imported."""
    from hpsearch.search.workspace import Workspace

    is_onnx = model.lower().endswith(".onnx") and Path(model).is_file()
    if model.lower() != ROOT_SIFT and not is_onnx:
        Workspace(home).check_model(model)


def evaluate_picture_pairs(
    models: tuple[str, ...],
    folder: Path,
    output: Path | None,
    json_file: Path | None,
    tracking_uri: str | None,
    home: Path,
) -> None:
    """Evaluate on points detected in each picture, and print means over all pairs."""
    if json_file is not None:
        raise UserError("--json is not for --pairs; give --output FOLDER, which has scores.json")
    for name in models:
        check_picture_model(name, home)

    from hpsearch.workflows.evaluate_pairs import evaluate_pairs, pair_table, save_pairs

    models = tuple(dict.fromkeys((*models, ROOT_SIFT)))
    results = evaluate_pairs(
        models, folder, tracking_uri=tracking_uri, home=home, observer=console_observer()
    )
    print_plain(pair_table(results))
    if output is not None:
        save_pairs(results, folder, output, tracking_uri=tracking_uri, home=home)
        print_plain(f"{output}")


class PointDetector(StrEnum):
    """Detector of the points of photographs."""

    hpsearch = "hpsearch"
    opencv = "opencv"


class GeometryName(StrEnum):
    """Geometry of two pictures."""

    homography = "homography"
    fundamental = "fundamental"


@app.command("match", rich_help_panel="Models")
def match_command(
    first: Annotated[Path, typer.Argument(help="A picture.")],
    second: Annotated[Path, typer.Argument(help="Another picture of the same scene.")],
    model: Annotated[
        str,
        typer.Option(
            help="hpsearch-base, rootsift, models:/NAME@ALIAS, SEARCH/TRIAL, or an .onnx file.",
            autocompletion=complete_models,
        ),
    ] = BASE_MODEL,
    points: Annotated[
        int, typer.Option(min=1, max=20_000, help="Largest number of keypoints of a picture.")
    ] = 2000,
    ratio: Annotated[
        float,
        typer.Option(min=0.0, max=1.0, help="Largest ratio of nearest to second nearest distance."),
    ] = 0.9,
    homography: Annotated[
        Path | None, typer.Option(help="File of the true homography, to count correct matches.")
    ] = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="PNG file of the matches.")
    ] = None,
    arrays: Annotated[
        Path | None,
        typer.Option(help=".npz file of keypoints, descriptors and matches, or .csv of matches."),
    ] = None,
    colmap: Annotated[
        Path | None, typer.Option(help="Folder for features and matches that COLMAP imports.")
    ] = None,
    detector: Annotated[
        PointDetector, typer.Option(help="Detector of the points; opencv is its SIFT.")
    ] = PointDetector.hpsearch,
    geometry: Annotated[
        GeometryName,
        typer.Option(help="homography for a flat scene, fundamental for one with depth."),
    ] = GeometryName.homography,
    force: Force = False,
    tracking_uri: TrackingUri = None,
    home: Home = DEFAULT_HOME,
) -> None:
    """Match two photographs, and estimate the homography or fundamental matrix between them.

    Example: hpsearch match first.jpg second.jpg --output matches.png
    """
    from hpsearch.evaluation.descriptor_io import atomic_output, check_can_write

    for file, suffixes in ((output, (".png",)), (arrays, (".npz", ".csv")), (colmap, ())):
        if file is not None and suffixes and file.suffix not in suffixes:
            raise UserError(f"{file} must end in {' or '.join(suffixes)}; rename it")
        if file is not None:
            check_can_write(file, force=force)
    check_picture_model(model, home)

    from hpsearch.workflows import match_images as matching

    if colmap is not None:
        matching.check_colmap_names(first.name, second.name)
    found = matching.match_images(
        first, second, model=model, points=points, ratio=ratio, homography=homography,
        detector=detector.value, geometry=geometry.value, tracking_uri=tracking_uri, home=home,
    )  # fmt: skip
    fitted = "on one homography" if geometry == "homography" else "that fit the fundamental matrix"
    print_plain(
        f"keypoints {len(found.first.descriptors):,} and {len(found.second.descriptors):,}, "
        f"matches {len(found.matches):,}, {fitted} {found.inliers.sum():,}"
    )
    if found.correct is not None:
        print_plain(f"within 3 pixels of the true homography {found.correct.sum():,}")
    if output is not None:
        with atomic_output(output, force=force) as draft:
            matching.draw_matches(found).save(draft, format="PNG")
        print_plain(f"{output}")
    if arrays is not None:
        import numpy as np

        with atomic_output(arrays, force=force) as draft:
            if arrays.suffix == ".csv":
                draft.write_text(matching.match_table(found), "utf-8")
            else:
                with draft.open("wb") as file:
                    np.savez_compressed(file, **matching.match_arrays(found))  # type: ignore[arg-type]
        print_plain(f"{arrays}")
    if colmap is not None:
        with atomic_output(colmap, force=force) as draft:
            matching.save_colmap(found, draft, (first.name, second.name))
        print_plain(f"{colmap}")
