"""Lists of runs, and which commit would train them."""

import importlib.util
import subprocess
from dataclasses import dataclass
from pathlib import Path

from run_table import Evaluation

from hpsearch.config import TrialConfig
from hpsearch.errors import UserError


@dataclass(frozen=True)
class Run:
    """One configuration to train, and how it is scored."""

    block: str
    name: str
    config: TrialConfig
    data: str
    evaluation: Evaluation

    def same_as(self, other: "Run") -> bool:
        """Return True if training and evaluation of both are equal, whatever their names."""
        mine, its = ((run.data, run.evaluation, run.config) for run in (self, other))
        return mine == its


def read_list(path: Path) -> list[Run]:
    """The runs of a list.

    Raises:
        UserError: if it is no list.
    """
    spec = importlib.util.spec_from_file_location(f"list_{path.stem}", path)
    if spec is None or spec.loader is None or not path.is_file():
        raise UserError(f"there is no list of runs at {path}; give a file of search_spaces/reports")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    if not hasattr(module, "RUNS") or not hasattr(module, "DATA"):
        raise UserError(f"{path} is no list of runs; it must define DATA and RUNS")
    evaluation = Evaluation(**getattr(module, "EVALUATION", {}))
    return [Run(path.stem, name, config, module.DATA, evaluation) for name, config in module.RUNS]


def code_version(repository: Path) -> str:
    """Commit that last changed the package.

    Raises:
        UserError: if the package has changes that no commit holds.
    """

    def git(*words: str) -> str:
        command = ["git", "-C", str(repository), *words, "--", "hpsearch"]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()

    if git("status", "--porcelain"):
        raise UserError("hpsearch/ differs from the last commit; commit it, so that rows can name "
                        "their version")  # fmt: skip
    return git("log", "-1", "--format=%H")[:12]
