"""How long a trial may say nothing before it is taken to hang."""

from hypothesis import given
from hypothesis import strategies as st

from hpsearch.execution.hang_detector import BLINK, FIRST, LEAST, TIMES, Silence

MINUTES = 60.0


def wait(silence: Silence, seconds: float) -> dict[str, float]:
    """The driver looks every five seconds."""
    hanging: dict[str, float] = {}
    for _ in range(round(seconds / 5)):
        hanging |= silence.passed(5)
    return hanging


def test_a_trial_may_be_silent_ten_times_as_long_as_any_that_then_spoke() -> None:
    silence = Silence()
    silence.began("a")
    silence.began("b")
    assert not wait(silence, 3 * MINUTES)
    silence.spoke("a")
    assert silence.allowed("a") == LEAST == TIMES * 3 * MINUTES
    assert not wait(silence, 10 * MINUTES)
    silence.spoke("a")
    assert silence.allowed("a") == TIMES * 10 * MINUTES
    assert not wait(silence, 100 * MINUTES)
    assert list(wait(silence, MINUTES)) == ["a"], "and not b, which may train a denoiser first"
    silence.ended("a")
    assert not wait(silence, FIRST - 115 * MINUTES)
    assert list(wait(silence, 2 * MINUTES)) == ["b"]


def test_a_trial_that_is_slower_than_all_others_is_judged_by_its_own_pace() -> None:
    silence = Silence()
    for trial, minutes in (("quick", 1), ("slow", 30)):
        silence.began(trial)
        wait(silence, minutes * MINUTES)
        silence.spoke(trial)
        silence.ended("quick")
    assert silence.allowed("slow") == TIMES * 30 * MINUTES


@given(steps=st.lists(st.tuples(st.sampled_from("abc"), st.floats(1, BLINK)), max_size=60))
def test_nobody_hangs_whose_reports_come_within_half_an_hour(
    steps: list[tuple[str, float]],
) -> None:
    silence = Silence()
    for trial in "abc":
        silence.began(trial)
    for trial, seconds in steps:
        assert not silence.passed(seconds)
        silence.spoke(trial)


def test_what_earlier_sessions_took_counts() -> None:
    silence = Silence()
    reports = [("a", 1_000.0), ("b", 50.0), ("a", 1_900.0), ("a", 20.0)]  # begun again at last
    silence.learn({"event": "report", "trial": t, "seconds": s} for t, s in reports)
    assert silence.longest == 1_000
    silence.began("c")
    silence.spoke("c")
    assert silence.allowed("c") == TIMES * 1_000 > LEAST


def test_a_driver_that_slept_has_not_been_listening() -> None:
    silence = Silence(hang_after=60)
    silence.began("a")
    assert not silence.passed(8 * 60 * MINUTES), "its reports may lie in the queue"
    assert not wait(silence, 60 - BLINK)
    assert wait(silence, 5) == {"a": 65}


def test_what_the_user_says_counts_alone() -> None:
    silence = Silence(hang_after=20, longest=1_000)
    silence.began("a")
    assert not wait(silence, 20)
    assert wait(silence, 5) == {"a": 25}
