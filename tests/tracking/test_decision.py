"""The truth table of promotion, and the chance of a false champion over many looks."""

import math
from itertools import pairwise

import numpy as np
import pytest
from scipy import stats

from hpsearch.evaluation import Scores
from hpsearch.evaluation.bootstrap import Comparison
from hpsearch.evaluation.scores import (
    Dispersion,
    MatchingScores,
    RetrievalScores,
    VerificationScores,
)
from hpsearch.tracking.decision import (
    Evidence,
    confidence_of_look,
    decide,
    describe_look,
    format_looks,
    identify_test_set,
    parse_looks,
    with_look,
)

SPREAD = Dispersion(relative=0.5, resultant=0.1, contrast=0.5)


def scores(value: float, *, sequences: int = 4, spread: Dispersion = SPREAD) -> Scores:
    """Scores that are all the same number."""
    ap = np.full((sequences, 3, 5), value)
    queries = np.full((3, 7, sequences), value)
    return Scores(
        names=tuple(f"v_{i}" for i in range(sequences)),
        points=(9,) * sequences,
        verified=VerificationScores(
            balanced_auc=np.full((3, 2), value),
            imbalanced_ap=np.full((3, 2), value),
            sequence_ap=np.full((3, 2, sequences), value),
            ap_without=np.full((3, 2, sequences), value),
            group_ap=np.full((3, 2, 2), value),
            histogram=np.ones((3, 3, sequences, 2), int),
        ),
        matched=MatchingScores(ap=ap, success_rate=ap),
        retrieved=RetrievalScores(
            ap=queries, tie_neutral_ap=queries[:, 0], sequence=np.arange(sequences)
        ),
        dispersion=spread,
    )


def found(low: float, high: float) -> Comparison:
    middle = (low + high) / 2
    return Comparison(
        difference=middle, low=low, high=high, half_width=high - middle, share_won=0.5
    )


BETTER, WORSE, UNCLEAR = found(0.01, 0.03), found(-0.03, -0.01), found(-0.01, 0.03)
TOUCHING, UNKNOWN = found(0.0, 0.03), found(math.nan, math.nan)
EQUAL = Comparison(difference=0.01, low=None, high=None, share_won=1.0)
WIDE = found(-0.2, 0.24)
OWN, LESS, MORE = scores(0.8), scores(0.7), scores(0.9)
BASELINES = {"pixels": scores(0.5), "RootSIFT": LESS}
HIGHER = {"pixels": scores(0.5), "RootSIFT": MORE}
COLLAPSED = scores(0.9, spread=Dispersion(relative=0.0, resultant=1.0, contrast=0.0))


def evidence(comparison: Comparison | None, **given: object) -> Evidence:
    """Evidence with a champion at 0.79 and baselines below, unless given otherwise."""
    facts: dict[str, object] = {
        "scores": OWN, "baselines": BASELINES, "has_champion": True,
        "champion_scores": scores(0.79), "comparison": comparison, "look": 1, **given,
    }  # fmt: skip
    return Evidence(**facts)  # type: ignore[arg-type]


FIRST = {"has_champion": False, "champion_scores": None}
OTHER = {"champion_scores": None}
ONE = {"scores": scores(0.8, sequences=1)}


