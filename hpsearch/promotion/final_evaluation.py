"""Final evaluation of a search: test scores of the winner and the baselines."""

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
from hpsearch.search.search_context import SearchContext
from hpsearch.tracking.run_state import Run
from hpsearch.training.trial import TrainingRun, build_trial
from hpsearch.training.validation import evaluate_function
from hpsearch.untrusted import reading

BASELINE_NAME, PIXELS_NAME = "baseline", "pixels 16×16"
SCORES_FILE = "test_scores.json"


def pixel_baseline(patches: np.ndarray) -> np.ndarray:
    """Compute the classical baseline: normalized 16×16 pixels of patches (uint8, n×32×32)."""
    return pixel_descriptor(torch.from_numpy(patches)).numpy()


def best_run(runs: list[Run], objective: Objective) -> Run:
    """Completed trial with the best objective.

    Raises:
        UserError: if no trial completed.
    """
    completed = [run for run in runs if run.kind == "trial" and run.status == "completed"]
    if not completed:
        raise UserError(
            "no trial completed, so there is no winner; run more trials, or widen the search space",
            code="no-completed-trial",
        )
    pick = max if objective.direction == "maximize" else min
    return pick(completed, key=lambda run: run.reports[-1]["objective"])


def load_trained(run: Run, context: SearchContext) -> TrainingRun:
    """Load a run's networks from its last checkpoint.

    Raises:
        UserError: if the checkpoint does not exist.
    """
    trial = build_trial(run.config, context.environment)
    trial.load(context.paths.trials_dir / run.id)
    return trial


def train_baseline(context: SearchContext) -> Run:
    """Train the baseline for the budget of a trial, and log it to the event log.

    An interrupted baseline resumes from its checkpoint; a completed one is not retrained.
    """
    done = [run for run in context.runs if run.id == BASELINE_NAME and run.status == "completed"]
    if done:
        return done[0]
    search, event_log = context.search, context.event_log
    config = search.baseline.model_dump(mode="json")
    event_log.append("start", trial=BASELINE_NAME, number=-1, kind="baseline", config=config)
    with single_threaded():
        post = CheckpointHooks(
            context.paths.trials_dir / BASELINE_NAME,
            on_restart=lambda why: event_log.append(
                "restarted_from_scratch", trial=BASELINE_NAME, reason=why
            ),
        )
        for report in run_with_checkpoints(search.baseline, context.environment, post):
            result = to_result(report, search.objective)
            last_report = {key: result[key] for key in ("seen", "objective", "metrics")}
            event_log.append("report", trial=BASELINE_NAME, **last_report)
            if report.status != "running":
                status, reason = final_status(result)
                event_log.append(
                    "trial_finished", trial=BASELINE_NAME, status=status, reason=reason
                )
    return next(run for run in context.runs if run.id == BASELINE_NAME)


def evaluate_on_test(context: SearchContext, winner: Run, baseline: Run) -> dict[str, Scores]:
    """Evaluate winner, baseline and normalized pixels on the same test patches."""
    score_cache, noisy = ScoreCache.for_search(context), winner.config.evaluate_on == "noisy"
    scores = {
        run.label: score_cache.scores(
            load_trained(run, context).pipeline(), noisy=noisy, name=f"{context.name}/{run.label}"
        )
        for run in (winner, baseline)
    }
    scores[PIXELS_NAME] = evaluate_function(pixel_baseline, score_cache.test_set, noisy=noisy)
    save_scores(context, scores)
    return scores


def save_scores(context: SearchContext, scores: Mapping[str, Scores]) -> None:
    """Write the test scores of a search, by name."""
    text = to_json({name: found.to_dict() for name, found in scores.items()})
    write_atomic(context.paths.folder / SCORES_FILE, text)


def load_scores(context: SearchContext) -> dict[str, Scores]:
    """Read the test scores of a finished search; empty if it has not finished."""
    path = context.paths.folder / SCORES_FILE
    if not path.exists():
        return {}
    with reading(path, "record of test scores", "restore it from a copy"):
        found = from_json(path.read_text("utf-8"), path)
        return {name: Scores.from_dict(values) for name, values in found.items()}


def pipeline_spec(config: TrialConfig) -> PipelineSpec:
    """Specification of the networks in a trial's pipeline."""
    denoiser = config.input.denoiser.network if isinstance(config.input, Denoised) else None
    return PipelineSpec(denoiser=denoiser, descriptor=config.descriptor)
