"""The user's own loss, sampler, network, augmentation and metric: rehearsed, trained and saved."""

import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from hpsearch.config import (
    Augmentation,
    CustomAugmentation,
    CustomLoss,
    CustomMetric,
    CustomNetwork,
    CustomSampler,
    L2Net,
    Pairs,
    TrialConfig,
)
from hpsearch.config.custom import custom_parts
from hpsearch.config.custom_import import pinned
from hpsearch.config.custom_source import SpaceFolder, search_sources
from hpsearch.errors import UserError
from hpsearch.models.serialization import load_pipeline, save_pipeline
from hpsearch.promotion.final_evaluation import pipeline_spec
from hpsearch.search.space_file import load_search
from hpsearch.training.custom_parts import rehearse
from hpsearch.training.loop import Report
from hpsearch.training.trial import TrialEnvironment, build_trial
from hpsearch.workflows.train_trial import read_config

OWN = """
import numpy as np
import torch
from torch import nn

class Ranked:
    def __init__(self, margin):
        self.margin = margin
    def __call__(self, x):
        others = (x[0] - x[1].roll(1, 0)).pow(2).sum(-1)
        return (self.margin + (x[0] - x[1]).pow(2).sum(-1) - others).clamp(min=0).mean()

def near(sequence_of, first_rows, rng, progress):
    points = rng.choice(len(sequence_of), 8, replace=False)
    views = np.stack([rng.permutation(16)[:2] for _ in points], axis=1)
    return first_rows[points] + views

class Small(nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(1, 4, 5, stride=4), nn.ReLU(), nn.Flatten(), nn.Dropout(0.2),
            nn.Linear(196, 16))
    def forward(self, x):
        return self.layers((x - x.mean((1, 2, 3), keepdim=True)) / 64)

def noisy(patches, points, rng):
    return patches + torch.from_numpy(rng.normal(0, 4, patches.shape)).float()

def spread(descriptors, points, sequences):
    return float(descriptors.std() + len(set(points)) * 0 + len(set(sequences)))
"""
TRIAL = TrialConfig(
    loss=CustomLoss(object="own:Ranked", params={"margin": 1.0}),
    sampler=CustomSampler(object="own:near", form=Pairs(batch=8)),
    descriptor=CustomNetwork(object="own:Small", descriptor_dim=16),
    augmentation=Augmentation(custom=CustomAugmentation(object="own:noisy")),
    metrics=(CustomMetric(object="own:spread", label="spread"),),
    patches=128,
)


@pytest.fixture
def space(tmp_path: Path) -> Path:
    (tmp_path / "own.py").write_text(OWN)
    (tmp_path / "space.py").write_text("")
    return tmp_path / "space.py"


def drawn(space: Path, **fields: object) -> TrialConfig:
    return pinned(TRIAL.model_copy(update=fields), SpaceFolder(space))


def train(config: TrialConfig, job: TrialEnvironment) -> list[Report]:
    return list(build_trial(config, job).reports())


def test_a_trial_of_own_objects_resumes_as_if_it_had_not_stopped(
    space: Path, job: TrialEnvironment, tmp_path: Path
) -> None:
    config, env = drawn(space), replace(job, sources=search_sources(space, SpaceFolder.of(space)))
    rehearse([config])
    whole = build_trial(config, env)
    reports = list(whole.reports())
    stopped = build_trial(config, env)
    first = next(iter(stopped.reports()))
    stopped.save(tmp_path / "checkpoint", first)

    resumed = build_trial(config, env)
    resumed.load(tmp_path / "checkpoint")
    (last,) = resumed.reports()

    assert [report.seen for report in reports] == [64, 128]
    here = {name: value for name, value in last.metrics.items() if "seconds" not in name}
    there = {name: value for name, value in reports[1].metrics.items() if "seconds" not in name}
    assert here == there
    assert 2 < here["val/custom/spread"] < 3  # two validation sequences, and a deviation below 1


