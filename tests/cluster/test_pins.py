"""Every version below ``cluster/`` is the one that was tested."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).parents[2]
FILES = ("launcher.txt", "tpu.txt", "mlflow/server.txt")


def pinned(text: str) -> Iterator[tuple[str, str]]:
    """Name, as package indices write it, and version of every requirement.

    Raises:
        ValueError: if one has no exact version.
    """
    for line in text.splitlines():
        requirement = line.split("#")[0].strip()
        if not requirement:
            continue
        name, equals, version = requirement.partition("==")
        if not equals:
            raise ValueError(f"{requirement!r} has no exact version")
        yield re.sub(r"[-_.]+", "-", name).lower(), version


@pytest.fixture(scope="session")
def pins() -> dict[str, str]:
    """The versions that were tested together, by name."""
    return dict(pinned((ROOT / "constraints.txt").read_text()))


def strays(text: str, pins: dict[str, str]) -> list[str]:
    """Requirements that constraints.txt pins to another version."""
    return [name for name, version in pinned(text) if pins.get(name, version) != version]


def images(document: Any) -> Iterator[str]:
    """Every image that a document names, whatever the key is called."""
    if isinstance(document, dict):
        for key, value in document.items():
            if str(key).endswith("image") and isinstance(value, str):
                yield value
            yield from images(value)
    elif isinstance(document, list):
        for value in document:
            yield from images(value)


def floating(image: str) -> bool:
    """Whether tomorrow's image of that name may be another one."""
    return not re.fullmatch(r".+:v?\d+(\.\d+)+[-.\w]*(@sha256:[0-9a-f]{64})?", image)


@pytest.mark.parametrize("name", ["launcher.txt", "mlflow/server.txt"])
def test_requirements_agree_with_the_constraints(
    cluster: Path, pins: dict[str, str], name: str
) -> None:
    assert strays((cluster / name).read_text(), pins) == []


def test_another_version_is_noticed(pins: dict[str, str]) -> None:
    assert strays("numpy==1.0\nray==" + pins["ray"], pins) == ["numpy"]
    with pytest.raises(ValueError, match="no exact version"):
        strays("boto3>=1", pins)


def test_the_same_package_has_one_version_in_all_files(cluster: Path) -> None:
    found: dict[str, set[str]] = {}
    for file in FILES:
        for name, version in pinned((cluster / file).read_text()):
            found.setdefault(name, set()).add(version)
    assert {name: versions for name, versions in found.items() if len(versions) > 1} == {}


def test_torch_for_tpus_fits_its_compiler_and_our_range(
    cluster: Path, pins: dict[str, str], project: dict[str, Any]
) -> None:
    text = (cluster / "tpu.txt").read_text()
    tpu = dict(pinned(text))
    assert strays(text, pins) == ["torch"], "nothing but torch may leave the constraints"
    assert tpu["torch"].split(".")[:2] == tpu["torch-xla"].split(".")[:2]
    wanted = [*project["dependencies"], *project["optional-dependencies"].get("tpu", [])]
    for requirement in map(Requirement, wanted):
        name = requirement.name.replace("_", "-")
        if name in tpu:
            assert requirement.specifier.contains(tpu[name]), requirement


def test_images_are_pinned_and_ours_have_this_version(
    documents: dict[str, list[Any]], project: dict[str, Any]
) -> None:
    found = {image for parts in documents.values() for part in parts for image in images(part)}
    assert len(found) >= 6
    assert [image for image in found if floating(image)] == []
    tags = {image.split("@")[0].rpartition(":")[2] for image in found if "hpsearch" in image}
    assert tags == {project["version"] + device for device in ("", "-cpu", "-cuda", "-tpu")}


def test_an_image_without_a_version_is_noticed() -> None:
    bad = ["mlflow", "mlflow:latest", "mlflow:nightly", "mlflow:3"]
    assert all(map(floating, bad))
    assert not floating("postgres:17.6-bookworm")


def test_clusters_name_the_ray_of_their_image(
    documents: dict[str, list[Any]], pins: dict[str, str]
) -> None:
    (cluster,), (job,) = documents["kuberay/raycluster.yaml"], documents["kuberay/rayjob.yaml"]
    versions = {cluster["spec"]["rayVersion"], job["spec"]["rayClusterSpec"]["rayVersion"]}
    assert versions == {pins["ray"]}
