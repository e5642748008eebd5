"""Write constraints.hashed.txt: the pins of constraints.txt, each with the hashes of its wheels.

The images install from it. Run this after every change of constraints.txt; it asks the index::

    python .ci/hash_constraints.py
    python .ci/hash_constraints.py --index https://pypi.example.org/simple

Only wheels count that the images can install (CPython 3.11 on Linux), and no source archives, whose
build would run code before anything of it was looked at. The file is one of its own because pip
asks for a hash of everything as soon as a constraints file holds one, and an editable install has
none.
"""

import argparse
import json
import re
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from packaging.tags import Tag
from packaging.utils import (
    InvalidWheelFilename,
    canonicalize_name,
    parse_wheel_filename,
)
from packaging.version import Version

ROOT = Path(__file__).parents[1]
PINS = ROOT / "constraints.txt"
HASHED = ROOT / "constraints.hashed.txt"
INDEX = "https://pypi.org/simple"
JSON = "application/vnd.pypi.simple.v1+json"
TIMEOUT_S = 60

HEADER = """\
# Made by .ci/hash_constraints.py from constraints.txt; do not edit. SHA-256 of every wheel for
# CPython 3.11 on Linux that PyPI states for these versions. The images install from this file.
# Not here: torch's wheels for CPUs (+cpu), which are on download.pytorch.org alone. The images
# take them from there, by version and without a hash; those of torch below bring CUDA.
"""


def read_pins(text: str) -> dict[str, str]:
    """Versions by canonical name, of a constraints file with or without hashes.

    Raises:
        ValueError: if a requirement has no exact version.
    """
    found = {}
    for line in re.sub(r"\\\n\s*", " ", text).splitlines():
        requirement = line.split("#")[0].split(" --hash=")[0].strip()
        if not requirement:
            continue
        name, equals, version = requirement.partition("==")
        if not equals:
            raise ValueError(f"{requirement!r} has no exact version")
        found[canonicalize_name(name)] = version.strip()
    return found


def read_hashes(text: str) -> dict[str, list[str]]:
    """SHA-256 digests in hexadecimal by canonical name, of a constraints file."""
    lines = re.sub(r"\\\n\s*", " ", text).splitlines()
    return {
        canonicalize_name(line.partition("==")[0]): re.findall(r"--hash=sha256:(\w+)", line)
        for line in lines
        if line and not line.startswith("#")
    }


def is_installable(tag: Tag) -> bool:
    """Whether CPython 3.11 on Linux (x86-64 or ARM, glibc) installs wheels of that tag."""
    interpreter = (
        tag.interpreter == "cp311"
        or tag.interpreter in ("py3", "py311")
        or (tag.abi == "abi3" and re.fullmatch(r"cp3([2-9]|1[01])?", tag.interpreter) is not None)
    )
    platform = re.fullmatch(r"any|(many)?linux.*_(x86_64|aarch64)", tag.platform) is not None
    return interpreter and platform and tag.abi in ("cp311", "abi3", "none")


def find_hashes(page: Mapping[str, Any], version: str) -> list[str]:
    """Digests of the wheels of a version, from a project's page of the index (PEP 691), sorted."""
    found = set()
    for file in page["files"]:
        try:
            _, of_file, _, tags = parse_wheel_filename(file["filename"])
        except InvalidWheelFilename:  # a source archive, or a name from before the rules
            continue
        if of_file == Version(version) and any(map(is_installable, tags)):
            found.add(file["hashes"]["sha256"])
    return sorted(found)


def format_pins(pins: Mapping[str, str], hashes: Mapping[str, list[str]]) -> Iterator[str]:
    """The requirement of every pin, its hashes on lines of their own."""
    for name, version in pins.items():
        yield " \\\n".join(
            [f"{name}=={version}", *(f"    --hash=sha256:{digest}" for digest in hashes[name])]
        )


def fetch_page(index: str, name: str) -> Mapping[str, Any]:
    """A project's page of the index.

    Raises:
        OSError: if the index cannot be reached or does not know the project.
    """
    request = urllib.request.Request(f"{index}/{name}/", headers={"Accept": JSON})
    with urllib.request.urlopen(request, timeout=TIMEOUT_S) as answer:
        return json.load(answer)


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--index", default=INDEX, help=f"a simple index with JSON; {INDEX}")
    index = parser.parse_args(arguments).index.rstrip("/")
    pins = read_pins(PINS.read_text())
    try:
        with ThreadPoolExecutor(8) as pool:
            pages = dict(
                zip(pins, pool.map(lambda name: fetch_page(index, name), pins), strict=True)
            )
    except OSError as error:
        print(f"{index} gives no answer ({error}); {HASHED.name} stays as it is", file=sys.stderr)
        return 2
    hashes = {name: find_hashes(pages[name], version) for name, version in pins.items()}
    without = [f"{name}=={pins[name]}" for name, found in hashes.items() if not found]
    if without:
        print(f"no wheel for CPython 3.11 on Linux: {', '.join(without)}", file=sys.stderr)
        return 2
    HASHED.write_text(HEADER + "\n".join(format_pins(pins, hashes)) + "\n")
    print(f"{HASHED.name}: {len(pins)} versions, {sum(map(len, hashes.values()))} wheels")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