def test_a_model_of_an_own_network_is_a_program_that_needs_no_source(
    space: Path, job: TrialEnvironment, tmp_path: Path
) -> None:
    config = drawn(space)
    pipeline, folder = build_trial(config, job).pipeline(), tmp_path / "model"
    patches = np.random.default_rng(0).integers(0, 256, (5, 32, 32)).astype(np.float32)
    with torch.no_grad():
        expected = pipeline(torch.from_numpy(patches)).numpy()
    save_pipeline(pipeline, pipeline_spec(config), folder)
    np.save(tmp_path / "patches.npy", patches)
    space.with_name("own.py").unlink()

    assert sorted(path.name for path in folder.iterdir()) == ["pipeline.json", "pipeline.onnx"]
    with torch.no_grad():
        found = load_pipeline(folder)(torch.from_numpy(patches)).numpy()
    np.testing.assert_allclose(found, expected, atol=1e-5)
    alone = subprocess.run(
        [sys.executable, "-c", ONNXRUNTIME_ALONE], cwd=tmp_path, capture_output=True, check=True
    )
    np.testing.assert_allclose(np.load(tmp_path / "found.npy"), expected, atol=1e-5)
    assert alone.stdout.strip() == b"False False"


ONNXRUNTIME_ALONE = """
import sys
import numpy as np, onnxruntime
session = onnxruntime.InferenceSession("model/pipeline.onnx")
np.save("found.npy", session.run(None, {"patches": np.load("patches.npy")})[0])
print("torch" in sys.modules, "hpsearch" in sys.modules)
"""

WRONG = {
    "loss": "custom-wrong-shape: return x.sum(-1)",
    "nan": "custom-not-finite: return (x * float('nan')).sum()",
    "root": "custom-not-finite: return (x * 0).sum().sqrt()",
    "detached": "custom-no-gradient: return x.detach().sum()",
    "number": "custom-wrong-shape: return 1.0",
    "fails": "custom-failed: return x[7].sum()",
    "weights": "custom-loss-with-weights: ",
}
WITH_WEIGHTS = """
import torch

class wrong(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.scale = torch.nn.Parameter(torch.ones(1))
    def forward(self, x):
        return (x.sum() * self.scale).sum()
"""


@pytest.mark.parametrize("case", WRONG)
def test_a_wrong_loss_is_told_at_the_rehearsal(space: Path, case: str) -> None:
    code, _, body = WRONG[case].partition(": ")
    space.with_name("own.py").write_text(f"def wrong(x):\n    {body}\n" if body else WITH_WEIGHTS)
    config = drawn(
        space, loss=CustomLoss(object="own:wrong"), sampler=Pairs(batch=8), descriptor=L2Net(),
        metrics=(), augmentation=Augmentation(),
    )  # fmt: skip

    with pytest.raises(UserError, match="own:wrong") as caught:
        rehearse([config])

    assert caught.value.code == code


