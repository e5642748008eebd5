"""Verdicts on claims, against intervals worked out by hand."""

import math
from typing import Any

import pytest

from hpsearch.config import Clean, TrialConfig
from hpsearch.reporting.claims import Claim, Decision, Measure, claims_table, decide
from hpsearch.tracking.run_table import Evaluation, Row


def row(name: str, seed: int, value: float | None, *, noisy: float = 0.0, **more: object) -> Row:
    """A finished run with this mAP on clean patches; a collapsed one if it is None."""
    config = TrialConfig(input=Clean(), evaluate_on="clean", seed=seed)
    both = {"clean": {"mAP": value}, "noisy": {"mAP": noisy}}
    settings = {
        "block": "b", "name": name, "data": "d", "fingerprint": "f", "split": {},
        "evaluation": Evaluation(), "config": config.model_dump(mode="json"), "digest": "",
        "seed": seed, "code": "c", "status": "completed" if value is not None else "collapsed",
        "collapse_value": 2.0, "curve": [], "trace": {},
        "scores": both if value is not None else {}, "cpu_seconds": 1.0, "finished": "", **more,
    }  # fmt: skip
    return Row.model_validate(settings)


def claim(measure: Measure = "mAP", **settings: object) -> Claim:
    given = {"name": "n", "text": "t", "place": "p", "published": "1 / 2", "high": "a", "low": "b"}
    return Claim(**{**given, "measure": measure, **settings})  # type: ignore[arg-type]


def decided(differences: list[float | None], **settings: Any) -> Decision:
    """The low arm has 0.5 throughout."""
    rows = [row("b", seed, 0.5) for seed in range(len(differences))]
    rows += [row("a", seed, d if d is None else 0.5 + d) for seed, d in enumerate(differences)]
    return decide(claim(**settings), rows)


def test_the_interval_is_that_of_student() -> None:
    """Mean 0.2, standard deviation 0.1, t(97.5 %, 2) = 4.302653 over the root of 3."""
    found = decided([0.1, 0.2, 0.3])
    assert found.difference == pytest.approx(0.2)
    assert found.half_width == pytest.approx(4.302653 * 0.1 / math.sqrt(3))


@pytest.mark.parametrize(
    ("differences", "settings", "verdict"),
    [
        ([0.20, 0.21, 0.19], {}, "confirmed"),
        ([0.20, 0.21, 0.19], {"size": 0.15}, "confirmed"),
        ([0.20, 0.21, 0.19], {"size": 0.20}, "undecided"),
        ([0.20, 0.21, 0.19], {"size": 0.30}, "refuted"),
        ([-0.20, -0.21, -0.19], {}, "refuted"),
        ([0.001, -0.002, 0.003], {"gain": 0.02}, "refuted"),
        ([0.001, -0.002, 0.03], {"gain": 0.02}, "undecided"),
        ([0.003, 0.004, 0.005], {"gain": 0.02}, "confirmed"),
        ([0.1, 0.2, 0.3], {}, "undecided"),
        ([0.20, 0.21], {}, "undecided"),
        ([], {}, "undecided"),
        ([0.0, 0.0, 0.0], {}, "refuted"),
        ([0.001, 0.002, 0.0], {"tolerance": 0.01}, "confirmed"),
        ([0.20, 0.21, 0.19], {"tolerance": 0.01}, "refuted"),
        ([0.001, 0.02, 0.0], {"tolerance": 0.01}, "undecided"),
        ([None, None, None], {}, "refuted"),
        ([None, None, None], {"measure": "failed"}, "confirmed"),
        ([0.1, 0.1, 0.1], {"measure": "failed"}, "undecided"),
        ([0.1, 0.1, 0.1], {"measure": "failed", "tolerance": 0.1}, "undecided"),
    ],
)
def test_verdicts(
    differences: list[float | None], settings: dict[str, object], verdict: str
) -> None:
    assert decided(differences, **settings).verdict == verdict


def test_a_gain_smaller_than_reported_reads_as_that() -> None:
    small, none = (
        decided([0.001, -0.002, 0.003], gain=0.02),
        decided([-0.2, -0.21, -0.19], gain=0.02),
    )
    assert "**refuted**: less than the reported +0.02 |" in claims_table([small])
    assert "**refuted** |" in claims_table([none])


def test_arms_of_a_pattern_are_paired_by_what_its_asterisks_stand_for() -> None:
    values = {"x · a · 1": 0.7, "x · b · 1": 0.5, "y · a · 1": 0.8, "y · b · 2": 0.0}
    rows = [row(name, 0, value) for name, value in values.items()]
    rows += [row("x · a · 2", 0, 0.4), row("x · b · 2", 0, 0.3), row("x.a.2", 0, 0.0)]
    found = decide(claim(high="* · a · *", low="* · b · *"), rows)
    assert sorted(zip(found.high, found.low, strict=True)) == [(0.4, 0.3), (0.7, 0.5)]


def test_seeds_are_paired_and_the_first_row_counts() -> None:
    rows = [row("a", 2, 0.9), row("a", 0, 0.7), row("a", 0, 0.1), row("b", 0, 0.4)]
    rows += [row("b", 2, 0.5), row("b", 5, 0.0), row("other", 2, 0.0)]
    found = decide(claim(), rows)
    assert (found.high, found.low) == ((0.7, 0.9), (0.4, 0.5))


def test_the_seeds_that_would_decide_are_the_first_that_do() -> None:
    found = decided([0.1, 0.2, 0.3])
    assert found.seeds_to_decide == 4, "t(3) = 3.182, half a width of 0.159"
    assert decided([0.2, 0.2, 0.2]).seeds_to_decide is None
    assert decided([0.1, -0.1, 0.0]).seeds_to_decide is None, "a mean of zero is never clear"


def test_measures_read_curve_trace_and_time() -> None:
    more = {
        "curve": [{"val/PSNR": 28.0, "val/MAE": 9.0}, {"val/PSNR": 30.0, "val/MAE": 7.0}, {}],
        "trace": {"loss": [1.0, 8.0, 2.0, None, 2.0, 4.0]},
        "cpu_seconds": math.e**2,
    }
    one = row("a", 0, 0.9, noisy=0.25, **more)
    values = {
        "PSNR": 30.0, "MAE": 7.0, "end loss": 2.0, "least loss": 0.5, "log time": 2.0,
        "failed": 0.0,
    }  # fmt: skip
    for measure, value in values.items():
        given = decide(claim(measure, low="a"), [one])  # type: ignore[arg-type]
        assert given.high == pytest.approx((value,)), measure
    assert decide(claim(low="a", on="noisy"), [one]).high == (0.25,)


def test_losses_without_a_margin_have_a_scale_of_one() -> None:
    """A dynamic margin has the collapse value 0."""
    one = row("a", 0, 0.9, collapse_value=0.0, trace={"loss": [0.5, 0.25]})
    assert decide(claim("least loss", low="a"), [one]).high == (0.25,)


def test_the_table_counts_verdicts_and_states_the_scale() -> None:
    table = claims_table([decided([0.2, 0.21, 0.19]), decided([]), decided([None, 0.1, 0.2])])
    assert "1 confirmed, 0 refuted, 2 undecided of 3." in table
    first, second, third = table.splitlines()[4:]
    assert "0.700 ± 0.010 against 0.500 ± 0.000 (width 1, " in first
    assert "+0.200 ± 0.025 | **confirmed** |" in first
    assert "not run" in second
    assert "1 of 6 failed" in third
