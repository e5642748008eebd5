"""Private names of Ray Tune, and the two changes of its behavior, tried with Ray 2.60.

Each name has a contract test in ``tests/execution/test_ray_patches.py``. Other private names of Ray
stand in ``draining_patches`` and ``local_session_patches``.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from queue import Empty, SimpleQueue
from typing import Any

from ray.exceptions import OutOfMemoryError, RayActorError
from ray.tune.execution import tune_controller
from ray.tune.experiment import Trial

_ActorManager: Any = tune_controller.RayActorManager  # pyright: ignore[reportPrivateImportUsage]


class _ReadyFutures:
    """Queue of the futures that have a value or an error, in the order in which they got it."""

    def __init__(self) -> None:
        self._ready: SimpleQueue[Any] = SimpleQueue()
        self._watched: dict[Any, tuple[Callable[[], bool], Callable[[], object]]] = {}
        """For each future what to do when it is ready, and how to wait for it no longer."""

    def watch(self, future: Any, resolve: Callable[[], bool]) -> None:
        """Put a future into the queue when it is ready; a second call changes nothing.

        Args:
            future: of Ray's.
            resolve: what to do then; returns whether it is an event of Tune's.
        """
        if future not in self._watched:
            cancel = future._on_ready(lambda error: self._ready.put(future))
            self._watched[future] = resolve, cancel

    def forget(self, future: Any) -> None:
        """Wait no longer for a future."""
        watched = self._watched.pop(future, None)
        if watched is not None:
            watched[1]()

    def resolve_next(self, timeout: float | None) -> bool | None:
        """Resolve the next future that was not forgotten; None if none is ready in time."""
        try:
            future = self._ready.get(timeout=timeout)
        except Empty:
            return None
        watched = self._watched.pop(future, None)
        return watched[0]() if watched is not None else False

    def follow(self, events: Any) -> None:
        """Watch the futures that one of Ray's managers of events tracks from now on."""
        track, discard = events.track_future, events.discard_future

        def resolve(future: Any) -> bool:
            events.resolve_future(future)
            return True

        def track_future(future: Any, on_result: Any = None, on_error: Any = None) -> None:
            track(future, on_result, on_error)
            self.watch(future, lambda: resolve(future))

        def discard_future(future: Any) -> None:
            discard(future)
            self.forget(future)

        events.track_future, events.discard_future = track_future, discard_future


class _PatchedActorManager(_ActorManager):
    """Tune's manager of workers, changed in two ways.

    A worker killed for lack of memory does not end the search. Tune handles the death of an actor
    and an error that a task raises. Ray's memory monitor is neither: it kills a worker with an
    ``OutOfMemoryError``, on which Tune ends the whole search ("Caught unexpected exception"). There
    is no public way to handle it, and no upstream issue is known to us.

    The cost of a report does not grow with the number of workers. Tune calls ``ray.wait`` for each
    report with the futures of all workers, in a random order. Here each future enters a queue when
    it is ready, so that reports are taken in the order in which they arrived.
    """

    def __init__(self, resource_manager: Any) -> None:
        super().__init__(resource_manager)
        self._ready = _ReadyFutures()
        self._ready.follow(self._actor_state_events)
        self._ready.follow(self._actor_task_events)

    def next(self, timeout: float | None = None) -> bool:
        """Wait for the next event, as Tune's manager does; return whether there was one."""
        was_killed = self._try_kill_actor()
        self._try_start_actors()
        if was_killed:
            return True
        until = None if timeout is None else time.monotonic() + timeout
        while True:
            for future in self._resource_manager.get_resource_futures():  # none if all have started
                self._ready.watch(future, partial(self._take_resources, future))
            left = None if until is None else max(0.0, until - time.monotonic())
            was_event = self._ready.resolve_next(left)
            if was_event:
                self._try_start_actors()
            if was_event or was_event is None:
                return bool(was_event)

    def _take_resources(self, future: Any) -> bool:
        """Start a worker on resources that are ready, which is no event of Tune's."""
        if future in self._resource_manager.get_resource_futures():  # else taken with another
            self._handle_ready_resource_future()
        return False

    def _actor_task_failed(self, tracked_actor_task: Any, exception: Exception) -> None:
        if isinstance(exception, OutOfMemoryError):
            exception = RayActorError(error_msg=str(exception))
        super()._actor_task_failed(tracked_actor_task, exception)


@contextmanager
def patched_actor_manager() -> Iterator[None]:
    """While inside, Tune takes a worker killed for lack of memory as one that died.

    And the cost of a report does not grow with the number of workers.
    """
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
