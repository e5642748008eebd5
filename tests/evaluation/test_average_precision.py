import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hpsearch.errors import UserError
from hpsearch.evaluation.average_precision import average_precision, roc_auc

LISTS = st.lists(st.tuples(st.integers(0, 4), st.booleans()), min_size=1, max_size=30)


def labels(*values):
    return np.array(values, bool)


@pytest.mark.parametrize(
    ("order", "expected"), [((1, 0, 0), 1.0), ((0, 1, 0), 0.25), ((1, 0, 1), 0.791667)]
)
def test_known_areas(order, expected):
    assert average_precision(np.arange(3), labels(*order)) == pytest.approx(expected, abs=1e-6)


def test_ties_keep_the_order_of_the_list():
    same = np.zeros(2)
    assert average_precision(same, labels(1, 0)) == 1.0
    assert average_precision(same, labels(0, 1)) == pytest.approx(0.25)
    assert roc_auc(same, labels(1, 0)) == 1.0
    assert roc_auc(same, labels(0, 1)) == 0.0


def test_missing_positives_cap_the_recall():
    assert average_precision(np.arange(2), labels(1, 1), n_positive=4) == pytest.approx(0.5)
    assert average_precision(np.arange(2), labels(0, 0), n_positive=4) == 0.0


@given(LISTS, st.integers(0, 5))
def test_average_precision_equals_the_oracle(oracle, entries, missing):
    distance, matches = (list(part) for part in zip(*entries, strict=True))
    total = max(sum(matches) + missing, 1)
    expected = oracle.precision_recall_area(distance, matches, total)
    found = average_precision(np.array(distance), np.array(matches), n_positive=total)
    assert found == pytest.approx(expected, abs=1e-12)


@given(LISTS)
def test_roc_auc_equals_the_oracle(oracle, entries):
    entries = [*entries, (2, True), (2, False)]
    distance, matches = (list(part) for part in zip(*entries, strict=True))
    found = roc_auc(np.array(distance), np.array(matches))
    assert found == pytest.approx(oracle.roc_area(distance, matches), abs=1e-12)


def test_bad_lists_are_refused():
    with pytest.raises(UserError, match="NaN"):
        average_precision(np.array([0.0, np.nan]), labels(1, 0))
    with pytest.raises(UserError, match="n_positive is 1"):
        average_precision(np.arange(2), labels(1, 1), n_positive=1)
    with pytest.raises(UserError, match="n_positive is 0"):
        average_precision(np.arange(2), labels(0, 0))
    with pytest.raises(UserError, match="at least one match"):
        roc_auc(np.arange(2), labels(1, 1))
