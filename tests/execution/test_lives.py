"""How often a trial's worker may die."""

from hpsearch.execution.retry_policy import MOST_DEATHS, Lives


def test_a_trial_may_die_any_number_of_times_as_long_as_it_comes_further() -> None:
    lives = Lives()
    lives.hear([{"event": "report", "trial": "000", "seen": 500}])
    for report in range(6, 20):
        lives.died(f"before {report}", "000", "The actor died")
        assert not lives.hopeless(f"before {report}")
        lives.progress("000", 100 * report)
    lives.progress("000", 700)  # told again after a crash
    ids = [f"at last {i}" for i in range(MOST_DEATHS + 1)]
    for trial in ids:
        lives.died(trial, "000", "The actor died")
    assert [lives.hopeless(trial) for trial in ids] == [False] * MOST_DEATHS + [True]
    assert lives.reason(ids[0]).startswith("its worker process died")
    assert lives.reason(ids[-1]).startswith("death 6 without getting further: its worker")


def test_a_trial_that_is_given_up_does_not_go_on() -> None:
    lives = Lives()
    lives.give_up("x", "it raised")
    lives.died("x", "000", "The actor died")  # as Tune then says
    assert lives.hopeless("x")
    assert lives.reason("x") == "it raised"


def test_leaving_a_machine_after_notice_is_no_death() -> None:
    lives = Lives()
    for i in range(3 * MOST_DEATHS):
        lives.died(f"{i}", "000", "ray::x\nhpsearch.running.checkpointed.Preempted: it was taken")
        assert not lives.hopeless(f"{i}")


def test_a_machine_without_memory_is_known() -> None:
    lives = Lives()
    lives.died("x", "000", "due to the node running low on memory")
    assert lives.crowded("x")
    assert "--concurrent" in lives.reason("x")
