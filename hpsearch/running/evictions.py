"""Ray kills a worker because its machine has no memory left: one trial's worker has died.

Tune 2.60 expects that of no worker. It raises, and so ends every trial of the search.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from ray.air.execution._internal import RayActorManager
from ray.exceptions import OutOfMemoryError, RayActorError
from ray.tune.execution import tune_controller


class _Manager(RayActorManager):
    """Tune's own, but for one error."""

    def _actor_task_failed(self, tracked_actor_task: Any, exception: Exception) -> None:
        if isinstance(exception, OutOfMemoryError):
            exception = RayActorError(error_msg=str(exception))
        super()._actor_task_failed(tracked_actor_task, exception)


@contextmanager
def evictions_are_deaths() -> Iterator[None]:
    """While Tune runs, an evicted worker has died, as one whose machine went away."""
    before = tune_controller.RayActorManager  # pyright: ignore[reportPrivateImportUsage]
    # there is no public way to hand one in
    tune_controller.RayActorManager = _Manager  # pyright: ignore
    try:
        yield
    finally:
        tune_controller.RayActorManager = before  # pyright: ignore
