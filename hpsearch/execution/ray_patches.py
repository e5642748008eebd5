"""Private names of Ray Tune, and the one change of its behavior, tried with Ray 2.60.

Each name has a contract test in ``tests/execution/test_ray_patches.py``. Other private names of Ray
stand in ``draining_patches`` and ``local_session_patches``.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from ray.exceptions import OutOfMemoryError, RayActorError
from ray.tune.execution import tune_controller
from ray.tune.experiment import Trial

_ActorManager: Any = tune_controller.RayActorManager  # pyright: ignore[reportPrivateImportUsage]


class _PatchedActorManager(_ActorManager):
    """Tune's manager of workers, which a worker killed for lack of memory does not end.

    Tune handles the death of an actor and an error that a task raises. Ray's memory monitor is
    neither: it kills a worker with an ``OutOfMemoryError``, on which Tune ends the whole search
    ("Caught unexpected exception"). There is no public way to handle it, and no upstream issue is
    known to us.
    """

    def _actor_task_failed(self, tracked_actor_task: Any, exception: Exception) -> None:
        if isinstance(exception, OutOfMemoryError):
            exception = RayActorError(error_msg=str(exception))
        super()._actor_task_failed(tracked_actor_task, exception)


@contextmanager
def treat_oom_kill_as_actor_death() -> Iterator[None]:
    """While inside, Tune treats a worker that Ray killed for lack of memory as one that died."""
    tune_controller.RayActorManager = _PatchedActorManager  # pyright: ignore
    try:
        yield
    finally:
        tune_controller.RayActorManager = _ActorManager  # pyright: ignore


def actor_of(trial: Trial) -> Any | None:
    """Handle of the worker that runs a trial; None if none does.

    Tune has no public way to end one trial's worker from a callback, as a hang needs: it asks a
    worker to stop and waits for its answer.
    """
    return trial.temporary_state.ray_actor
