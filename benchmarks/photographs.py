"""Patches of photographs: processor time before and after, and whether the pixels are the same.

Both versions build the patches of the same photographs, in turn, each in a process of its own; the
version before is taken from git.

    python benchmarks/photographs.py PHOTOS --before 10a169e [--count 6] [--points 600]

28 November 2026, four photographs of gcompris-qt-data 3.1-2 with --count 4, two busy cores: 7.51 s
before and 5.42 s after, a ratio of 1.38, and the same pixels in all four.
"""

import argparse
import hashlib
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).parents[1]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("photos", type=Path)
    parser.add_argument("--before", default="10a169e", help="commit of the version before")
    parser.add_argument("--count", type=int, default=6)
    parser.add_argument("--points", type=int, default=600)
    parser.add_argument("--one", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    files = sorted(path for path in options.photos.iterdir() if path.is_file())
    files = files[:: max(len(files) // options.count, 1)][: options.count]
    if options.one:
        print(json.dumps([build(file, i, options.points) for i, file in enumerate(files)]))
        return
    with tempfile.TemporaryDirectory() as folder:
        archive = subprocess.run(
            ["git", "archive", options.before, "hpsearch"], cwd=ROOT, stdout=subprocess.PIPE,
            check=True,
        )  # fmt: skip
        subprocess.run(["tar", "-x", "-C", folder], input=archive.stdout, check=True)
        before, after = (run(Path(place), options) for place in (folder, ROOT))
    for file, old, new in zip(files, before, after, strict=True):
        same = "same pixels" if old[1] == new[1] else "OTHER PIXELS"
        print(f"{file.name:24} {old[0]:6.2f} s  {new[0]:6.2f} s  {old[0] / new[0]:5.2f}×  {same}")
    old, new = (sum(seconds for seconds, _ in rows) for rows in (before, after))
    print(f"{'all':24} {old:6.2f} s  {new:6.2f} s  {old / new:5.2f}×")


def run(package: Path, options: argparse.Namespace) -> list[tuple[float, str]]:
    """Processor time and hash of each photograph, by the package in a folder."""
    words = [sys.executable, __file__, str(options.photos), "--one"]
    words += ["--count", str(options.count), "--points", str(options.points)]
    env = os.environ | {"PYTHONPATH": str(package), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(words, env=env, cwd=package, stdout=subprocess.PIPE, check=True)
    return [tuple(row) for row in json.loads(done.stdout)]


def build(file: Path, number: int, points: int) -> tuple[float, str]:
    from hpsearch.data.photo_folder import load_gray
    from hpsearch.data.photo_synthesis import PhotoSettings, photo_sequence

    gray = load_gray(file)
    settings = PhotoSettings(points=points)
    started = time.process_time()
    found = photo_sequence(gray, name=f"{'iv'[number % 2]}_{file.stem}", settings=settings)
    seconds = time.process_time() - started
    return seconds, hashlib.sha256(found.clean.tobytes() + found.noisy.tobytes()).hexdigest()


if __name__ == "__main__":
    main()
