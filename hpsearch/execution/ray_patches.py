"""All that this package changes in Ray, and every private name of Ray that it uses."""

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from ray._private import worker
from ray.air.execution._internal import RayActorManager
from ray.exceptions import OutOfMemoryError, RayActorError
from ray.tune.execution import tune_controller


class _PatchedActorManager(RayActorManager):
    """Tune's own, but for one error."""

    def _actor_task_failed(self, tracked_actor_task: Any, exception: Exception) -> None:
        if isinstance(exception, OutOfMemoryError):
            exception = RayActorError(error_msg=str(exception))
        super()._actor_task_failed(tracked_actor_task, exception)


@contextmanager
def treat_oom_kill_as_actor_death() -> Iterator[None]:
    """While Tune runs, an evicted worker has died, as one whose machine went away."""
    before = tune_controller.RayActorManager  # pyright: ignore[reportPrivateImportUsage]
    # there is no public way to hand one in
    tune_controller.RayActorManager = _PatchedActorManager  # pyright: ignore
    try:
        yield
    finally:
        tune_controller.RayActorManager = before  # pyright: ignore


SUPPRESSED = re.compile(
    r"A worker died or was killed"
    r"|\d+ worker\(s\) were killed due to the node running low on memory"
    r"|\d+ Workers \(tasks / actors\) killed due to memory pressure"
    r"|WARNING: \d+ PYTHON worker processes have been started"
)


@contextmanager
def suppress_worker_death_logs() -> Iterator[None]:
    """While inside, Ray prints nothing of workers that died."""
    before: Callable[..., None] = worker.print_to_stdstream  # pyright: ignore

    def print_unless_suppressed(data: dict[str, Any], *how: Any, **also: Any) -> None:
        lines = [line for line in data["lines"] if not SUPPRESSED.match(line)]
        if lines:
            before({**data, "lines": lines}, *how, **also)

    # there is no public way; `log_to_driver` is for what workers print
    worker.print_to_stdstream = print_unless_suppressed  # pyright: ignore[reportPrivateImportUsage]
    try:
        yield
    finally:
        worker.print_to_stdstream = before  # pyright: ignore[reportPrivateImportUsage]
