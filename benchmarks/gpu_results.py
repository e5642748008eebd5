"""Tables of what was measured on a GPU, as markdown and as JSON."""

import json
import platform
import re
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from datetime import date
from pathlib import Path
from typing import Any

import torch


def head(device: torch.device) -> dict[str, Any]:
    """Machine, versions and settings of the run."""
    found = {
        "date": date.today().isoformat(),
        "command": " ".join(["python", *sys.argv]),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "device": "CPU",
    }
    if device.type == "cuda":
        card = torch.cuda.get_device_properties(device)
        found["device"] = f"{card.name}, {card.total_memory / 2**30:.0f} GiB"
        found["CUDA, cuDNN"] = f"{torch.version.cuda}, {torch.backends.cudnn.version()}"
        found["driver"] = driver()
    return found


def driver() -> str:
    """Version of NVIDIA's kernel module."""
    path = Path("/proc/driver/nvidia/version")
    found = re.search(r"[0-9]+\.[0-9.]+", path.read_text()) if path.exists() else None
    return found[0] if found else "unknown"


@dataclass
class Results:
    """Tables so far."""

    path: Path
    head: dict[str, Any]
    tables: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)

    def add(self, table: str, **row: Any) -> None:
        """One more row; everything is written at once, so that a broken run leaves what it has."""
        self.tables.setdefault(table, []).append(row)
        log(f"{table}: " + ", ".join(f"{name} {shown(value)}" for name, value in row.items()))
        self.write()

    def write(self) -> None:
        """Write the table and the JSON file."""
        self.path.with_suffix(".json").write_text(json.dumps(asdict(self) | {"path": ""}, indent=1))
        self.path.with_suffix(".md").write_text(self.markdown())

    def markdown(self) -> str:
        """A table a section."""
        lines = ["# Measured on a GPU", ""]
        lines += [f"- {name}: {value}" for name, value in self.head.items()]
        for table, rows in self.tables.items():
            names = list(dict.fromkeys(name for row in rows for name in row))
            lines += ["", f"## {table}", "", f"| {' | '.join(names)} |", "|---" * len(names) + "|"]
            lines += [
                f"| {' | '.join(shown(row.get(name, '')) for name in names)} |" for row in rows
            ]
        if self.failed:
            lines += ["", "## Not measured", ""]
            lines += [f"- {section}: {why}" for section, why in self.failed.items()]
        return "\n".join(lines) + "\n"


Rows = list[dict[str, Any]]

TRIALS, DENOISER = (
    "Several trials of width 0.25",
    "Shallow U-Net, seconds an epoch of 100,000 patches",
)
"""Names of tables that the bars are read from; the first table of steps is ``STEPS``."""
STEPS = "L2-Net, ms a step"


def bars(tables: dict[str, Rows]) -> Iterator[dict[str, Any]]:
    """Yield what the project asks of an H100 or H200, with what the tables have.

    A bar whose shape was not measured is left out.
    """
    for step in _where(tables, STEPS, width=1.0, batch=1024):
        name = "L2-Net width 1, batch 1024"
        yield _bar(f"{name}: share of roofline", 0.7, step["share of roofline"])
        yield _bar(f"{name}: × eager", 5.0, step["× eager"])
    for batch in dict.fromkeys(row["batch"] for row in tables.get(TRIALS, ())):
        one, most = (_fastest(tables[TRIALS], batch, count) for count in (1, 16))
        if one and most:
            yield _bar(f"16 trials of width 0.25, batch {batch}: × one", 6.0, most / one)
    for epoch in _where(tables, DENOISER, batch=4096):
        yield _bar("denoiser, batch 4096: share of roofline", 0.5, epoch["share of roofline"])


def _where(tables: dict[str, Rows], name: str, **wanted: object) -> Rows:
    return [row for row in tables.get(name, ()) if wanted.items() <= row.items()]


def _fastest(rows: Rows, batch: int, count: int) -> float:
    """Patches a second of this many trials in their fastest form; 0 if not measured."""
    found = (row for row in rows if (row["batch"], row["trials"]) == (batch, count))
    return max((row["patches/s of all"] for row in found), default=0.0)


def _bar(name: str, wanted: float, found: float) -> dict[str, Any]:
    reached = "yes" if found >= wanted else "no"
    return {"what": name, "bar": wanted, "found": found, "reached": reached}


def shown(value: Any) -> str:
    """Three digits of a number."""
    if isinstance(value, float):
        return f"{value:.3g}" if abs(value) < 1000 else f"{value:,.0f}"
    return str(value)


def log(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()
