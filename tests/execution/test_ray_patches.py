"""Contract tests of Ray's private names: each fails when the name or its meaning changes."""

import inspect
import os
from types import SimpleNamespace
from typing import Any

import pytest
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
    with ray_patches.treat_oom_kill_as_actor_death():
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
