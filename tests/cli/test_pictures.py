"""Commands on photographs: files that they write, and input that they refuse."""

import struct
import sys
import zlib
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from PIL import Image

from hpsearch.cli import main
from hpsearch.data.builtin_sets import photograph


class Ended(NamedTuple):
    """Exit code, and what was printed."""

    code: int
    out: str
    err: str


class Commands(NamedTuple):
    """Commands that are run in a folder with two pictures."""

    folder: Path
    monkeypatch: pytest.MonkeyPatch
    capsys: pytest.CaptureFixture[str]

    def run(self, *words: object) -> Ended:
        self.monkeypatch.setattr(sys, "argv", ["hpsearch", *map(str, words)])
        code = 0
        try:
            main()
        except SystemExit as end:
            code = int(end.code or 0)
        return Ended(code, *self.capsys.readouterr())

    def refused(self, *words: object) -> str:
        """A command that must be refused, with nothing written."""
        before = sorted(self.folder.rglob("*"))
        found = self.run(*words)
        assert found.code == 2, found
        assert sorted(self.folder.rglob("*")) == before
        return found.err


@pytest.fixture
def commands(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Commands:
    gray = Image.fromarray(photograph("coffee")).reduce(3)
    gray.save(tmp_path / "a.png")
    gray.rotate(4).save(tmp_path / "b.png")
    monkeypatch.chdir(tmp_path)
    return Commands(tmp_path, monkeypatch, capsys)


MATCH = ("match", "a.png", "b.png", "--model", "rootsift", "--points", 60)


def test_match_writes_what_is_asked_for(commands: Commands) -> None:
    found = commands.run(*MATCH, "--output", "m.png", "--arrays", "m.csv", "--colmap", "colmap")
    assert found.code == 0, found
    assert "keypoints" in found.out
    lines = Path("m.csv").read_text().splitlines()
    matches = Path("colmap/matches.txt").read_text().split("\n")
    assert matches[0] == "a.png b.png"
    pairs = [" ".join([row.split(",")[0], row.split(",")[5]]) for row in lines[1:]]
    assert pairs == matches[1:-2]
    assert len(pairs) > 10
    assert commands.run(*MATCH, "--arrays", "m.npz").code == 0
    with np.load("m.npz") as arrays:
        assert [f"{i} {j}" for i, j in arrays["matches"]] == pairs
    keypoints = ("--keypoints", "colmap/a.png.txt", "--output")
    assert commands.run("describe", "rootsift", "a.png", *keypoints, "d.npy").code == 0
    with np.load("m.npz") as arrays:
        np.testing.assert_allclose(np.load("d.npy"), arrays["first_descriptors"], atol=0.05)
    again = commands.run("describe", "rootsift", "a.png", *keypoints, "d.txt")
    assert again.code == 0, again
    assert Path("d.txt").read_text().split("\n")[0] == f"{len(np.load('d.npy'))} 128"


def _bomb(path: Path) -> None:
    """A PNG file whose header promises 100,000×100,000 pixels."""
    chunks = b"\x89PNG\r\n\x1a\n"
    header = struct.pack(">IIBBBBB", 100_000, 100_000, 8, 0, 0, 0, 0)
    for kind, data in ((b"IHDR", header), (b"IDAT", zlib.compress(b"\0")), (b"IEND", b"")):
        chunks += struct.pack(">I", len(data)) + kind + data
        chunks += struct.pack(">I", zlib.crc32(kind + data))
    path.write_bytes(chunks)


def test_wrong_pictures_and_files_are_refused_by_name(commands: Commands) -> None:
    _bomb(Path("bomb.png"))
    Image.new("L", (1, 1), 90).save("one.png")
    Path("k.csv").write_text("1 2 0 4\n")
    Path("far.csv").write_text("10000 2 5 4\n")
    for picture, sentence in (("bomb.png", "has too many pixels"), ("one.png", "has no keypoints")):
        words = ("match", picture, *MATCH[2:], "--output", "m.png")
        assert f"{picture} {sentence}" in commands.refused(*words)
    describe = ("describe", "rootsift", "a.png", "--output", "d.npy", "--keypoints")
    assert "k.csv" in commands.refused(*describe, "k.csv")
    assert "outside the picture" in commands.refused(*describe, "far.csv")
    assert "none.csv" in commands.refused(*describe, "none.csv")
    assert "--keypoints" in commands.refused("describe", "a.png", "--output", "d.npy")
    assert ".npy" in commands.refused(*describe[:-2], "d.csv", "--keypoints", "k.csv")
    assert ".csv" in commands.refused(*MATCH, "--arrays", "m.txt")
    assert "--compare-with" in commands.refused("evaluate", "hpsearch-base", "rootsift")
    assert "scores.json" in commands.refused("evaluate", "--pairs", ".", "--json", "s.json")
    assert "no sequence" in commands.refused("evaluate", "rootsift", "--pairs", ".")
