"""The end of a search: the winner meets the yardsticks on test and is registered."""

import json
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from hpsearch.config import Denoised, TrialConfig
from hpsearch.errors import UserError
from hpsearch.evaluation import Scores
from hpsearch.evaluation.bootstrap import compare
from hpsearch.evaluation.pixels import normalised_pixels
from hpsearch.models.serving import Recipe, save_pipeline
from hpsearch.search.objective import Objective
from hpsearch.search.outcome import FAILURES
from hpsearch.search.workspace import SearchFolder
from hpsearch.tracking.candidate import FINGERPRINT, Candidate
from hpsearch.tracking.decision import Decision, decide
from hpsearch.tracking.registry import Registry
from hpsearch.tracking.runs import Run
from hpsearch.training.devices import choose_device
from hpsearch.training.judging import judge, judge_function, judged_part
from hpsearch.training.trial import Trial, prepare_trial

BASELINE, PIXELS = "baseline", "pixels 16×16"
SCORES = "test_scores.json"


@dataclass(frozen=True)
class Outcome:
    """What became of a winner in the registry."""

    model: str
    version: int
    alias: str
    decision: Decision


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
    """Train the baseline for the same budget, unless that has been done, and write it down."""
    done = [run for run in folder.runs() if run.id == BASELINE and run.status == "completed"]
    if done:
        return done[0]
    search, ledger = folder.search(), folder.ledger
    config = search.baseline.model_dump(mode="json")
    ledger.append("start", trial=BASELINE, number=-1, kind="yardstick", config=config)
    with one_thread():
        trial = prepare_trial(search.baseline, folder.job())
        for report in trial.reports():
            collapsed = report.status in FAILURES
            value = search.objective.value(report.metrics, collapsed=collapsed)
            trial.save(folder.trials / BASELINE, report)
            said = {"seen": report.seen, "objective": value, "metrics": report.metrics}
            ledger.append("report", trial=BASELINE, **said)
            if report.status != "running":
                ledger.append("end", trial=BASELINE, status=report.status, reason=report.reason)
    return next(run for run in folder.runs() if run.id == BASELINE)


@contextmanager
def one_thread() -> Iterator[None]:
    """As trials train: threads that wait for each other cost small networks more than they gain."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def judge_all(folder: SearchFolder, winner: Run, baseline: Run) -> dict[str, Scores]:
    """Test scores of the winner, the baseline and normalised pixels, on the same patches."""
    test, noisy = judged_part(folder.store(), folder.split()), winner.config.evaluate_on == "noisy"
    with one_thread():
        scores = {
            run.label: judge(trained(run, folder).pipeline(), test, noisy=noisy, device=device())
            for run in (winner, baseline)
        }
    scores[PIXELS] = judge_function(pixels, test, noisy=noisy)
    (folder.path / SCORES).write_text(
        json.dumps({name: found.to_dict() for name, found in scores.items()})
    )
    return scores


def register_winner(folder: SearchFolder, winner: Run) -> Outcome:
    """Add the winner to the registry and move the alias that the decision gives.

    Raises:
        UserError: if it has not been judged on test.
    """
    scores = load_scores(folder).get(winner.label)
    if scores is None:
        raise UserError(
            f"{folder.name!r} has not ended; go on with `hpsearch resume {folder.name}`"
        )
    publisher = folder.publisher()
    publisher.sync()
    registry = Registry(tracking=folder.tracking(), model=folder.record.model)
    known = registry.decision_on(folder.name)
    if known is not None:
        return Outcome(registry.model, *known)
    decision = decide_against_champion(registry, scores, folder.record.fingerprint)
    with tempfile.TemporaryDirectory() as temporary:
        candidate = Candidate(
            folder=save_winner(folder, winner, Path(temporary)),
            run_id=publisher.run_id(winner.id),
            search=folder.name,
            scores=scores,
            fingerprint=folder.record.fingerprint,
            example=example_patches(folder),
            dimensions=winner.config.descriptor.dimensions,
        )
        version = registry.register(candidate)
    return Outcome(registry.model, version, registry.apply(version, decision), decision)


def load_scores(folder: SearchFolder) -> dict[str, Scores]:
    """Test scores that a finished search wrote down; empty if it has not finished."""
    path = folder.path / SCORES
    if not path.exists():
        return {}
    return {name: Scores.from_dict(values) for name, values in json.loads(path.read_text()).items()}


def decide_against_champion(registry: Registry, scores: Scores, fingerprint: str) -> Decision:
    """Compare with the present champion, if there is one."""
    champion = registry.champion()
    if champion is None:
        return decide(None, collapsed=scores.collapsed)
    if champion.tags.get(FINGERPRINT) != fingerprint:
        return decide(None, same_patches=False, collapsed=scores.collapsed)
    found = compare(scores, registry.scores(champion))["mAP"]
    return decide(found, collapsed=scores.collapsed)


def save_winner(folder: SearchFolder, winner: Run, to: Path) -> Path:
    """The winner's pipeline as files."""
    save_pipeline(trained(winner, folder).pipeline(), recipe(winner.config), to)
    return to


def recipe(config: TrialConfig) -> Recipe:
    """Which networks a trial's pipeline consists of."""
    denoiser = config.input.denoiser.network if isinstance(config.input, Denoised) else None
    return Recipe(denoiser=denoiser, descriptor=config.descriptor)


def example_patches(folder: SearchFolder) -> np.ndarray:
    """Four noisy reference patches of the test part, as an input example."""
    test = folder.store().part(folder.split(), "test")
    return test.gather(np.arange(0, 64, 16), noisy=True)


def device() -> torch.device:
    """Where a finished search is judged."""
    return choose_device("auto")
