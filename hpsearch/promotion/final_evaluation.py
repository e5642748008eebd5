"""The end of a search: the winner meets the yardsticks on test."""

from collections.abc import Mapping

import numpy as np
import torch

from hpsearch.atomic_files import write_atomic
from hpsearch.config import Denoised, TrialConfig
from hpsearch.errors import UserError
from hpsearch.evaluation import Scores
from hpsearch.evaluation.baselines import pixel_descriptor
from hpsearch.execution.resumable_trial import CheckpointHooks, run_with_checkpoints
from hpsearch.models.serialization import PipelineSpec
from hpsearch.promotion.score_cache import ScoreCache, single_threaded
from hpsearch.schema import from_json, to_json
from hpsearch.search.objective import Objective
from hpsearch.search.outcome import final_status, to_result
from hpsearch.search.workspace import SearchFolder
from hpsearch.tracking.run_state import Run
from hpsearch.training.trial import TrainingRun, build_trial
from hpsearch.training.validation import evaluate_function
from hpsearch.untrusted import reading

BASELINE_NAME, PIXELS_NAME = "baseline", "pixels 16×16"
SCORES_FILE = "test_scores.json"


def pixel_baseline(patches: np.ndarray) -> np.ndarray:
    """The classical yardstick: normalised 16×16 pixels of patches (uint8, n×32×32)."""
    return pixel_descriptor(torch.from_numpy(patches)).numpy()


def best_run(runs: list[Run], objective: Objective) -> Run:
    """The completed trial with the best objective.

    Raises:
        UserError: if no trial completed.
    """
    completed = [run for run in runs if run.kind == "trial" and run.status == "completed"]
    if not completed:
        raise UserError(
            "no trial completed, so there is no winner; try more trials, or a wider search space"
        )
    pick = max if objective.direction == "maximize" else min
    return pick(completed, key=lambda run: run.reports[-1]["objective"])


def load_trained(run: Run, folder: SearchFolder) -> TrainingRun:
    """A run's networks as they were at its last checkpoint.

    Raises:
        UserError: if the checkpoint is gone.
    """
    trial = build_trial(run.config, folder.environment())
    trial.load(folder.trials / run.id)
    return trial


def train_baseline(folder: SearchFolder) -> Run:
    """Train the baseline for the same budget, and write it down.

    One that was killed goes on from its checkpoint; one that is done is not trained again.
    """
    done = [run for run in folder.runs() if run.id == BASELINE_NAME and run.status == "completed"]
    if done:
        return done[0]
    search, event_log = folder.search(), folder.event_log
    config = search.baseline.model_dump(mode="json")
    event_log.append("start", trial=BASELINE_NAME, number=-1, kind="baseline", config=config)
    with single_threaded():
        post = CheckpointHooks(
            folder.trials / BASELINE_NAME,
            on_restart=lambda why: event_log.append(
                "restarted_from_scratch", trial=BASELINE_NAME, reason=why
            ),
        )
        for report in run_with_checkpoints(search.baseline, folder.environment(), post):
            result = to_result(report, search.objective)
            last_report = {key: result[key] for key in ("seen", "objective", "metrics")}
            event_log.append("report", trial=BASELINE_NAME, **last_report)
            if report.status != "running":
                status, reason = final_status(result)
                event_log.append(
                    "trial_finished", trial=BASELINE_NAME, status=status, reason=reason
                )
    return next(run for run in folder.runs() if run.id == BASELINE_NAME)


def evaluate_on_test(folder: SearchFolder, winner: Run, baseline: Run) -> dict[str, Scores]:
    """Test scores of the winner, the baseline and normalised pixels, on the same patches."""
    score_cache, noisy = ScoreCache.for_search(folder), winner.config.evaluate_on == "noisy"
    scores = {
        run.label: score_cache.scores(
            load_trained(run, folder).pipeline(), noisy=noisy, name=f"{folder.name}/{run.label}"
        )
        for run in (winner, baseline)
    }
    scores[PIXELS_NAME] = evaluate_function(pixel_baseline, score_cache.test_set, noisy=noisy)
    save_scores(folder, scores)
    return scores


def save_scores(folder: SearchFolder, scores: Mapping[str, Scores]) -> None:
    """Write down what was scored on test, by name."""
    text = to_json({name: found.to_dict() for name, found in scores.items()})
    write_atomic(folder.path / SCORES_FILE, text)


def load_scores(folder: SearchFolder) -> dict[str, Scores]:
    """Test scores that a finished search wrote down; empty if it has not finished."""
    path = folder.path / SCORES_FILE
    if not path.exists():
        return {}
    with reading(path, "record of test scores", "restore it from a copy"):
        found = from_json(path.read_text(), path)
        return {name: Scores.from_dict(values) for name, values in found.items()}


def pipeline_spec(config: TrialConfig) -> PipelineSpec:
    """Which networks a trial's pipeline consists of."""
    denoiser = config.input.denoiser.network if isinstance(config.input, Denoised) else None
    return PipelineSpec(denoiser=denoiser, descriptor=config.descriptor)
