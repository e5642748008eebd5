"""Pictures that claim too much, or are none: one sentence, and nothing is laid out for them."""

import io
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from hpsearch.config import L2Net
from hpsearch.data.arrow_writer import VIEW_NAMES
from hpsearch.models import Pipeline, build_descriptor
from hpsearch.models.serialization import PipelineSpec, save_pipeline


def chunk(kind: bytes, content: bytes) -> bytes:
    body = kind + content
    return struct.pack(">I", len(content)) + body + struct.pack(">I", zlib.crc32(body))


def png_of(width: int, height: int, *, depth: int = 8, text: bytes = b"") -> bytes:
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, 0, 0, 0, 0))
    more = chunk(b"zTXt", b"a\0\0" + text) if text else b""
    data = chunk(b"IDAT", zlib.compress(bytes(1000)))
    return b"\x89PNG\r\n\x1a\n" + header + more + data + chunk(b"IEND", b"")


def bmp_of(width: int, height: int) -> bytes:
    header = struct.pack("<IiiHHIIiiII", 40, width, height, 1, 24, 0, 0, 0, 0, 0, 0)
    return b"BM" + struct.pack("<IHHI", 54, 0, 0, 54) + header


def whole_png() -> bytes:
    stream = io.BytesIO()
    Image.fromarray(np.zeros((64, 32), np.uint8)).save(stream, "PNG")
    return stream.getvalue()


PICTURES = {
    "bomb": png_of(100_000, 100_000),
    "bomb warned of": png_of(65, 2_000_000),
    "BMP bomb": bmp_of(100_000, 100_000),
    "zero width": png_of(0, 64),
    "no pixels": png_of(32, 0),
    "16 bits": png_of(32, 64, depth=16),
    "truncated": whole_png()[:45],
    "truncated header": whole_png()[:20],
    "empty": b"",
    "text bomb": png_of(32, 64, text=zlib.compress(bytes(80_000_000), 9)),
    "PostScript": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 200 200\n",
}
pictures = pytest.mark.parametrize("content", PICTURES.values(), ids=list(PICTURES))


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model")
    network = L2Net(width=0.125)
    pipeline = Pipeline(denoiser=None, descriptor=build_descriptor(network, seed=0))
    save_pipeline(pipeline, PipelineSpec(denoiser=None, descriptor=network), folder)
    return folder


def strips(folder: Path, content: bytes) -> Path:
    sequence = folder / "tree" / "v_a"
    sequence.mkdir(parents=True)
    for view in VIEW_NAMES:
        (sequence / f"{view}.png").write_bytes(content)
    return folder / "tree"


@pictures
def test_import_refuses_it(content: bytes, command: Callable, tmp_path: Path) -> None:
    tree = strips(tmp_path, content)
    words = ("data", "import", tree, "--output", tmp_path / "s.arrow", "--workers", 1)
    command(*words).is_one_sentence("ref.png")
    assert not (tmp_path / "s.arrow").exists()


@pictures
def test_photos_leave_it_out(content: bytes, command: Callable, tmp_path: Path) -> None:
    (tmp_path / "p").mkdir()
    (tmp_path / "p" / "a.png").write_bytes(content)
    words = ("data", "photos", tmp_path / "p", "--output", tmp_path / "s.arrow", "--workers", 1)
    command(*words).is_one_sentence("a.png")


@pictures
def test_describe_refuses_it(
    content: bytes, command: Callable, tmp_path: Path, model: Path
) -> None:
    tree, to = strips(tmp_path, content), tmp_path / "out"
    command("describe", model, tree, "--output", to).is_one_sentence("ref.png")
    (tmp_path / "p").mkdir()
    (tmp_path / "p" / "a.png").write_bytes(content)
    command("describe", model, tmp_path / "p", "--output", tmp_path / "o.npy").is_one_sentence(
        "a.png"
    )
    assert not to.exists()


ARRAYS = {
    "empty": b"",
    "no array": b"\x93NUMPY\x01\x00\x10\x00{'descr': 1}    \n",
    "absurd": b"\x93NUMPY\x01\x00\x76\x00"
    + b"{'descr': '|u1', 'fortran_order': False, 'shape': (4611686018427387904, 32, 32), }".ljust(
        117
    )
    + b"\n",
    "negative": b"\x93NUMPY\x01\x00\x76\x00"
    + b"{'descr': '|u1', 'fortran_order': False, 'shape': (-1, 32, 32), }".ljust(117)
    + b"\n",
    "pickle": b"\x93NUMPY\x01\x00\x76\x00"
    + b"{'descr': '|O', 'fortran_order': False, 'shape': (1, 32, 32), }".ljust(117)
    + b"\ncos\nsystem\n(S'touch canary'\ntR.",
}


@pytest.mark.parametrize("content", ARRAYS.values(), ids=list(ARRAYS))
def test_describe_refuses_an_array(
    content: bytes, command: Callable, tmp_path: Path, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.npy").write_bytes(content)
    command("describe", model, tmp_path / "a.npy", "--output", "o.npy").is_one_sentence("a.npy")
    assert not (tmp_path / "canary").exists()
