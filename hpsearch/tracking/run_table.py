"""Table of finished training runs, one JSON line each, and its Markdown form.

Two tables are merged by appending one to the other: of rows with the same data, evaluation and
configuration the first counts.
"""

import hashlib
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from hpsearch.config import TrialConfig
from hpsearch.config.base import dump_former_names
from hpsearch.errors import UserError

SCHEMA_VERSION = 1


class Evaluation(BaseModel):
    """Frequency and number of points of evaluation, which affect the scores, not the weights."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    reports: int = 20
    """Reports a run, at equal distances of its budget."""
    validation_points: int = 32
    """Points of each validation sequence at a report."""
    test_points: int = 100
    """Points of each test sequence at the end; scores depend on it, so report it with them."""


class Row(BaseModel):
    """One finished run."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    schema_version: int = SCHEMA_VERSION
    block: str
    """Name of the first list that contains it."""
    name: str
    """Name of the arm; runs of one arm differ in their seed alone."""
    data: str
    """Name of the patch set."""
    fingerprint: str
    """Fingerprint of the patch store; other libraries may round some pixels differently."""
    split: dict[str, int]
    """Sequences in each part."""
    evaluation: Evaluation
    config: dict[str, Any]
    """TrialConfig, with the names of the version that trained it."""
    digest: str
    """First digits of the SHA-256 of the configuration, to name the run's folder."""
    seed: int
    code: str
    """Commit that last changed the package, or its version where there is no repository."""
    status: str
    reason: str = ""
    collapse_value: float
    """Loss of an encoder that maps every patch to one point."""
    curve: list[dict[str, float]]
    """Metrics of each report, with ``seen`` patches."""
    trace: dict[str, list[float | None]]
    """Training loss and statistics of the batch, a value per window (``training/loss_trace.py``);
    None where it is not a number."""
    scores: dict[str, dict[str, float]]
    """Test scores by raw input, clean and noisy; none of a run that failed."""
    cpu_seconds: float
    finished: str
    """Date and time, UTC."""

    @property
    def loss_scale(self) -> float:
        """Unit of the losses: the collapse value, or 1 where that is 0 (a dynamic margin)."""
        return abs(self.collapse_value) or 1.0


def digest_of(config: TrialConfig) -> str:
    """Sixteen hexadecimal digits that name a configuration, seed included."""
    text = json.dumps(dump_former_names(config), sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def read_rows(table: Path) -> list[Row]:
    """All rows of a table; none if there is no file.

    Raises:
        UserError: naming the line that is no row.
    """
    if not table.exists():
        return []
    rows = []
    for number, line in enumerate(table.read_text().splitlines(), start=1):
        try:
            rows.append(Row.model_validate_json(line))
        except ValidationError as error:
            raise UserError(
                f"line {number} of {table} is no row of this version; remove it, or read the "
                f"table with the version that wrote it ({error.errors()[0]['msg']})"
            ) from error
    return rows


def append_row(table: Path, row: Row) -> None:
    """Append a row to the table, which is created if it is missing."""
    table.parent.mkdir(parents=True, exist_ok=True)
    with table.open("a") as file:
        file.write(row.model_dump_json() + "\n")


def config_of(row: Row) -> TrialConfig | None:
    """Configuration as this version reads it; None if it cannot."""
    try:
        return TrialConfig.model_validate(row.config)
    except ValidationError:
        return None


def find_row(
    rows: Iterable[Row],
    config: TrialConfig,
    *,
    data: str,
    evaluation: Evaluation,
    versions: Iterable[str],
) -> Row | None:
    """First row that counts as this run, or None.

    Args:
        rows: of the table.
        config: read by this version; a row's configuration must be equal once it is read.
        data: name of the patch set.
        evaluation: how the run is scored.
        versions: commits whose training is alike.
    """
    known = frozenset(versions)
    for row in rows:
        same = row.data == data and row.evaluation == evaluation and row.code in known
        if same and row.seed == config.seed and config_of(row) == config:
            return row
    return None


def differences(rows: Sequence[Row], others: Sequence[Row]) -> list[str]:
    """Differences between two trainings of the same runs, a line per run, by arm and seed."""
    found = []
    one, another = ({(row.name, row.seed): row for row in table} for table in (rows, others))
    for name, seed in one | another:
        row, other = one.get((name, seed)), another.get((name, seed))
        if row is None or other is None:
            found.append(f"{name}, seed {seed}: only one has it")
        elif unlike := _unlike_fields(row, other):
            found.append(f"{name}, seed {seed}: {', '.join(unlike)}")
    return found


def _unlike_fields(row: Row, other: Row) -> list[str]:
    fields = ("fingerprint", "status", "curve", "trace", "scores")
    return [field for field in fields if getattr(row, field) != getattr(other, field)]


def read_versions(path: Path) -> list[str]:
    """Commits that train alike, one at the start of each line; ``#`` begins a comment."""
    lines = path.read_text().splitlines() if path.exists() else []
    return [line.split()[0] for line in lines if line.strip() and not line.startswith("#")]


def runs_table(rows: Sequence[Row]) -> str:
    """Markdown table of the arms: means over seeds, and half the range of values."""
    head = ("arm", "patches", "seeds", "status", "loss ÷ value, least and last", "stage",
            "V", "M", "R", "mAP clean", "mAP noisy", "CPU min")  # fmt: skip
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    arms: dict[tuple[str, str], list[Row]] = {}
    for row in rows:
        arms.setdefault((row.block, row.name), []).append(row)
    lines += ["| " + " | ".join(_cells(name, runs)) + " |" for (_, name), runs in arms.items()]
    return "\n".join(lines)


def _cells(name: str, runs: Sequence[Row]) -> list[str]:
    def scores(key: str, on: str | None = None) -> str:
        found = [row.scores.get(on or _own(row), {}).get(key) for row in runs]
        return _spread([value for value in found if value is not None])

    relative = [[x / row.loss_scale for x in row.trace["loss"] if x is not None] for row in runs]
    least, last = (_spread([f(x) for x in relative if x]) for f in (min, lambda x: x[-1]))
    stages = ["·".join(f"{s or 0:.0f}" for s in _changes(row.trace["stage"])) for row in runs]
    return [
        name,
        f"{runs[0].config['patches']:,}",
        ", ".join(str(row.seed) for row in runs),
        ", ".join(dict.fromkeys(row.status for row in runs)),
        f"{least}, {last}",
        " / ".join(stages),
        *(scores(key) for key in ("verification", "matching", "retrieval")),
        scores("mAP", "clean"),
        scores("mAP", "noisy"),
        _spread([row.cpu_seconds / 60 for row in runs], digits=1),
    ]


def _own(row: Row) -> str:
    return row.config["evaluate_on"]


def _changes(values: Sequence[float | None]) -> list[float | None]:
    """Values without repetitions: the stages in the order of their visits."""
    return [v for i, v in enumerate(values) if i == 0 or values[i - 1] != v]


def _spread(values: Sequence[float], *, digits: int = 3) -> str:
    """Mean, and half the range where there are several."""
    if not values:
        return "–"
    mean, half = sum(values) / len(values), (max(values) - min(values)) / 2
    return f"{mean:.{digits}f}" + (f" ± {half:.{digits}f}" if len(values) > 1 else "")
