"""Dry run of a search: all checks of its start, and an estimate of what it will cost.

Heavy modules are imported inside functions, after all checks that do not need them.
"""

import resource
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from hpsearch.config import Noisy, TrialConfig
from hpsearch.defaults import DEFAULT_HOME
from hpsearch.errors import UserError
from hpsearch.search.pruners import ASHA, PASHA, rung_steps
from hpsearch.search.search import Search
from hpsearch.search.workspace import Workspace
from hpsearch.workflows.observer import Observer
from hpsearch.workflows.run_search import prepare_cluster
from hpsearch.workflows.search_plan import SearchOptions, SearchPlan, plan_search

if TYPE_CHECKING:
    from hpsearch.training.trial import TrainingRun

TIMED_STEPS = 2
"""Steps of one trial that are timed, after a first one."""
NUM_EXAMPLES = 3
"""Configurations that are drawn to look at."""


@dataclass(frozen=True, kw_only=True)
class DryRun:
    """Estimate of a search that was not started."""

    plan: SearchPlan
    rungs: tuple[float, ...]
    """Patches seen at which trials are compared and may be pruned."""
    examples: Sequence[TrialConfig]
    """Configurations as the search would draw them, the given points first."""
    concurrent: int
    """Trials that run at once."""
    seconds_per_trial: float
    """Seconds that a trial of the whole budget takes, with its validations, on this machine."""
    expected_seconds: float
    """Seconds that all trials take, of which the pruner stops as many as it is meant to."""
    memory_bytes: float
    """Largest memory of the process that trained the timed steps, or of its GPU."""

    @property
    def patches(self) -> int:
        """Patches of all trials if none is stopped early, or the limit if that is lower."""
        whole, limit = self.plan.record.trials * self.plan.search.budget, self.plan.record.limits
        return whole if limit.patches is None else min(whole, limit.patches)


def dry_run(
    space: str | Path | Search,
    options: SearchOptions | None = None,
    *,
    home: str | Path = DEFAULT_HOME,
    observer: Observer | None = None,
) -> DryRun:
    """Check a search as ``run_search`` does, time two steps of a trial, and start nothing.

    Only the patches of a built-in set are written, unless the home has them. A shared denoiser is
    neither trained nor counted.

    Args:
        space: a ``Search``, or the path of a file that exports one.
        options: as of ``run_search``.
        home: folder for data, searches and MLflow's files.
        observer: receives messages.

    Raises:
        UserError: if ``run_search`` would raise it, or MLflow does not answer: a search would train
            without it, and send its runs later.
    """
    observer = observer or Observer()
    plan = plan_search(space, options or SearchOptions(), Workspace(Path(home)), observer)

    from hpsearch.execution import ray_runtime
    from hpsearch.execution.placement import ResourceAllocator

    try:
        tracking = plan.workspace.tracking(plan.record.tracking_uri, read_only=True)
        tracking.check_experiment(must_answer=True)
    except UserError as error:
        if error.code != "no-mlflow-database":  # the search would create it
            raise
    prepare_cluster(plan, observer)
    try:
        record = plan.record
        resources = record.resources.with_default_device(plan.search.compute.device)
        nodes = ray_runtime.node_resources()
        slots = ResourceAllocator(resources, nodes, record.max_concurrent_trials).available_slots()
    finally:
        ray_runtime.stop_ray()
    most = record.max_concurrent_trials or slots
    concurrent = max(1, min(slots, most, record.trials))
    examples = plan.search.examples(NUM_EXAMPLES)
    seconds = _seconds_per_trial(plan, examples[0])
    rungs = _rungs(plan.search)
    return DryRun(
        plan=plan,
        rungs=rungs,
        examples=examples,
        concurrent=concurrent,
        seconds_per_trial=seconds,
        expected_seconds=_expected_seconds(plan, rungs, concurrent, seconds),
        memory_bytes=_peak_memory(),
    )


def _expected_seconds(
    plan: SearchPlan, rungs: Sequence[float], concurrent: int, seconds: float
) -> float:
    """Seconds of all trials; the last one of a search without a limit runs to its end."""
    record, search = plan.record, plan.search
    trials = record.trials * expected_share(search, rungs, record.trials)
    found = max(seconds, trials / concurrent * seconds)
    if record.limits.patches is not None:
        found = min(found, record.limits.patches / search.budget / concurrent * seconds)
    return found if record.limits.seconds is None else min(found, record.limits.seconds)


def expected_share(search: Search, rungs: Sequence[float], trials: int) -> float:
    """Share of the whole budget that a trial uses on average, if ASHA prunes as it is meant to.

    Of the trials that reach a rung, the share 1/``reduction_factor`` continues, and at least the
    best one, to the end. It is 1 for other pruners, whose number of stopped trials is not known
    before.
    """
    if not rungs or not isinstance(search.active_pruner, ASHA | PASHA):
        return 1.0
    factor, used, share = search.active_pruner.reduction_factor, rungs[0], 1.0
    for low, high in zip(rungs, (*rungs[1:], search.budget), strict=True):
        share = max(share / factor, 1 / trials)
        used += share * (high - low)
    return used / search.budget


def _rungs(search: Search) -> tuple[float, ...]:
    pruner = search.active_pruner
    factor = getattr(pruner, "reduction_factor", None)
    if factor is None:
        return ()
    return rung_steps(search.grace_patches, budget=search.budget, reduction_factor=factor)


def _seconds_per_trial(plan: SearchPlan, config: TrialConfig) -> float:
    """Time steps and one validation of a trial, and scale them to the whole budget."""
    from hpsearch.training.devices import torch_threads
    from hpsearch.training.loop import NotFiniteError
    from hpsearch.training.trial import TrialEnvironment, build_trial

    search, record = plan.search, plan.record
    device = record.resources.with_default_device(search.compute.device).device
    env = TrialEnvironment(
        store=plan.store,
        split=plan.data.split,
        validation_on=plan.data.validation_on,
        artifacts=plan.workspace.artifacts,
        report_every=search.report_every,
        validation_points=search.validation_points,
        computing=search.compute.model_copy(update={"device": device}),
    )
    with torch_threads(max(1, int(record.resources.cpus))):
        running = build_trial(_without_shared_parts(config), env)
        rate = _patches_per_second(running)
        started = time.monotonic()
        with suppress(NotFiniteError):
            running.task.evaluate()
        validation = time.monotonic() - started
    return search.budget / rate + -(-search.budget // search.first_report) * validation


def _without_shared_parts(config: TrialConfig) -> TrialConfig:
    """Configuration without what is trained once for all trials: denoiser and first weights."""
    default = TrialConfig.model_fields["warm_start"].get_default(call_default_factory=True)
    return config.model_copy(update={"input": Noisy(), "warm_start": default})


def _patches_per_second(running: "TrainingRun") -> float:
    """Time a few steps after a first one, which compiles and allocates."""
    progress, used, started = running.progress, 0, time.monotonic()
    for number in range(1 + TIMED_STEPS):
        loss, count = running.task.step(progress)
        progress.seen, progress.step = progress.seen + count, progress.step + 1
        progress.losses.append(loss)
        float(loss)  # waits for the device
        if number == 0:
            started = time.monotonic()
        else:
            used += count
    return used / max(time.monotonic() - started, 1e-9)


def _peak_memory() -> float:
    import torch

    if torch.cuda.is_available() and torch.cuda.max_memory_reserved():
        return float(torch.cuda.max_memory_reserved())
    unit = 1 if sys.platform == "darwin" else 1024  # the systems count in other units
    return float(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit)
