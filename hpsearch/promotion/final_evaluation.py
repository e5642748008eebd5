"""The end of a search: the winner meets the yardsticks on test."""

from collections.abc import Mapping

import numpy as np
import torch

from hpsearch.atomic_files import write_whole
from hpsearch.config import Denoised, TrialConfig
from hpsearch.errors import UserError
from hpsearch.evaluation import Scores
from hpsearch.evaluation.baselines import normalised_pixels
from hpsearch.execution.resumable_trial import Post, checkpointed
from hpsearch.models.serialization import Recipe
from hpsearch.promotion.score_cache import Gradebook, one_thread
from hpsearch.schema import from_json, to_json
from hpsearch.search.objective import Objective
from hpsearch.search.outcome import guarded, outcome
from hpsearch.search.workspace import SearchFolder
from hpsearch.tracking.run_state import Run
from hpsearch.training.trial import Trial, prepare_trial
from hpsearch.training.validation import judge_function
from hpsearch.untrusted import reading

BASELINE, PIXELS = "baseline", "pixels 16×16"
SCORES = "test_scores.json"


def pixels(patches: np.ndarray) -> np.ndarray:
    """The classical yardstick: normalised 16×16 pixels of patches (uint8, n×32×32)."""
    return normalised_pixels(torch.from_numpy(patches)).numpy()


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


def trained(run: Run, folder: SearchFolder) -> Trial:
    """A run's networks as they were at its last checkpoint.

    Raises:
        UserError: if the checkpoint is gone.
    """
    trial = prepare_trial(run.config, folder.job())
    trial.load(folder.trials / run.id)
    return trial


def train_baseline(folder: SearchFolder) -> Run:
    """Train the baseline for the same budget, and write it down.

    One that was killed goes on from its checkpoint; one that is done is not trained again.
    """
    done = [run for run in folder.runs() if run.id == BASELINE and run.status == "completed"]
    if done:
        return done[0]
    search, ledger = folder.search(), folder.ledger
    config = search.baseline.model_dump(mode="json")
    ledger.append("start", trial=BASELINE, number=-1, kind="yardstick", config=config)
    with one_thread():
        post = Post(
            folder.trials / BASELINE,
            anew=lambda why: ledger.append("anew", trial=BASELINE, reason=why),
        )
        for report in checkpointed(search.baseline, folder.job(), post):
            result = guarded(report, search.objective)
            said = {key: result[key] for key in ("seen", "objective", "metrics")}
            ledger.append("report", trial=BASELINE, **said)
            if report.status != "running":
                status, reason = outcome(result)
                ledger.append("end", trial=BASELINE, status=status, reason=reason)
    return next(run for run in folder.runs() if run.id == BASELINE)


def judge_all(folder: SearchFolder, winner: Run, baseline: Run) -> dict[str, Scores]:
    """Test scores of the winner, the baseline and normalised pixels, on the same patches."""
    book, noisy = Gradebook.of(folder), winner.config.evaluate_on == "noisy"
    scores = {
        run.label: book.scores(
            trained(run, folder).pipeline(), noisy=noisy, who=f"{folder.name}/{run.label}"
        )
        for run in (winner, baseline)
    }
    scores[PIXELS] = judge_function(pixels, book.test, noisy=noisy)
    save_scores(folder, scores)
    return scores


def save_scores(folder: SearchFolder, scores: Mapping[str, Scores]) -> None:
    """Write down what was scored on test, by name."""
    text = to_json({name: found.to_dict() for name, found in scores.items()})
    write_whole(folder.path / SCORES, text)


def load_scores(folder: SearchFolder) -> dict[str, Scores]:
    """Test scores that a finished search wrote down; empty if it has not finished."""
    path = folder.path / SCORES
    if not path.exists():
        return {}
    with reading(path, "record of test scores", "restore it from a copy"):
        found = from_json(path.read_text(), path)
        return {name: Scores.from_dict(values) for name, values in found.items()}


def recipe(config: TrialConfig) -> Recipe:
    """Which networks a trial's pipeline consists of."""
    denoiser = config.input.denoiser.network if isinstance(config.input, Denoised) else None
    return Recipe(denoiser=denoiser, descriptor=config.descriptor)
