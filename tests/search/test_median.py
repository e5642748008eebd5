"""The median rule decides as its definition does, read out slowly."""

import time

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from hpsearch.search.pruners import PEERS, Median

GRACE = 100


def slow(reports: list[tuple[int, int, float]]) -> list[bool]:
    """Every report against the means of all others that have come as far."""
    said: dict[int, list[tuple[int, float]]] = {}
    found = []
    for number, seen, value in reports:
        own = said.setdefault(number, [])
        own.append((seen, value))
        before = [
            [v for at, v in other if at <= seen]
            for trial, other in said.items()
            if trial != number and other[-1][0] >= seen
        ]
        means = [np.mean(values) for values in before if values]
        enough = seen >= GRACE and len(means) >= PEERS
        found.append(enough and bool(max(v for _, v in own) < np.median(means)))
    return found


@st.composite
def searches(draw: st.DrawFn) -> list[tuple[int, int, float]]:
    """Reports of trials that overshoot by their batch, in any order among each other.

    Values are sixteenths, so that means do not depend on the order of a sum.
    """
    batches = draw(st.lists(st.sampled_from([30, 50, 70, 130]), min_size=4, max_size=12))
    latest = [0] * len(batches)
    reports = []
    for number in draw(st.lists(st.integers(0, len(batches) - 1), max_size=60)):
        steps = 50 // batches[number] + 1
        latest[number] += steps * batches[number]
        reports.append((number, latest[number], draw(st.integers(0, 16)) / 16))
    return reports


@given(searches())
@settings(max_examples=150, deadline=None)
def test_it_decides_as_its_definition(reports: list[tuple[int, int, float]]) -> None:
    median = Median(GRACE)
    assert [median.stops(*report) for report in reports] == slow(reports)


def test_a_report_costs_the_same_after_many_trials() -> None:
    median, costs, chance = Median(GRACE), [], np.random.default_rng(0)
    for _block in range(2):
        began = time.process_time()
        for number in range(len(costs) * 600, len(costs) * 600 + 600):
            for seen in range(100, 1300, 100):
                median.stops(number, seen, float(chance.random()))
        costs.append(time.process_time() - began)
    assert costs[1] < 3 * costs[0], f"{costs} seconds for the first and the second 600 trials"
