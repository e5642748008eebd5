"""Claims about training, decided from finished runs by paired intervals over seeds.

A claim compares one arm (a configuration trained with several seeds) with another in one measure.
Seeds that both arms have are paired, and the t-interval of the mean difference decides:

- a difference is *confirmed* if the interval lies above the claim's size (zero unless the claim
  names one), and *refuted* if none of it does, or if all of it is below the gain that the report
  gives;
- "about equal" is *confirmed* if the interval lies within the claim's tolerance, and *refuted* if
  it lies outside;
- otherwise, or with fewer than three pairs, the claim is *undecided*; so is a claim about failures
  where no run of either arm failed.
"""

import math
import re
import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from hpsearch.evaluation.bootstrap import student_quantile
from hpsearch.tracking.run_table import Row

MIN_PAIRS = 3
"""Pairs of seeds that a verdict needs."""
CONFIDENCE = 0.95
LAST_WINDOWS = 4
"""Windows of the trace whose mean is the loss at the end."""

Measure = Literal[
    "mAP", "verification", "matching", "retrieval", "failed", "end loss", "least loss", "PSNR",
    "MAE", "log time",
]  # fmt: skip
"""``mAP`` and the three tasks: on the test part, with the raw input that the run is evaluated on; 0
of a run that collapsed or diverged. ``failed``: 1 if it did, else 0. ``end loss`` and ``least
loss``: training loss as a multiple of its collapse value. ``PSNR`` (dB) and ``MAE`` (gray levels):
the denoiser's own on validation patches. ``log time``: natural logarithm of the processor time."""

Verdict = Literal["confirmed", "refuted", "undecided"]


@dataclass(frozen=True)
class Claim:
    """One statement of a report, as a comparison of two arms.

    Example:
        >>> claim = Claim("mining", "Hard negatives help", "R1 table 2", "0.913 / 0.857",
        ...     "hard", "random", measure="verification")
        >>> claim.size
        0.0
    """

    name: str
    """Short name, unique among all claims; letters, digits and hyphens."""
    text: str
    """The claim in one sentence."""
    place: str
    """Report, and its table, figure or section."""
    published: str
    """Numbers that the report gives, or ``none``."""
    high: str
    """Arm with the larger value. A ``*`` stands for any text: arms of both patterns are paired
    where these texts are equal, as seeds are."""
    low: str
    """Arm with the smaller value."""
    measure: Measure = "mAP"
    size: float = 0.0
    """Difference that the claim exceeds."""
    gain: float | None = None
    """Difference that the report gives in this measure; None if it gives none."""
    tolerance: float | None = None
    """Largest difference, either way, that counts as about equal; None for a difference."""
    on: Literal["clean", "noisy"] | None = None
    """Raw input of the test patches; None means the one that each run is evaluated on."""


@dataclass(frozen=True, kw_only=True)
class Decision:
    """A claim, the measured values of both arms, and the verdict."""

    claim: Claim
    high: tuple[float, ...]
    """Values of the arm with the larger value, by seed, in the order of the shared seeds."""
    low: tuple[float, ...]
    failed: int
    """Runs of both arms that collapsed or diverged."""
    scale: str
    """Width and budget of the runs; empty where there are none."""
    difference: float | None
    half_width: float | None
    """Half the width of the interval; None with fewer than two pairs."""
    verdict: Verdict

    @property
    def below_gain(self) -> bool:
        """True if the claim is refuted for the size that the report gives, not for its sign."""
        if self.verdict != "refuted" or self.difference is None or self.half_width is None:
            return False
        return self.claim.tolerance is None and self.difference + self.half_width > self.claim.size

    @property
    def seeds_to_decide(self) -> int | None:
        """Seeds that would decide the claim if difference and spread stay as they are.

        None if it is decided, if there are too few pairs, or if over 1000 are needed.
        """
        if self.verdict != "undecided" or self.half_width is None or self.difference is None:
            return None
        spread = statistics.stdev(h - low for h, low in zip(self.high, self.low, strict=True))
        for pairs in range(MIN_PAIRS, 1001):
            half = student_quantile(CONFIDENCE, pairs - 1) * spread / math.sqrt(pairs)
            if _verdict(self.claim, self.difference, half) != "undecided":
                return pairs
        return None


def cell_of(pattern: str, name: str) -> tuple[str, ...] | None:
    """Texts that the asterisks of a pattern stand for in an arm's name; None if it is another arm.

    Example:
        >>> cell_of("* · SGD · *", "squared · SGD · 1e-03"), cell_of("SGD", "Adam")
        (('squared', '1e-03'), None)
    """
    found = re.fullmatch(re.escape(pattern).replace(r"\*", "(.*)"), name)
    return None if found is None else found.groups()


def decide(claim: Claim, rows: Iterable[Row]) -> Decision:
    """Decide a claim from the rows of its two arms; the first row of an arm and seed counts."""
    arms: dict[str, dict[tuple, Row]] = {claim.high: {}, claim.low: {}}
    for row in rows:
        for pattern, found in arms.items():
            if (cell := cell_of(pattern, row.name)) is not None:
                found.setdefault((cell, row.seed), row)
    keys = sorted(arms[claim.high].keys() & arms[claim.low].keys())
    measured_pairs = [
        tuple(measured(arms[arm][key], claim.measure, claim.on) for arm in (claim.high, claim.low))
        for key in keys
    ]
    pairs = [(h, low) for h, low in measured_pairs if h is not None and low is not None]
    used = [arms[arm][key] for arm in (claim.high, claim.low) for key in keys]
    difference, half = _paired_interval([h - low for h, low in pairs])
    decided = len(pairs) >= MIN_PAIRS and difference is not None and half is not None
    if claim.measure == "failed" and not any(h or low for h, low in pairs):
        decided = False
    return Decision(
        claim=claim,
        high=tuple(h for h, _ in pairs),
        low=tuple(low for _, low in pairs),
        failed=sum(row.status != "completed" for row in used),
        scale=_scale(used),
        difference=difference,
        half_width=half,
        verdict=_verdict(claim, difference, half) if decided else "undecided",  # type: ignore[arg-type]
    )


