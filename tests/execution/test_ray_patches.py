"""Contract tests of Ray's private names: each fails when the name or its meaning changes."""

import inspect
import os
from types import SimpleNamespace
from typing import Any

import pytest
import ray
from ray._private import ray_constants, services
from ray._raylet import (  # pyright: ignore[reportAttributeAccessIssue]
    AuthenticationTokenLoader,  # pyright: ignore[reportAttributeAccessIssue]
    Config,  # pyright: ignore[reportAttributeAccessIssue]
)
from ray.exceptions import OutOfMemoryError, RayActorError
from ray.tune.execution import tune_controller
from ray.tune.execution.tune_controller import TuneController
from ray.tune.experiment import Trial

from hpsearch.execution import ray_patches


def test_tune_ends_its_search_on_a_worker_killed_for_memory_but_not_with_the_patch() -> None:
    """By the method of Ray's manager that is replaced, with its real collaborators left out."""

    def failed_with(error: Exception) -> list[str]:
        manager: Any = vars(tune_controller)["RayActorManager"](resource_manager=None)
        manager._cleanup_actor = lambda **unused: None
        called = list[str]()
        actor = SimpleNamespace(
            actor_id=1,
            _on_error=lambda actor, error: called.append(f"actor {type(error).__name__}"),
        )
        task = SimpleNamespace(
            _tracked_actor=actor,
            _on_error=lambda actor, error: called.append(f"task {type(error).__name__}"),
        )
        manager._actor_task_failed(task, error)
        return called

    with pytest.raises(RuntimeError, match="Caught unexpected exception"):
        failed_with(OutOfMemoryError("running low on memory"))
    with ray_patches.patched_actor_manager():
        found = failed_with(OutOfMemoryError("running low on memory"))
        assert found == ["actor RayActorError", "task RayActorError"]
        assert failed_with(RayActorError(error_msg="died")) == found
    assert "RayActorManager(" in inspect.getsource(TuneController.__init__), "as it is replaced"


def test_a_trial_holds_the_handle_of_its_worker() -> None:
    trial = Trial("x", stub=True)
    assert ray_patches.actor_of(trial) is None
    metrics = SimpleNamespace(remote=lambda **unused: None)
    trial.set_ray_actor(handle := SimpleNamespace(get_auto_filled_metrics=metrics))
    assert ray_patches.actor_of(trial) is handle
    trial.set_ray_actor(None)
    assert ray_patches.actor_of(trial) is None


def test_ray_reads_mode_and_token_again(monkeypatch: pytest.MonkeyPatch) -> None:
    try:
        for mode, expected in (("token", True), ("disabled", False)):
            monkeypatch.setenv("RAY_AUTH_MODE", mode)
            monkeypatch.setenv("RAY_AUTH_TOKEN", "0" * 64)
            Config.initialize("")
            AuthenticationTokenLoader.instance().reset_cache()
            header = AuthenticationTokenLoader.instance().get_token_for_http_header()
            assert ("0" * 64 in str(header)) == expected
    finally:
        monkeypatch.undo()
        Config.initialize("")
        AuthenticationTokenLoader.instance().reset_cache()
    assert os.environ["RAY_AUTH_MODE"]


def test_without_clusters_ray_takes_loopback_for_the_address_of_the_machine(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(ray_constants, "ENABLE_RAY_CLUSTER", False)
    assert services.get_node_ip_address() == "127.0.0.1"


class Future:
    """A future of Ray's, as far as the patched manager sees one."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.callbacks: list[Any] = []

    def _on_ready(self, callback: Any) -> Any:
        self.callbacks.append(callback)
        return lambda: self.callbacks.remove(callback)

    def resolve(self) -> None:
        for callback in list(self.callbacks):
            callback(None)


@pytest.fixture
def manager(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The patched manager with its real collaborators left out; futures are their own values."""
    monkeypatch.setattr(ray, "get", lambda future: future.name)
    waited = list[Any]()
    monkeypatch.setattr(ray, "wait", lambda *given, **named: waited.append(given) or ([], []))
    resources = SimpleNamespace(staged=[], get_resource_futures=lambda: list(resources.staged))
    with ray_patches.patched_actor_manager():
        found: Any = vars(tune_controller)["RayActorManager"](resource_manager=resources)
    found.resources, found.waited = resources, waited
    return found


def test_events_come_in_the_order_of_their_futures_without_a_wait_for_all(manager: Any) -> None:
    seen, futures = list[str](), [Future(str(number)) for number in range(1_000)]
    for future in futures:
        manager._actor_task_events.track_future(future, on_result=seen.append)
    assert not manager.next(timeout=0)
    for number in (7, 3, 999):
        futures[number].resolve()
    futures[7].resolve()  # a second notice changes nothing
    manager._actor_task_events.discard_future(futures[3])
    assert [manager.next(timeout=0) for _ in range(3)] == [True, True, False]
    assert seen == ["7", "999"], "a discarded future is no event"
    assert manager.waited == [], "nobody waits for the futures of all workers"
    assert all(len(future.callbacks) <= 1 for future in futures), "each is watched once"


def test_a_future_that_becomes_one_of_the_workers_state_is_an_event_once(manager: Any) -> None:
    """As that of a worker's end, which Tune discards as a task and tracks as a state."""
    seen, end = list[str](), Future("end")
    manager._actor_task_events.track_future(end)
    end.resolve()
    manager._actor_task_events.discard_future(end)
    manager._actor_state_events.track_future(end, on_result=seen.append)
    end.resolve()
    assert [manager.next(timeout=0) for _ in range(2)] == [True, False]
    assert seen == ["end"]


def test_resources_that_are_ready_start_workers_and_are_no_event(manager: Any) -> None:
    updates, first, second = list[int](), Future("first"), Future("second")
    manager.resources.staged = [first, second]

    def update() -> None:  # as Ray's, which takes all that are ready
        updates.append(len(manager.resources.staged))
        manager.resources.staged.clear()

    manager.resources.update_state = update
    assert not manager.next(timeout=0)
    first.resolve()
    second.resolve()
    assert not manager.next(timeout=0)
    assert updates == [2], "the second was seen with the first"
