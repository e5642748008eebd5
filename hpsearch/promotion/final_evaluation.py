"""Final evaluation of a search: test scores of the winner and the baselines."""

from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from types import MappingProxyType

import numpy as np
import torch

from hpsearch.atomic_files import write_atomic
from hpsearch.config import CustomNetwork, Denoised, TrialConfig
from hpsearch.errors import UserError
from hpsearch.evaluation import Scores
from hpsearch.evaluation.baselines import pixel_descriptor, root_sift
from hpsearch.execution.resumable_trial import CheckpointHooks, run_with_checkpoints
from hpsearch.models.serialization import PipelineSpec, ProgramSpec
from hpsearch.promotion.score_cache import ScoreCache, single_threaded
from hpsearch.schema import from_json, to_json
from hpsearch.search.objective import Objective
from hpsearch.search.outcome import final_status, to_result
from hpsearch.search.search_context import SearchContext
from hpsearch.tracking.run_state import Run
from hpsearch.training.devices import choose_device
from hpsearch.training.trial import CHECKPOINT_FILE, TrainingRun, build_trial
from hpsearch.untrusted import reading

BASELINE_NAME, PIXELS_NAME, ROOT_SIFT_NAME = "baseline", "pixels 16×16", "RootSIFT"
INITIAL_NAME = "initial point"
"""Name of the trial of a search's first initial point among its test scores."""


def pixel_baseline(patches: np.ndarray) -> np.ndarray:
    """Compute the classical baseline: normalized 16×16 pixels of patches (uint8, n×32×32)."""
    return pixel_descriptor(torch.from_numpy(patches)).numpy()


CLASSICAL_BASELINES: Mapping[str, Callable[[np.ndarray], np.ndarray]] = MappingProxyType(
    {PIXELS_NAME: pixel_baseline, ROOT_SIFT_NAME: root_sift}
)
"""Descriptors without training that every search is compared with, by name."""


def evaluate_classical(score_cache: ScoreCache, *, noisy: bool) -> dict[str, Scores]:
    """Test scores of RootSIFT and of normalized pixels, by name; evaluated once in a home.

    Args:
        score_cache: scores on the test patches.
        noisy: whether noisy or clean test patches are described.
    """
    return {
        name: score_cache.function_scores(function, noisy=noisy, name=name)
        for name, function in CLASSICAL_BASELINES.items()
    }


def best_run(runs: list[Run], objective: Objective) -> Run:
    """Completed trial with the best objective.

    Raises:
        UserError: if no trial completed.
    """
    completed = [run for run in runs if run.kind == "trial" and run.status == "completed"]
    if not completed and any(run.status == "infeasible" for run in runs):
        raise UserError(
            "every trial that was not pruned violates a constraint, so there is no winner; "
            "widen the search space, or relax the constraint",
            code="no-feasible-trial",
        )
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

    An interrupted baseline resumes from its checkpoint; a completed one is not retrained, but is
    trained on if the budget was raised since.
    """
    search, event_log = context.search, context.event_log
    done = [run for run in context.runs if run.id == BASELINE_NAME and run.status == "completed"]
    if done and done[0].config.patches >= search.baseline.patches:
        return done[0]
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


@contextmanager
def scoring_ahead(context: SearchContext, winner: Run) -> Iterator[None]:
    """While inside, score what ``evaluate_on_test`` needs but the baseline in another thread.

    The scores go to the cache. On an accelerator nothing is done ahead, since the baseline trains
    there.

    Raises:
        UserError: if a checkpoint does not exist.
    """
    if choose_device("auto").type != "cpu":
        yield
        return
    score_cache, noisy = ScoreCache.for_search(context), winner.config.evaluate_on == "noisy"
    # built here, since initial weights are drawn from the generator that training uses as well
    networks = {
        run.label: load_trained(run, context).pipeline()
        for run in _compared_runs(context, winner).values()
    }

    def score() -> None:
        for label, network in networks.items():
            score_cache.scores(network, noisy=noisy, name=f"{context.name}/{label}")
        evaluate_classical(score_cache, noisy=noisy)

    with single_threaded(), ThreadPoolExecutor(1, "scores") as executor:
        scored = executor.submit(score)
        yield
    scored.result()


def evaluate_on_test(context: SearchContext, winner: Run, baseline: Run) -> dict[str, Scores]:
    """Evaluate the winner and what it is compared with on the same test patches.

    That is the search's initial point (unless it is the winner, or was pruned), the baseline,
    RootSIFT and normalized pixels.
    """
    score_cache, noisy = ScoreCache.for_search(context), winner.config.evaluate_on == "noisy"
    scores = {
        name: score_cache.scores(
            load_trained(run, context).pipeline(), noisy=noisy, name=f"{context.name}/{run.label}"
        )
        for name, run in {**_compared_runs(context, winner), BASELINE_NAME: baseline}.items()
    }
    scores |= evaluate_classical(score_cache, noisy=noisy)
    save_scores(context, scores)
    return scores


def _compared_runs(context: SearchContext, winner: Run) -> dict[str, Run]:
    """Winner, and the trial of the initial point if that is another one, by name."""
    initial = initial_run(context)
    others = {} if initial is None or initial.id == winner.id else {INITIAL_NAME: initial}
    return {winner.label: winner, **others}


def initial_run(context: SearchContext) -> Run | None:
    """Completed trial of the search's first initial point, if that has a network of its own."""
    search = context.search
    if not search.initial_points or search.num_folds or context.record.warm_start_from:
        return None
    first = next((r for r in context.runs if r.kind == "trial" and r.number == 0), None)
    if first is None or first.status != "completed":
        return None
    return first if (context.paths.trials_dir / first.id / CHECKPOINT_FILE).exists() else None


def save_scores(context: SearchContext, scores: Mapping[str, Scores]) -> None:
    """Write the test scores of a search, by name."""
    text = to_json({name: found.to_dict() for name, found in scores.items()})
    write_atomic(context.paths.test_scores, text)


def load_scores(context: SearchContext) -> dict[str, Scores]:
    """Read the test scores of a finished search; empty if it has not finished."""
    path = context.paths.test_scores
    if not path.exists():
        return {}
    with reading(path, "record of test scores", "restore it from a copy"):
        found = from_json(path.read_text("utf-8"), path)
        return {name: Scores.from_dict(values) for name, values in found.items()}


def evaluated_label(context: SearchContext) -> str | None:
    """Label of the trial that was evaluated on test as the winner; None if there is none yet.

    In a promotion this is the training with the median objective, and not the best of the trials.
    """
    scores = load_scores(context)
    trials = [run for run in context.runs if run.kind == "trial"]
    return next((run.label for run in trials if run.label in scores), None)


def pipeline_spec(config: TrialConfig) -> PipelineSpec | ProgramSpec:
    """Specification of the networks in a trial's pipeline; a program, if one is the user's own."""
    if isinstance(config.descriptor, CustomNetwork):
        return ProgramSpec(network=config.descriptor.object)
    denoiser = config.input.denoiser.network if isinstance(config.input, Denoised) else None
    return PipelineSpec(
        denoiser=denoiser, descriptor=config.descriptor, compression=config.compression
    )
