"""How often a trial's worker may die."""

from hpsearch.execution.retry_policy import MAX_DEATHS_WITHOUT_PROGRESS, RetryPolicy


def test_a_trial_may_die_any_number_of_times_as_long_as_it_comes_further() -> None:
    retry_policy = RetryPolicy()
    retry_policy.load_history([{"event": "report", "trial": "000", "seen": 500}])
    for report in range(6, 20):
        retry_policy.record_worker_death(f"before {report}", "000", "The actor died")
        assert not retry_policy.should_not_retry(f"before {report}")
        retry_policy.record_progress("000", 100 * report)
    retry_policy.record_progress("000", 700)  # told again after a crash
    ids = [f"at last {i}" for i in range(MAX_DEATHS_WITHOUT_PROGRESS + 1)]
    for trial in ids:
        retry_policy.record_worker_death(trial, "000", "The actor died")
    assert [retry_policy.should_not_retry(trial) for trial in ids] == [
        False
    ] * MAX_DEATHS_WITHOUT_PROGRESS + [True]
    assert retry_policy.failure_reason(ids[0]).startswith("its worker process died")
    assert retry_policy.failure_reason(ids[-1]).startswith(
        "death 6 without getting further: its worker"
    )


def test_a_trial_that_is_given_up_does_not_go_on() -> None:
    retry_policy = RetryPolicy()
    retry_policy.mark_failed("x", "it raised")
    retry_policy.record_worker_death("x", "000", "The actor died")  # as Tune then says
    assert retry_policy.should_not_retry("x")
    assert retry_policy.failure_reason("x") == "it raised"


def test_leaving_a_machine_after_notice_is_no_death() -> None:
    retry_policy = RetryPolicy()
    for i in range(3 * MAX_DEATHS_WITHOUT_PROGRESS):
        retry_policy.record_worker_death(
            f"{i}", "000", "ray::x\nhpsearch.execution.shutdown.TrialInterrupted: it was taken"
        )
        assert not retry_policy.should_not_retry(f"{i}")


def test_only_a_death_without_a_reason_is_asked_about() -> None:
    retry_policy = RetryPolicy()
    for error in (
        "due to the node running low on memory", "The actor died: its node has died",
        "ray::x\nOSError: stale", "ray::x\nhpsearch.execution.shutdown.TrialInterrupted: saved",
    ):  # fmt: skip
        retry_policy.record_worker_death(error, "000", error, lambda: 1 / 0 > 0)
    retry_policy.mark_failed("hung", "it hung")
    retry_policy.record_worker_death("hung", "001", "The actor died", lambda: 1 / 0 > 0)
    retry_policy.record_worker_death("x", "002", "The actor died", lambda: True)
    assert retry_policy.out_of_node_memory("x")
    assert retry_policy.failure_reason("x").startswith("memory ran out, so the system killed")
    retry_policy.record_worker_death("y", "003", "The actor died", lambda: False)
    assert not retry_policy.out_of_node_memory("y")


def test_a_machine_without_memory_is_known() -> None:
    retry_policy = RetryPolicy()
    retry_policy.record_worker_death("x", "000", "due to the node running low on memory")
    assert retry_policy.out_of_node_memory("x")
    assert "--max-concurrent-trials" in retry_policy.failure_reason("x")
