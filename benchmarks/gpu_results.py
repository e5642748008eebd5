"""Tables of what was measured on a GPU, as markdown and as JSON."""

import json
import sys
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any


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


def shown(value: Any) -> str:
    """Three digits of a number."""
    if isinstance(value, float):
        return f"{value:.3g}" if abs(value) < 1000 else f"{value:,.0f}"
    return str(value)


def log(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()
