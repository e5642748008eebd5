#!/usr/bin/env python3
"""Write the digest of every image of images.txt behind its tag, in the files of this folder.

A tag can be moved to another image, a digest cannot. Where a registry can be reached::

    cluster/pin_images.py                                the base images: before you build yours
    cluster/pin_images.py --registry $REGISTRY --docker  yours as well: once they are pushed
    cluster/pin_images.py --undo                         back to tags

Run again, it looks the tags up anew. Nothing is written unless all digests are known. Registries
that want a password are asked through Docker (``--docker``), which knows it.
"""

import argparse
import json
import re
import shutil
import subprocess
import sys
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator, Mapping
from pathlib import Path

FOLDER = Path(__file__).parent
LIST = "images.txt"
PLACEHOLDER = "REGISTRY/"
DOCKER_HUB = "registry-1.docker.io"
KINDS = (
    "application/vnd.oci.image.index.v1+json",
    "application/vnd.docker.distribution.manifest.list.v2+json",
    "application/vnd.oci.image.manifest.v1+json",
    "application/vnd.docker.distribution.manifest.v2+json",
)
DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
PINNED = re.compile(rf"@{DIGEST.pattern}")
TIMEOUT_S = 30


class LookupFailed(Exception):
    """A registry that gives no digest; the message says which image and why."""


def read_images(text: str) -> list[str]:
    """Image and tag of every line, without digests."""
    lines = (line.split("#")[0].strip() for line in text.splitlines())
    return [PINNED.sub("", line) for line in lines if line]


def split_image(image: str) -> tuple[str, str, str]:
    """Registry, repository and tag, with Docker Hub's defaults."""
    name, _, tag = image.rpartition(":")
    host, slash, rest = name.partition("/")
    if slash and ("." in host or ":" in host or host == "localhost"):
        return host, rest, tag
    return DOCKER_HUB, name if slash else f"library/{name}", tag


def find_token(challenge: str) -> str:
    """A token for anybody, from where a registry's 401 says (``WWW-Authenticate: Bearer …``)."""
    fields = dict(re.findall(r'(\w+)="([^"]*)"', challenge))
    if not challenge.startswith("Bearer ") or "realm" not in fields:
        raise LookupFailed("the registry wants a password; try --docker")
    query = urllib.parse.urlencode(
        {key: fields[key] for key in ("service", "scope") if key in fields}
    )
    with urllib.request.urlopen(f"{fields['realm']}?{query}", timeout=TIMEOUT_S) as answer:
        said = json.load(answer)
    return said.get("token") or said["access_token"]


def ask_registry(image: str, scheme: str) -> str:
    """The digest that a registry states for a tag, by its HTTP API (OCI distribution, v2).

    Raises:
        LookupFailed: if it refuses, or states none.
        OSError: if it cannot be reached.
    """
    host, repository, tag = split_image(image)
    address = f"{scheme}://{host}/v2/{repository}/manifests/{tag}"
    headers = {"Accept": ", ".join(KINDS)}
    try:
        answer = _head(address, headers)
    except urllib.error.HTTPError as refused:
        if refused.code != 401:
            raise
        token = find_token(refused.headers.get("WWW-Authenticate", ""))
        answer = _head(address, {**headers, "Authorization": f"Bearer {token}"})
    digest = answer.get("Docker-Content-Digest", "")
    if not DIGEST.fullmatch(digest):
        raise LookupFailed("the registry states no SHA-256 digest")
    return digest


def _head(address: str, headers: Mapping[str, str]) -> Mapping[str, str]:
    request = urllib.request.Request(address, method="HEAD", headers=dict(headers))
    with urllib.request.urlopen(request, timeout=TIMEOUT_S) as answer:
        return answer.headers


def ask_docker(image: str) -> str:
    """The digest of a tag by ``docker buildx``, with the passwords that ``docker login`` stored.

    Raises:
        LookupFailed: if Docker is not there, refuses, or states none.
    """
    if shutil.which("docker") is None:
        raise LookupFailed("there is no docker here; leave out --docker")
    command = ["docker", "buildx", "imagetools", "inspect", image]
    asked = subprocess.run(
        [*command, "--format", "{{.Manifest.Digest}}"], capture_output=True, text=True
    )
    digest = asked.stdout.strip()
    if asked.returncode or not DIGEST.fullmatch(digest):
        raise LookupFailed(asked.stderr.strip() or "docker states no SHA-256 digest")
    return digest


def find_files(folder: Path) -> Iterator[Path]:
    """Files that name images: the list, Dockerfiles and YAML, without your own copies."""
    yield folder / LIST
    yield from sorted(folder.rglob("Dockerfile"))
    yield from sorted(path for path in folder.rglob("*.yaml") if not path.name.startswith("my-"))


def pin(text: str, digests: Mapping[str, str]) -> str:
    """The text with every digest behind its image, in place of any older one; comments stay."""
    lines = text.splitlines(keepends=True)
    for image, digest in digests.items():
        named = rf"(?<![\w./:-]){re.escape(image)}({PINNED.pattern})?(?![\w.@:-])"
        behind = f"{image}@{digest}" if digest else image
        lines = [line if line.startswith("#") else re.sub(named, behind, line) for line in lines]
    return "".join(lines)


def find_digests(images: list[str], registry: str, docker: bool, scheme: str) -> dict[str, str]:
    """Digests by image as the files write it; yours only with a registry.

    Raises:
        LookupFailed: if one cannot be had; the message names the image.
    """
    found = {}
    for image in images:
        if image.startswith(PLACEHOLDER) and not registry:
            continue
        real = image.replace(PLACEHOLDER, f"{registry}/", 1) if registry else image
        try:
            found[image] = ask_docker(real) if docker else ask_registry(real, scheme)
        except (LookupFailed, OSError) as error:
            raise LookupFailed(f"no digest for {real}: {error}; no file was changed") from error
    return found


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--registry", default="", help="stands for REGISTRY: pins your images too")
    parser.add_argument("--docker", action="store_true", help="ask through docker, and its logins")
    parser.add_argument("--undo", action="store_true", help="take all digests away")
    parser.add_argument("--folder", type=Path, default=FOLDER, help=argparse.SUPPRESS)
    parser.add_argument("--scheme", default="https", help=argparse.SUPPRESS)
    given = parser.parse_args(arguments)
    images = read_images((given.folder / LIST).read_text())
    try:
        digests = (
            dict.fromkeys(images, "")
            if given.undo
            else find_digests(images, given.registry.rstrip("/"), given.docker, given.scheme)
        )
    except LookupFailed as error:
        print(error, file=sys.stderr)
        return 2
    for path in find_files(given.folder):
        path.write_text(pin(path.read_text(), digests))
    for image, digest in digests.items():
        print(f"{image} {digest or 'by tag'}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