@pytest.mark.parametrize(
    ("comparison", "given", "alias", "words"),
    [
        (None, FIRST, "champion", "above those of all baselines"),
        (None, {**FIRST, "baselines": {}}, "champion", "there was no champion"),
        (None, {**FIRST, "retrained": False}, "champion", "no champion"),
        (None, {**FIRST, "baselines": HIGHER}, None, "not above that of RootSIFT (0.9000)"),
        (None, {**FIRST, "baselines": {"equal": OWN}}, None, "not above that of equal"),
        (None, {**FIRST, "baselines": {"constant": COLLAPSED}}, "champion", "no champion"),
        (None, {**FIRST, "scores": COLLAPSED}, None, "collapsed"),
        (None, {**FIRST, **ONE}, "challenger", "one test sequence decides nothing"),
        (None, OTHER, "challenger", "other patches"),
        (BETTER, {}, "champion", ": better"),
        (BETTER, {"scores": COLLAPSED}, None, "collapsed"),
        (BETTER, OTHER, "challenger", "other patches"),
        (BETTER, {"retrained": False}, "challenger", "only once"),
        (BETTER, {"baselines": HIGHER}, None, ": better, but its mean mAP on test, 0.8000"),
        (BETTER, ONE, "challenger", "one test sequence has no interval"),
        (BETTER, {"look": 3}, "champion", "99.583 % interval"),
        (BETTER, {"look": None, "retrained": False}, "challenger", "95 % interval"),
        (UNCLEAR, {}, "challenger", "no clear difference, which would be one above 0.0200"),
        (UNCLEAR, {"baselines": HIGHER}, None, "not above that of RootSIFT"),
        (UNCLEAR, {"challenger": 7, "challenger_scores": LESS}, "challenger", "no clear"),
        (UNCLEAR, {"challenger": 7, "challenger_scores": OWN}, None, "version 7, stays"),
        (UNCLEAR, {"challenger": 7, "challenger_scores": MORE}, None, "mean mAP of 0.9000"),
        (UNCLEAR, {"challenger": 7}, None, "version 7, was evaluated on other patches"),
        (WIDE, {}, "challenger", "so few sequences decide nothing here"),
        (TOUCHING, {}, "challenger", "no clear difference"),
        (WORSE, {}, "challenger", ": worse"),
        (WORSE, {"retrained": False}, "challenger", ": worse"),
        (UNKNOWN, {}, "challenger", "not a number"),
        (EQUAL, {}, "challenger", "without an interval"),
        (BETTER, {"gate_failure": "us_per_patch is 30"}, None, ": better, but us_per_patch is 30"),
        (None, {**FIRST, "gate_failure": "us_per_patch is 30"}, None, "but us_per_patch is 30"),
    ],
)
def test_truth_table(
    comparison: Comparison | None, given: dict[str, object], alias: str | None, words: str
) -> None:
    rested = evidence(comparison, **given)
    decision = decide(rested)
    assert (decision.alias, decision.forced) == (alias, False)
    assert words in decision.reason
    forced = decide(rested, force=True)
    assert forced.promote is not rested.scores.collapsed, "no force helps the collapsed"
    assert forced.forced is (forced.promote and not decision.promote)
    assert ("forced" in forced.reason) is forced.forced


def test_all_looks_together_spend_one_in_forty() -> None:
    spent = [(1 - confidence_of_look(look)) / 2 for look in range(1, 10_001)]
    assert spent[:3] == pytest.approx([0.0125, 0.0125 / 3, 0.0125 / 6])
    assert sum(spent) == pytest.approx(0.025 * 10_000 / 10_001)
    assert all(one > other for one, other in pairwise(spent))


@pytest.mark.parametrize("n", [4, 20])
@pytest.mark.parametrize("kind", ["normal", "skewed"])
def test_ten_equal_challengers_in_a_row_crown_a_false_champion_in_one_case_of_forty(
    n: int, kind: str
) -> None:
    """Ten looks at 95 % each crown one in 0.14 of cases."""
    rng, cases = np.random.default_rng(n), 4000
    draw = rng.normal if kind == "normal" else rng.lognormal
    champion = draw(0, 0.5, (cases, 1, n))
    difference = draw(0, 0.5, (cases, 10, n)) - champion
    student = difference.mean(axis=2) / stats.sem(difference, axis=2)
    limits = [stats.t.ppf((1 + confidence_of_look(k)) / 2, n - 1) for k in range(1, 11)]
    assert (student > limits).any(axis=1).mean() <= 0.025
    assert (student > stats.t.ppf(0.975, n - 1)).any(axis=1).mean() > 0.08


def test_the_same_network_again_is_the_same_look() -> None:
    looks = parse_looks("1:ab 2:cd")
    assert looks == {"ab": 1, "cd": 2}
    assert with_look(looks, "ab") == looks
    assert with_look(looks, "ef") == {**looks, "ef": 3}
    assert parse_looks(format_looks(with_look(looks, "ef"))) == {**looks, "ef": 3}
    assert parse_looks("") == {}
    many: dict[str, int] = {}
    for number in range(500):
        many = parse_looks(format_looks(with_look(many, f"{number:016x}")))
    assert max(many.values()) == 500, "the number goes up although old looks drop out"
    assert "look 500 at champion version 3" in describe_look(500, 3)


def test_other_patches_or_another_input_are_another_test_set() -> None:
    terms, names = {"patches.fingerprint": "f", "patches.given": "noisy"}, ("v_a", "v_b")
    own = identify_test_set(terms, names)
    assert own == identify_test_set(dict(reversed(terms.items())), list(names))
    assert own != identify_test_set({**terms, "patches.given": "clean"}, names)
    assert own != identify_test_set(terms, names[:1])
