"""Evaluation of models on points detected in each picture."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from hpsearch.data.builtin_sets import photograph
from hpsearch.data.photo_synthesis import _target_images
from hpsearch.errors import UserError
from hpsearch.workflows.evaluate_pairs import evaluate_pairs, mean_scores, pair_table, save_pairs

HALF = np.array([[1, 0, 0.5], [0, 1, 0.5], [0, 0, 1]])


def test_models_are_scored_on_every_pair(tmp_path: Path) -> None:
    folder = tmp_path / "sets" / "v_cup"
    folder.mkdir(parents=True)
    photo = np.asarray(Image.fromarray(photograph("coffee")).reduce(3))
    Image.fromarray(photo).save(folder / "1.png")
    for number, (target, h) in enumerate(_target_images(photo, "v_cup", 0), start=2):
        Image.fromarray(target).save(folder / f"{number}.png")
        np.savetxt(folder / f"H_1_{number}", np.linalg.inv(HALF) @ h @ HALF)
    shutil.copytree(folder, folder.with_name("v_mug"))
    Image.open(folder / "1.png").transpose(Image.Transpose.FLIP_LEFT_RIGHT).save(folder / "1.png")
    sets = tmp_path / "sets"
    results = evaluate_pairs(["rootsift"], sets, points=80)
    assert {(r.sequence, r.target) for r in results} == {
        (name, target) for name in ("v_cup", "v_mug") for target in range(2, 7)
    }
    mug = [r.values() for r in results if r.sequence == "v_mug"]
    good = {name: np.mean([values[name] for values in mug]) for name in mug[0]}
    assert 0.5 < good["consistent_recall@3"] <= 1
    assert good["recall@3"] < good["consistent_recall@3"], "a wrong scale or angle loses matches"
    assert good["possible@1"] < good["possible@3"]
    assert good["accuracy@10"] >= good["accuracy@3"] > 0.2
    assert good["corner_auc@10"] > 0.5
    found = mean_scores(results)["rootsift"]["accuracy@3"]
    by_sequence = [
        np.mean([r.values()["accuracy@3"] for r in results if r.sequence == name])
        for name in ("v_cup", "v_mug")
    ]
    assert by_sequence[0] < 0.05, "its first picture is a mirror image"
    assert found.value == pytest.approx(np.mean(by_sequence))
    # Student's t of two sequences, 12.706, times half their difference
    half = 12.706 * abs(by_sequence[1] - by_sequence[0]) / 2
    assert found.low == max(found.value - half, 0)
    assert found.high == pytest.approx(min(found.value + half, 1), rel=1e-3)
    table = pair_table(results)
    assert "10 pairs of 2 sequences" in table
    save_pairs(results, sets, tmp_path / "out", points=80)
    rows = json.loads((tmp_path / "out" / "scores.json").read_text())["pairs"]
    assert len(rows) == 10
    for name in ("best", "worst"):
        with Image.open(tmp_path / "out" / f"{name}.png") as picture:
            assert picture.width > 2 * photo.shape[1]


def test_a_folder_without_sequences_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no sequence"):
        evaluate_pairs(["rootsift"], tmp_path)
