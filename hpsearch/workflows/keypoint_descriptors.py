"""Detection of keypoints in pictures, and their description by a model."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
from PIL import Image

from hpsearch.data.image_sequences import load_stored_gray
from hpsearch.data.images import area_downsample
from hpsearch.data.keypoint_files import as_keypoints
from hpsearch.data.photo_keypoints import (
    HALF_SIDE_SIGMAS,
    Keypoints,
    detect,
    detect_sift,
)
from hpsearch.data.photo_synthesis import BORDER_PIXELS, extract_patches, inside, squares
from hpsearch.defaults import DEFAULT_HOME, ROOT_SIFT
from hpsearch.errors import UserError
from hpsearch.evaluation.baselines import root_sift
from hpsearch.models.onnx_export import onnx_descriptor
from hpsearch.models.serialization import LoadedPipeline, describe_any
from hpsearch.promotion.model_evaluation import load_pipeline_by_ref
from hpsearch.search.workspace import Workspace
from hpsearch.shapes import Float, UInt8
from hpsearch.untrusted import check_is_file

BASE_MODEL = "hpsearch-base"
MAX_SIDE = 1600
"""Longer side in pixels above which points are detected in a reduced picture."""
Detector = Literal["hpsearch", "opencv"]
PEAK_SHARE = 0.8
"""Share of the highest peak from which on a further orientation makes a keypoint (Lowe 2004)."""


class ImageFeatures(NamedTuple):
    """Keypoints of one picture with their descriptors."""

    gray: UInt8[np.ndarray, "h w"]
    keypoints: Keypoints
    descriptors: Float[np.ndarray, "n d"]


class DescriptorFunction(NamedTuple):
    """Descriptor of patches, by a pipeline, or by any other function such as RootSIFT."""

    pipeline: LoadedPipeline | None
    function: Callable[[UInt8[np.ndarray, "n 32 32"]], Float[np.ndarray, "n d"]] = root_sift
    """The descriptor if there is no pipeline."""

    def __call__(self, patches: UInt8[np.ndarray, "n 32 32"]) -> Float[np.ndarray, "n d"]:
        """Descriptors of patches, one a row."""
        if self.pipeline is None:
            return self.function(patches)
        return describe_any(self.pipeline, patches)


def load_descriptor_function(
    model: str, *, tracking_uri: str | None = None, home: str | Path = DEFAULT_HOME
) -> DescriptorFunction:
    """Descriptor function of a model, of an ``.onnx`` file, or of RootSIFT.

    Raises:
        UserError: if there is no such model.
    """
    if model.lower() == ROOT_SIFT:
        return DescriptorFunction(None)
    if is_onnx(model):
        return DescriptorFunction(None, onnx_descriptor(Path(model)))
    return DescriptorFunction(load_pipeline_by_ref(model, Workspace(Path(home)), uri=tracking_uri))


def is_onnx(model: str) -> bool:
    """True if a reference is that of an ``.onnx`` file that exists."""
    return model.lower().endswith(".onnx") and Path(model).is_file()


def describe_keypoints(
    image: str | Path | UInt8[np.ndarray, "h w"],
    keypoints: Any,
    *,
    model: str | DescriptorFunction = BASE_MODEL,
    tracking_uri: str | None = None,
    home: str | Path = DEFAULT_HOME,
) -> Float[np.ndarray, "n d"]:
    """Descriptors of one's own keypoints, one a row, in their order.

    The side of a patch is 10 σ, of which OpenCV's size is 2 σ. Where a patch leaves the picture,
    the border is repeated.

    Args:
        image: a picture's file, or its gray levels.
        keypoints: an array (n, 4) of x, y, size and angle in degrees as OpenCV counts them, a
            sequence of OpenCV's ``KeyPoint``, or ``Keypoints``.
        model: a reference of a model, as ``match_images`` takes, or what
            ``load_descriptor_function`` returned.
        tracking_uri: address of MLflow; SQLite in ``home`` if None.
        home: folder of data, searches and MLflow's files.

    Raises:
        UserError: if the picture or the model cannot be read, or a keypoint is invalid, lies
            outside the picture, or is much larger than it.
    """
    gray = load_stored_gray(existing_file(image)) if isinstance(image, str | Path) else image
    points = as_keypoints(keypoints)
    size = gray.shape[::-1]
    outside = np.flatnonzero(((points.xy < 0) | (points.xy > size)).any(1))
    if len(outside):
        x, y = points.xy[outside[0]]
        raise UserError(
            f"keypoint {outside[0] + 1} at ({x:g}, {y:g}) lies outside the picture of "
            f"{size[0]}×{size[1]}; give the keypoints of this picture"
        )
    larger = np.flatnonzero(points.sigma > max(size))  # blurring for it would fill the memory
    if len(larger):
        raise UserError(
            f"keypoint {larger[0] + 1} has the size {2 * points.sigma[larger[0]]:g}, more than "
            f"twice the longer side of the picture of {size[0]}×{size[1]}; give sizes in its pixels"
        )
    if isinstance(model, str):
        model = load_descriptor_function(model, tracking_uri=tracking_uri, home=home)
    reach = np.sqrt(2) * HALF_SIDE_SIGMAS * points.sigma[:, None]
    beyond = max(float((reach - points.xy).max()), float((points.xy + reach - size).max()), 0)
    border = min(int(np.ceil(beyond)) + 2 if beyond else 0, max(size))
    padded = np.pad(gray, border, mode="edge")
    return model(keypoint_patches(padded, points._replace(xy=points.xy + border)))


def keypoint_patches(
    gray: UInt8[np.ndarray, "h w"], keypoints: Keypoints
) -> UInt8[np.ndarray, "n 32 32"]:
    """Patches of keypoints, whose half side is 5 σ, turned to the angle."""
    return area_downsample(extract_patches(gray, squares(keypoints)))


def detect_and_describe(
    gray: UInt8[np.ndarray, "h w"],
    file: str | Path,
    describe: DescriptorFunction,
    points: int,
    *,
    detector: Detector = "hpsearch",
) -> ImageFeatures:
    """Keypoints of a picture whose patches lie inside, and their descriptors.

    Raises:
        UserError: as ``detect_inside``.
    """
    found = detect_inside(gray, file, points, detector=detector, peak_share=PEAK_SHARE)
    return ImageFeatures(gray, found, describe(keypoint_patches(gray, found)))


def detect_inside(
    gray: UInt8[np.ndarray, "h w"],
    file: str | Path,
    points: int,
    *,
    detector: Detector = "hpsearch",
    peak_share: float = 1.0,
) -> Keypoints:
    """Keypoints of a picture whose patches lie inside it by 3 pixels.

    Args:
        gray: gray levels; points of larger pictures are detected at 1600 pixels.
        file: name of the picture, for an error message.
        points: maximum number of points.
        detector: as ``match_images`` takes.
        peak_share: as ``detect`` takes; OpenCV's own is 0.8.

    Raises:
        UserError: if there are none, or OpenCV is asked for and not installed.
    """
    scale = max(1.0, max(gray.shape) / MAX_SIDE)
    size = [max(round(side / scale), 1) for side in gray.shape[::-1]]
    reduced = gray
    if scale > 1:
        reduced = np.asarray(Image.fromarray(gray).resize(size, Image.Resampling.BOX))
    if detector == "opencv":
        found = detect_sift(reduced, limit=points)
    else:
        found = detect(reduced.astype(np.float32), limit=points, peak_share=peak_share)
    factor = np.array(gray.shape[::-1]) / size
    found = Keypoints(found.xy * factor, found.sigma * factor.mean(), found.angle)
    kept = inside(squares(found), *gray.shape[::-1], margin=BORDER_PIXELS)
    found = Keypoints(*(part[kept] for part in found))
    if not len(found.xy):
        raise UserError(f"{file} has no keypoints; give a larger picture with more structure")
    return found


def existing_file(file: str | Path) -> Path:
    """Path of a file.

    Raises:
        UserError: if there is none, or it is a folder.
    """
    check_is_file(Path(file))
    return Path(file)