def claims_table(decisions: Sequence[Decision]) -> str:
    """Markdown table of all claims, with a line that counts the verdicts."""
    counts = {
        word: sum(one.verdict == word for one in decisions)
        for word in ("confirmed", "refuted", "undecided")
    }
    head = ("claim", "where", "published", "measure", "ours", "difference", "verdict")
    lines = [
        ", ".join(f"{count} {word}" for word, count in counts.items()) + f" of {len(decisions)}.",
        "",
        "| " + " | ".join(head) + " |",
        "|" + "---|" * len(head),
    ]
    return "\n".join([*lines, *(_table_row(one) for one in decisions)]) + "\n"


def _table_row(found: Decision) -> str:
    claim = found.claim
    ours = " against ".join(_spread(values) for values in (found.high, found.low))
    if found.failed:
        ours += f"; {found.failed} of {len(found.high) + len(found.low)} failed"
    cells = (
        f"**{claim.name}** {claim.text}",
        claim.place,
        claim.published,
        claim.measure + (f" on {claim.on}" if claim.on else ""),
        f"{ours} ({found.scale})" if found.scale else "not run",
        _difference(found),
        _verdict_cell(found),
    )
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def _difference(found: Decision) -> str:
    if found.difference is None:
        return "–"
    half = "" if found.half_width is None else f" ± {found.half_width:.3f}"
    claim = found.claim
    asked = (
        f"; within ± {claim.tolerance:g}" if claim.tolerance is not None
        else f"; above {claim.size:g}" if claim.size else ""
    )  # fmt: skip
    return f"{found.difference:+.3f}{half}{asked}"


def _verdict_cell(found: Decision) -> str:
    if found.below_gain:
        return f"**refuted**: less than the reported {found.claim.gain:+g}"
    if found.verdict != "undecided":
        return f"**{found.verdict}**"
    if len(found.high) < MIN_PAIRS:
        return f"undecided, {len(found.high)} of {MIN_PAIRS} seeds"
    if found.claim.measure == "failed" and not found.failed:
        return "undecided: no run failed"
    count = found.seeds_to_decide or "over 1000"
    unit = "pairs of cells" if "*" in found.claim.high else "seeds"
    return f"undecided; {count} {unit} would decide"


def _spread(values: Sequence[float]) -> str:
    if not values:
        return "–"
    mean = f"{statistics.fmean(values):.3f}"
    return f"{mean} ± {statistics.stdev(values):.3f}" if len(values) > 1 else mean


def _scale(rows: Sequence[Row]) -> str:
    sizes = sorted({_size(row.config) for row in rows})
    return "; ".join(sizes)


def _size(config: Mapping) -> str:
    return f"width {config['descriptor'].get('width', 1):g}, {config['patches']:,} patches"


def _paired_interval(differences: Sequence[float]) -> tuple[float | None, float | None]:
    """Mean, and half the width of its t-interval; None where there are too few."""
    if not differences:
        return None, None
    mean, count = statistics.fmean(differences), len(differences)
    if count < 2:
        return mean, None
    error = statistics.stdev(differences) / math.sqrt(count)
    return mean, student_quantile(CONFIDENCE, count - 1) * error


def _verdict(claim: Claim, difference: float, half: float) -> Verdict:
    low, high = difference - half, difference + half
    if claim.tolerance is not None:
        inside = -claim.tolerance <= low and high <= claim.tolerance
        outside = low > claim.tolerance or high < -claim.tolerance
        return "confirmed" if inside else "refuted" if outside else "undecided"
    if low > claim.size:
        return "confirmed"
    return "refuted" if high <= claim.size or _below_gain(claim, high) else "undecided"


def _below_gain(claim: Claim, high: float) -> bool:
    return claim.gain is not None and high < claim.gain


def measured(
    row: Row, measure: Measure, on: Literal["clean", "noisy"] | None = None
) -> float | None:
    """Value of a run in a measure; None if it has none.

    Args:
        row: a finished run.
        measure: what is measured.
        on: raw input of the test patches; None means the one that the run is evaluated on.
    """
    if measure in ("mAP", "verification", "matching", "retrieval"):
        if row.status != "completed":
            return 0.0
        return row.scores[on or row.config["evaluate_on"]][measure]
    return MEASURES[measure](row)


def _last_metric(row: Row, name: str) -> float | None:
    return next((report[name] for report in reversed(row.curve) if name in report), None)


def _relative_losses(row: Row) -> list[float]:
    return [loss / row.loss_scale for loss in row.trace.get("loss", []) if loss is not None]


def _end_loss(row: Row) -> float | None:
    losses = _relative_losses(row)[-LAST_WINDOWS:]
    return statistics.fmean(losses) if losses else None


MEASURES: Mapping[str, Callable[[Row], float | None]] = {
    "failed": lambda row: float(row.status != "completed"),
    "end loss": _end_loss,
    "least loss": lambda row: min(_relative_losses(row), default=None),
    "PSNR": lambda row: _last_metric(row, "val/PSNR"),
    "MAE": lambda row: _last_metric(row, "val/MAE"),
    "log time": lambda row: math.log(row.cpu_seconds) if row.cpu_seconds > 0 else None,
}
"""Measures that do not come from the test scores, by name."""
