"""Patience is counted in the order in which trials ended, by the study."""

from datetime import datetime, timedelta

import pytest
from optuna.trial import FrozenTrial, TrialState, create_trial

from hpsearch.config import TrialConfig
from hpsearch.search.search import Search
from hpsearch.search.stopping import FINISH_ORDER_ATTR, study_is_out_of_patience


def ended(order: int, value: float, hours: float) -> FrozenTrial:
    """A trial that was the so manyth to end, when the clock showed so many hours."""
    trial = create_trial(
        state=TrialState.COMPLETE, value=value, user_attrs={FINISH_ORDER_ATTR: order}
    )
    trial.datetime_complete = datetime(2026, 1, 1) + timedelta(hours=hours)
    return trial


@pytest.mark.parametrize(("values", "over"), [((0.5, 0.4, 0.3), True), ((0.3, 0.4, 0.5), False)])
def test_a_clock_that_is_set_back_does_not_turn_the_order_round(
    values: tuple[float, ...], over: bool
) -> None:
    config = TrialConfig()
    search = Search(
        suggest=lambda trial: config,
        baseline=config,
        patience=2,
        trials=9,
        budget=100,
        report_every=10,
    )
    trials = [ended(order, value, -2.0 * order) for order, value in enumerate(values, 1)]
    assert study_is_out_of_patience(trials, search) == over
