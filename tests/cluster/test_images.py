"""Digests of images: every image is on the list, and the script writes what a registry says."""

import importlib.util
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from tests.servers import serving

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "cluster" / "pin_images.py"
TOKEN = "for-anybody"


@pytest.fixture(scope="module")
def pin_images() -> ModuleType:
    spec = importlib.util.spec_from_file_location("pin_images", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class Registry(BaseHTTPRequestHandler):
    """A registry that gives a token to anybody, and a digest to who brings it."""

    digests: dict[str, str]  # by repository:tag

    def do_GET(self) -> None:
        body = f'{{"token": "{TOKEN}"}}'.encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_HEAD(self) -> None:
        found = re.fullmatch(r"/v2/(.+)/manifests/(.+)", self.path)
        digest = self.digests.get(":".join(found.groups())) if found else None
        if self.headers["Authorization"] != f"Bearer {TOKEN}":
            self.send_response(401)
            here = f"http://{self.headers['Host']}/token"
            self.send_header("WWW-Authenticate", f'Bearer realm="{here}",service="test"')
        elif digest is None or "image.index" not in self.headers["Accept"]:
            self.send_response(404)
        else:
            self.send_response(200)
            self.send_header("Docker-Content-Digest", digest)
        self.end_headers()

    def log_message(self, format: str, *args: Any) -> None:
        pass


@pytest.fixture
def registry() -> Iterator[str]:
    """Host and port of a registry that knows every image of the list."""
    Registry.digests = {}
    server = ThreadingHTTPServer(("127.0.0.1", 0), Registry)
    with serving(server):
        yield f"127.0.0.1:{server.server_port}"


@pytest.fixture
def folder(tmp_path: Path, registry: str) -> Path:
    """A copy of cluster/ whose images all come from the registry of the test."""
    copy = tmp_path / "cluster"
    shutil.copytree(ROOT / "cluster", copy, ignore=shutil.ignore_patterns("my-*", "__pycache__"))
    for path in copy.rglob("*"):
        if path.is_file():
            text = path.read_text()
            text = re.sub(
                r"(?<![\w/.])(python|postgres|rustfs/rustfs)(?=:\d)", rf"{registry}/\1", text
            )
            path.write_text(re.sub(r"@sha256:\w{64}", "", text))
    return copy


def run(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, SCRIPT, "--folder", folder, "--scheme", "http", *arguments],
        capture_output=True, text=True, timeout=30,
    )  # fmt: skip


def named_images(folder: Path) -> set[str]:
    """What FROM, and keys that end in ``image``, name below a folder; not what compose builds."""
    found = set()
    for path in [*folder.rglob("Dockerfile"), *folder.rglob("*.yaml")]:
        lines = [line for line in path.read_text().splitlines() if not line.startswith("#")]
        for line in lines:
            match = re.match(r"FROM (\S+:\S+)|[\s-]*\w*image: (?:&\w+ )?([^*\s]\S*)", line)
            if match and not path.name.startswith("my-"):
                found.add(match[1] or match[2])
    return found - {"hpsearch-mlflow:0.2.0"}


def test_every_image_is_on_the_list_and_no_other(pin_images: ModuleType) -> None:
    listed = pin_images.read_images((ROOT / "cluster" / "images.txt").read_text())
    assert len(listed) == len(set(listed))
    assert {image.split("@")[0] for image in named_images(ROOT / "cluster")} == set(listed)


def know(pin_images: ModuleType, folder: Path, registry: str, fill: str) -> dict[str, str]:
    """Teach the registry a digest for every image; by image, as the files write it."""
    digests = {}
    for number, image in enumerate(pin_images.read_images((folder / "images.txt").read_text())):
        digests[image] = f"sha256:{fill * 62}{number:02d}"
        real = image.replace("REGISTRY/", f"{registry}/")
        Registry.digests[real.removeprefix(f"{registry}/")] = digests[image]
    return digests


def test_every_image_gets_its_digest_and_loses_it_again(
    pin_images: ModuleType, folder: Path, registry: str
) -> None:
    before = {path: path.read_text() for path in folder.rglob("*") if path.is_file()}
    for fill in "ab":  # the second time the tags have moved
        digests = know(pin_images, folder, registry, fill)
        done = run(folder, "--registry", registry)
        assert done.returncode == 0, done.stderr
        assert named_images(folder) == {f"{image}@{digest}" for image, digest in digests.items()}
    assert run(folder, "--undo").returncode == 0
    assert {path: path.read_text() for path in before} == before


def test_without_a_registry_of_yours_only_the_base_images_are_pinned(
    pin_images: ModuleType, folder: Path, registry: str
) -> None:
    know(pin_images, folder, registry, "c")
    assert run(folder).returncode == 0
    assert {("REGISTRY/" in image, "@" in image) for image in named_images(folder)} == {
        (True, False),
        (False, True),
    }


def test_an_image_that_the_registry_does_not_know_changes_no_file(
    pin_images: ModuleType, folder: Path, registry: str
) -> None:
    know(pin_images, folder, registry, "d")
    del Registry.digests["postgres:17.6-bookworm"]
    before = {path: path.read_text() for path in folder.rglob("*") if path.is_file()}
    done = run(folder)
    assert done.returncode == 2
    assert "postgres:17.6-bookworm" in done.stderr
    assert "Traceback" not in done.stderr
    assert {path: path.read_text() for path in before} == before


def test_what_is_no_digest_is_refused(pin_images: ModuleType, folder: Path, registry: str) -> None:
    for image in know(pin_images, folder, registry, "e"):
        Registry.digests[image.removeprefix(f"{registry}/")] = "sha256:short; rm -rf /"
    assert run(folder).returncode == 2


@pytest.mark.parametrize(
    ("image", "parts"),
    [
        ("python:3.11", ("registry-1.docker.io", "library/python", "3.11")),
        ("rustfs/rustfs:1.0.0", ("registry-1.docker.io", "rustfs/rustfs", "1.0.0")),
        ("ghcr.io/a/b/c:1", ("ghcr.io", "a/b/c", "1")),
        ("localhost:5000/x:2", ("localhost:5000", "x", "2")),
    ],
)
def test_a_name_is_read_as_docker_does(
    pin_images: ModuleType, image: str, parts: tuple[str, str, str]
) -> None:
    assert pin_images.split_image(image) == parts
