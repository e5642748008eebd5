"""Who was champion before whom: a model of promotions and rollbacks, by hypothesis."""

from hypothesis import given
from hypothesis import strategies as st

from hpsearch.tracking.model_registry import (
    append_champion,
    parse_history,
    previous_champion,
    reconcile_with_alias,
)

ALL = frozenset(range(1, 20))


def test_literals() -> None:
    assert parse_history("1 4 x 7") == (1, 4, 7)
    assert append_champion((1, 4), 4) == (1, 4)
    assert previous_champion((1, 4, 7), ALL) == 4
    assert previous_champion((1, 4, 7), frozenset({1, 7})) == 1, "version 4 has been deleted"
    assert previous_champion((1,), ALL) is None
    assert previous_champion((), ALL) is None


def test_a_line_that_lags_behind_the_alias_is_put_right() -> None:
    assert reconcile_with_alias((1, 4), 7) == (1, 4, 7), "promoted, but the line was not written"
    assert reconcile_with_alias((1, 4, 7), 4) == (1, 4), "rolled back, but the line was not written"
    assert reconcile_with_alias((1, 4), None) == (1, 4)


@given(st.lists(st.integers(1, 9), min_size=1, max_size=8))
def test_rolling_back_undoes_promotions_one_by_one(versions: list[int]) -> None:
    line, champions = (), []
    for version in versions:
        line = append_champion(line, version)
        if champions[-1:] != [version]:
            champions.append(version)
    while len(champions) > 1:
        champions.pop()
        assert previous_champion(line, ALL) == champions[-1]
        line = reconcile_with_alias(line, champions[-1])
        assert len(line) == len(champions)
    assert previous_champion(line, ALL) is None
