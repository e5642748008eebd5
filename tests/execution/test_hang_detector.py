"""How long a trial may say nothing before it is taken to hang."""

from hypothesis import given
from hypothesis import strategies as st

from hpsearch.execution.hang_detector import (
    FIRST_REPORT_TIMEOUT_S,
    MAX_TICK_S,
    MIN_TIMEOUT_S,
    TIMEOUT_FACTOR,
    ReportTimeouts,
)

MINUTES = 60.0


def wait(silence: ReportTimeouts, seconds: float) -> dict[str, float]:
    """The driver looks every five seconds."""
    hanging: dict[str, float] = {}
    for _ in range(round(seconds / 5)):
        hanging |= silence.advance(5)
    return hanging


def test_a_trial_times_out_after_ten_times_the_longest_gap() -> None:
    silence = ReportTimeouts()
    silence.start("a")
    silence.start("b")
    assert not wait(silence, 3 * MINUTES)
    silence.record_report("a")
    assert silence.timeout("a") == MIN_TIMEOUT_S == TIMEOUT_FACTOR * 3 * MINUTES
    assert not wait(silence, 10 * MINUTES)
    silence.record_report("a")
    assert silence.timeout("a") == TIMEOUT_FACTOR * 10 * MINUTES
    assert not wait(silence, 100 * MINUTES)
    assert list(wait(silence, MINUTES)) == ["a"], "and not b, which may train a denoiser first"
    silence.finish("a")
    assert not wait(silence, FIRST_REPORT_TIMEOUT_S - 115 * MINUTES)
    assert list(wait(silence, 2 * MINUTES)) == ["b"]


def test_a_trial_that_is_slower_than_all_others_is_compared_by_its_own_pace() -> None:
    silence = ReportTimeouts()
    for trial, minutes in (("quick", 1), ("slow", 30)):
        silence.start(trial)
        wait(silence, minutes * MINUTES)
        silence.record_report(trial)
        silence.finish("quick")
    assert silence.timeout("slow") == TIMEOUT_FACTOR * 30 * MINUTES


@given(steps=st.lists(st.tuples(st.sampled_from("abc"), st.floats(1, MAX_TICK_S)), max_size=60))
def test_nobody_hangs_whose_reports_come_within_half_an_hour(
    steps: list[tuple[str, float]],
) -> None:
    silence = ReportTimeouts()
    for trial in "abc":
        silence.start(trial)
    for trial, seconds in steps:
        assert not silence.advance(seconds)
        silence.record_report(trial)


def test_what_earlier_sessions_took_counts() -> None:
    silence = ReportTimeouts()
    reports = [("a", 1_000.0), ("b", 50.0), ("a", 1_900.0), ("a", 20.0)]  # begun again at last
    silence.load_history({"event": "report", "trial": t, "seconds": s} for t, s in reports)
    assert silence.longest_gap == 1_000
    silence.start("c")
    silence.record_report("c")
    assert silence.timeout("c") == TIMEOUT_FACTOR * 1_000 > MIN_TIMEOUT_S


def test_a_driver_that_slept_has_not_been_listening() -> None:
    silence = ReportTimeouts(report_timeout=60)
    silence.start("a")
    assert not silence.advance(8 * 60 * MINUTES), "its reports may lie in the queue"
    assert not wait(silence, 60 - MAX_TICK_S)
    assert wait(silence, 5) == {"a": 65}


def test_what_the_user_says_counts_alone() -> None:
    silence = ReportTimeouts(report_timeout=20, longest_gap=1_000)
    silence.start("a")
    assert not wait(silence, 20)
    assert wait(silence, 5) == {"a": 25}
