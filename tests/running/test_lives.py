"""How often a trial's worker may die."""

from ray.tune.experiment import Trial

from hpsearch.running.lives import MOST_DEATHS, Lives


def trial() -> Trial:
    return Trial(
        "train", stub=True, trial_id="x", config={"id": "000"}, max_failures=MOST_DEATHS
    )  # fmt: skip


def dies(one: Trial) -> bool:
    """Tune counts a death; whether the trial goes on."""
    one.run_metadata.num_failures += 1
    return one.should_recover()


def test_a_trial_may_die_any_number_of_times_as_long_as_it_comes_further() -> None:
    lives, one = Lives(), trial()
    lives.hear([{"event": "report", "trial": "000", "seen": 500}])
    for report in range(6, 20):
        assert dies(one)
        lives.progress(one, 100 * report)
    lives.progress(one, 700)  # told again after a crash
    assert [dies(one) for _ in range(MOST_DEATHS + 1)] == [True] * MOST_DEATHS + [False]


def test_a_trial_that_is_given_up_does_not_go_on() -> None:
    lives, one = Lives(), trial()
    lives.progress(one, 100)
    lives.give_up(one, "it raised")
    assert not dies(one)
    assert lives.reason("x") == "it raised"
