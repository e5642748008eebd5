"""Lists of chosen configurations in Python files, their claims, and the version of the code."""

import importlib.util
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import hpsearch
from hpsearch.config import TrialConfig
from hpsearch.errors import UserError
from hpsearch.reporting.claims import Claim, cell_of
from hpsearch.reporting.run_figures import RunFigure
from hpsearch.tracking.run_table import Evaluation


@dataclass(frozen=True)
class Run:
    """One configuration to train, and its evaluation."""

    block: str
    """Name of its list."""
    name: str
    """Name of its arm; runs of one arm differ in their seed alone."""
    config: TrialConfig
    data: str
    """Name of the patch set."""
    evaluation: Evaluation

    def same_as(self, other: "Run") -> bool:
        """Return True if training and evaluation of both are equal, whatever their names."""
        mine, its = ((run.data, run.evaluation, run.config) for run in (self, other))
        return mine == its


@dataclass(frozen=True)
class RunList:
    """Runs, claims and figures of one or more files."""

    runs: tuple[Run, ...]
    claims: tuple[Claim, ...]
    figures: tuple[RunFigure, ...] = ()

    def of_claims(self, names: Sequence[str]) -> "RunList":
        """Reduce to some claims and the runs of their arms, claim by claim; all if none is named.

        Raises:
            UserError: if there is no claim of a name.
        """
        known = {claim.name: claim for claim in self.claims}
        for name in names:
            if name not in known:
                raise UserError(f"there is no claim {name!r}; choose of {', '.join(known)}")
        if not names:
            return self
        chosen = tuple(known[name] for name in dict.fromkeys(names))
        arms = dict.fromkeys(arm for claim in chosen for arm in (claim.high, claim.low))
        runs = dict.fromkeys(
            i
            for arm in arms
            for i, run in enumerate(self.runs)
            if cell_of(arm, run.name) is not None
        )
        return RunList(tuple(self.runs[i] for i in runs), chosen, self.figures)


def read_lists(paths: Sequence[Path]) -> RunList:
    """Read the lists of these files, in their order.

    Raises:
        UserError: if a file is not a list, if a claim names an arm that no list has, or if two
            claims have one name.
    """
    parts = [_read_list(path) for path in paths]
    found = RunList(
        tuple(run for part in parts for run in part.runs),
        tuple(claim for part in parts for claim in part.claims),
        tuple(figure for part in parts for figure in part.figures),
    )
    arms = {run.name for run in found.runs}
    for i, claim in enumerate(found.claims):
        for arm in (claim.high, claim.low):
            if all(cell_of(arm, name) is None for name in arms):
                raise UserError(f"claim {claim.name!r} names the arm {arm!r}, which no list has")
        if claim.name in [other.name for other in found.claims[:i]]:
            raise UserError(f"two claims have the name {claim.name!r}; rename one of them")
    return found


def _read_list(path: Path) -> RunList:
    spec = importlib.util.spec_from_file_location(f"list_{path.stem}", path)
    if spec is None or spec.loader is None or not path.is_file():
        raise UserError(f"there is no list of runs at {path}; give a file of search_spaces/reports")
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        raise UserError(f"{path} cannot be read: {type(error).__name__}: {error}") from error
    if not hasattr(module, "RUNS") or not hasattr(module, "DATA"):
        raise UserError(f"{path} is not a list of runs; it must define DATA and RUNS")
    evaluation = Evaluation(**getattr(module, "EVALUATION", {}))
    runs = (Run(path.stem, name, config, module.DATA, evaluation) for name, config in module.RUNS)
    return RunList(
        tuple(runs), tuple(getattr(module, "CLAIMS", ())), tuple(getattr(module, "FIGURES", ()))
    )


def code_version(package: Path = Path(hpsearch.__file__).parent) -> str:
    """Commit that last changed the package; the release where it is installed without its history.

    Raises:
        UserError: if the package has changes that no commit has.
    """

    def git(*words: str) -> str:
        command = ["git", "-C", str(package.parent), *words, "--", package.name]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()

    try:
        commit = git("log", "-1", "--format=%H")[:12]
    except (OSError, subprocess.CalledProcessError):
        commit = ""
    if not commit:
        return f"v{hpsearch.__version__}"
    if git("status", "--porcelain"):
        raise UserError(
            f"{package} differs from its last commit; commit the change, so that rows can name "
            "the version that trained them"
        )
    return commit