PARTS = {
    "sampler": (
        {"sampler": CustomSampler(object="own:wrong", form=Pairs(batch=8))},
        [
            ("custom-failed", "def wrong(sequence_of): return 1"),
            ("custom-wrong-shape", "def wrong(*given): return [[1, 2]]"),
            ("custom-wrong-shape", "def wrong(*given): return [[0.5] * 8] * 2"),
            ("custom-wrong-rows", "def wrong(*given): return [[10**9] * 8] * 2"),
            ("custom-wrong-rows", "def wrong(*given): return [[-1] * 8] * 2"),
        ],
    ),
    "augmentation": (
        {"augmentation": Augmentation(custom=CustomAugmentation(object="own:wrong"))},
        [
            ("custom-failed", "def wrong(patches): return patches"),
            ("custom-wrong-shape", "def wrong(patches, points, rng): return patches[0]"),
            ("custom-wrong-shape", "def wrong(patches, points, rng): return None"),
            ("custom-not-finite", "def wrong(patches, points, rng): return patches / 0"),
        ],
    ),
    "metric": (
        {"metrics": (CustomMetric(object="own:wrong", label="x"),)},
        [
            ("custom-failed", "def wrong(d): return 1"),
            ("custom-failed", "def wrong(d, points, sequences): return 'much'"),
            ("custom-not-finite", "def wrong(d, points, sequences): return float('inf')"),
            ("custom-not-callable", "class wrong: pass"),
        ],
    ),
    "network": (
        {"descriptor": CustomNetwork(object="own:wrong", descriptor_dim=16)},
        [
            ("custom-wrong-type", "class wrong:\n    def __call__(self, x): return x"),
            ("custom-no-weights", "class wrong(torch.nn.Module):\n"
             "    def forward(self, x): return x.flatten(1)[:, :16]"),
            ("custom-wrong-shape", "class wrong(torch.nn.Module):\n"
             "    def forward(self, x): return x"),
            ("custom-failed", "class wrong(torch.nn.Linear):\n"
             "    def __init__(self): super().__init__(1024, 16)\n"
             "    def forward(self, x):\n"
             "        y = super().forward(x.flatten(1))\n"
             "        return y * 2 if float(y.sum()) > 0 else y"),
        ],
    ),
}  # fmt: skip


@pytest.mark.parametrize(
    ("kind", "code", "text"),
    [(kind, code, text) for kind, (_, cases) in PARTS.items() for code, text in cases],
)
def test_a_wrong_part_is_told_at_the_rehearsal(
    space: Path, kind: str, code: str, text: str
) -> None:
    space.with_name("own.py").write_text(f"{OWN}\n{text}\n")
    config = drawn(space, **PARTS[kind][0])

    with pytest.raises(UserError) as caught:
        rehearse([config])

    assert caught.value.code == code


def test_two_metrics_of_one_label_are_refused_at_the_rehearsal(space: Path) -> None:
    with pytest.raises(UserError, match="label 'spread'") as caught:
        rehearse([drawn(space, metrics=TRIAL.metrics * 2)])

    assert caught.value.code == "custom-label-repeated"


def test_a_loss_that_fails_later_fails_its_trial_with_one_sentence(
    space: Path, job: TrialEnvironment
) -> None:
    space.with_name("own.py").write_text(f"{OWN}\n{LATER}")
    config = drawn(space, loss=CustomLoss(object="own:Later"), patches=64)
    rehearse([config])

    with pytest.raises(UserError, match=r"own:Later fails at own.py:\d+ .*too many") as caught:
        train(config, job)

    assert caught.value.code == "custom-failed"


LATER = """
calls = []

def Later(x):
    calls.append(1)
    if len(calls) > 4:
        raise RuntimeError("too many")
    return (x[0] - x[1]).pow(2).sum(-1).mean()
"""


def test_a_trial_as_json_needs_the_space_that_defines_its_objects(space: Path) -> None:
    config, path = drawn(space), space.with_name("trial.json")
    path.write_text(config.model_dump_json())
    plain = space.with_name("plain.json")
    plain.write_text(TrialConfig().model_dump_json())

    assert read_config(path, space) == config
    for given, named in ((path, None), (plain, space)):
        with pytest.raises(UserError, match="--space"):
            read_config(given, named)
    space.with_name("own.py").write_text(f"{OWN}# changed\n")
    with pytest.raises(UserError, match="own:") as caught:
        read_config(path, space)
    assert caught.value.code == "custom-source-changed"


def test_the_page_about_own_losses_works_as_printed(tmp_path: Path) -> None:
    text = (Path(__file__).parents[2] / "docs" / "own-loss.md").read_text()
    module, space = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    (tmp_path / "my_losses.py").write_text(module)
    (tmp_path / "space.py").write_text(space)
    search = load_search(tmp_path / "space.py")

    search.validate_space()

    objects = {part.object for one in search.examples(3) for _, part in custom_parts(one)}
    assert objects == {"my_losses:Ranked"}
