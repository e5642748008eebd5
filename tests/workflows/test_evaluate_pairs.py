"""Evaluation of models on points detected in each picture."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from hpsearch.data.builtin_sets import photograph
from hpsearch.data.photo_synthesis import _target_images
from hpsearch.errors import UserError
from hpsearch.workflows.evaluate_pairs import evaluate_pairs, mean_scores, pair_table

HALF = np.array([[1, 0, 0.5], [0, 1, 0.5], [0, 0, 1]])


def test_models_are_scored_on_every_pair(tmp_path: Path) -> None:
    folder = tmp_path / "sets" / "v_cup"
    folder.mkdir(parents=True)
    photo = np.asarray(Image.fromarray(photograph("coffee")).reduce(3))
    Image.fromarray(photo).save(folder / "1.png")
    for number, (target, h) in enumerate(_target_images(photo, "v_cup", 0), start=2):
        Image.fromarray(target).save(folder / f"{number}.png")
        np.savetxt(folder / f"H_1_{number}", np.linalg.inv(HALF) @ h @ HALF)
    results = evaluate_pairs(["rootsift"], tmp_path / "sets", points=80)
    assert {(r.sequence, r.target, r.radius) for r in results} == {
        ("v_cup", target, radius) for target in range(2, 7) for radius in (1.0, 3.0, 5.0)
    }
    mean = mean_scores(results)["rootsift"]
    assert 0.5 < mean["consistent_recall"] <= 1
    assert mean["recall"] < mean["consistent_recall"], "a wrong scale or angle loses matches"
    close = mean_scores(results, radius=1.0)["rootsift"]
    assert close["possible"] < mean["possible"]
    assert f"{mean['recall']:.4f}" in pair_table(results)


def test_a_folder_without_sequences_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no sequence"):
        evaluate_pairs(["rootsift"], tmp_path)
