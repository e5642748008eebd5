"""`make gpu`, rehearsed on the CPU at toy sizes: every section runs and fills its table."""

import importlib
import json
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
TABLES = {
    "Ceilings": 1,
    "L2-Net, ms a step": 1,
    "Shallow U-Net, seconds an epoch of 100,000 patches": 1,
    "Description, L2-Net width 1, float32": 3,
    "Trials of width 0.25, one after another and as one program (vmap)": 1,
}


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.syspath_prepend(BENCHMARKS)
    # spawned processes import it by name
    monkeypatch.setenv("PYTHONPATH", f"{BENCHMARKS}:{BENCHMARKS.parent}")
    return importlib.import_module("gpu")


@pytest.mark.slow
def test_every_section_fills_its_table(
    gpu, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        sys, "argv", ["gpu.py", "--toy", "--device", "cpu", "--out", str(tmp_path / "found")]
    )
    with pytest.raises(SystemExit) as ended:
        gpu.main()
    found = json.loads((tmp_path / "found.json").read_text())
    assert found["failed"] == {}
    assert [row["check"] for row in found["tables"]["Checks"] if row["passed"] != "yes"] == []
    assert ended.value.code == 0
    for name, rows in TABLES.items():
        assert len(found["tables"][name]) == rows
    trials = found["tables"]["Several trials of width 0.25"]
    assert {(row["way"], row["trials"]) for row in trials} == {
        ("one process, graphed", 1),
        ("one process, graphed", 2),
        ("processes, graphed", 2),
        ("vmap, graphed", 1),
        ("vmap, graphed", 2),
    }
    assert all(row["patches/s of all"] > 0 for row in trials)
    assert sum("one program, trial" in row["check"] for row in found["tables"]["Checks"]) == 3
    written = (tmp_path / "found.md").read_text()
    assert all(f"## {name}\n" in written for name in found["tables"])


def test_bars_are_read_from_the_tables_and_what_was_not_measured_is_left_out(gpu) -> None:
    results = importlib.import_module("gpu_results")
    rows = [("one process", 1, 100.0), ("vmap", 1, 120.0), ("vmap", 16, 600.0), ("MPS", 16, 720.0)]
    tables = {
        results.STEPS: [
            {"width": 1.0, "batch": 1024, "share of roofline": 0.71, "× eager": 4.9},
            {"width": 1.0, "batch": 128, "share of roofline": 0.1, "× eager": 9.0},
        ],
        results.TRIALS: [
            {"way": way, "batch": 128, "trials": count, "patches/s of all": rate}
            for way, count, rate in rows
        ],
    }
    found = [(row["found"], row["reached"]) for row in results.bars(tables)]
    # the best 16 against the best single one, each in its fastest form; no denoiser was measured
    assert found == [(0.71, "yes"), (4.9, "no"), (pytest.approx(6.0), "yes")]
    assert list(results.bars({})) == []


def test_a_section_that_fails_leaves_the_others_and_is_named(
    gpu, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(self: object) -> None:
        raise RuntimeError("out of memory")

    monkeypatch.setattr(gpu.Bench, "denoiser", broken)
    options = ["--toy", "--device", "cpu", "--only", "denoiser,descriptor"]
    monkeypatch.setattr(sys, "argv", ["gpu.py", *options, "--out", str(tmp_path / "found")])
    with pytest.raises(SystemExit) as ended:
        gpu.main()
    assert ended.value.code == 1
    written = (tmp_path / "found.md").read_text()
    assert "- denoiser: RuntimeError: out of memory" in written
    assert "## L2-Net, ms a step" in written


def test_the_roofline_of_one_convolution_is_counted_by_hand(gpu) -> None:
    roofline = importlib.import_module("gpu_roofline")
    torch = importlib.import_module("torch")
    found = roofline.need(torch.nn.Conv2d(1, 4, 3, padding=1), 16, bytes_each=2)
    # 9 weights for each of 4 · 32 · 32 numbers, forward and for the gradient by the weights
    assert found.flop == 16 * 2 * 2 * 9 * 4 * 32 * 32
    # input and output, forward and for the gradient by the weights; 40 weights of Adam
    assert found.moved == 16 * 2 * 2 * (1 + 4) * 32 * 32 + 28 * 40
    limits = roofline.Ceilings(products=1e9, tf32=1.0, bandwidth=1e6)
    assert found.floor(limits) == pytest.approx(found.moved / 1e6)
