"""Reproduction of claims: train lists of chosen configurations, keep a row of each, and decide.

A list is a Python file with ``DATA`` (name of a patch set), ``RUNS`` (pairs of an arm's name and a
TrialConfig, in the order to train them) and, optionally, ``CLAIMS``, ``FIGURES`` and
``EVALUATION``. A run that is already in the table is skipped, and so is one that the lists contain
twice: a row counts if its patch set, its evaluation and its configuration, as this version reads
it, are equal and its commit is listed in ``training_versions.txt`` among those that train alike.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from hpsearch.atomic_files import try_lock, write_atomic
from hpsearch.data.builtin_sets import BUILTIN_SETS, open_builtin
from hpsearch.data.patch_store import PatchStore
from hpsearch.errors import UserError
from hpsearch.reporting.claims import Decision, claims_table, decide
from hpsearch.reporting.plot_style import svg
from hpsearch.reporting.run_figures import RunFigure
from hpsearch.tracking.run_table import Row, read_rows, read_versions, runs_table
from hpsearch.training.devices import torch_threads, tune_glibc_malloc
from hpsearch.workflows.run_lists import Run, code_version, read_lists
from hpsearch.workflows.run_trainer import RunTrainer, missing_from

TABLE, VERSIONS, CLAIMS, ARMS = "runs.jsonl", "training_versions.txt", "claims.md", "runs.md"
"""Files in the folder of results."""


@dataclass(frozen=True, kw_only=True)
class Reproduction:
    """Settings of ``reproduce``.

    Example:
        >>> settings = Reproduction(lists=(Path("search_spaces/reports/claims.py"),),
        ...     data={"photographs": "photographs.arrow"}, claims=("R1-hard-matching",))
        >>> settings.train
        True
    """

    lists: tuple[Path, ...]
    """Python files with runs and claims."""
    data: Mapping[str, str]
    """Path of the patch store of each patch set; embedded sets need none."""
    claims: tuple[str, ...] = ()
    """Claims to train for; all runs of the lists if empty."""
    results: Path = Path("docs/results")
    """Folder with the table of runs, where the tables in Markdown are written."""
    folder: Path = Path("runs/reproduce")
    """Folder for checkpoints, weights, shared artifacts and the file ``pause``."""
    until: str | None = None
    """Time HH:MM after which no run begins."""
    train: bool = True
    """False only decides from the rows that are there."""


def reproduce(
    settings: Reproduction, *, log: Callable[[str], None] = lambda text: None
) -> tuple[Decision, ...]:
    """Train the runs that the table lacks, and decide all claims of the lists.

    The tables ``claims.md`` and ``runs.md`` and the lists' figures are written at the end, also
    after an interruption.

    Args:
        settings: lists, patch sets, folders.
        log: called with one line per event.

    Returns:
        A decision per claim, in the order of the lists.

    Raises:
        UserError: if a list, a claim, a patch set or the table cannot be used, or if another
            process works in the folder.
    """
    found = read_lists(settings.lists)
    chosen = found.of_claims(settings.claims).runs
    table = settings.results / TABLE
    try:
        if settings.train:
            with exclusive_folder(settings.folder), torch_threads(1):
                tune_glibc_malloc()
                _runner(settings, chosen, log).run_all(chosen, until=settings.until)
    finally:
        rows = read_rows(table)
        decisions = tuple(decide(claim, rows) for claim in found.claims)
        settings.results.mkdir(parents=True, exist_ok=True)
        write_atomic(settings.results / CLAIMS, CLAIMS_HEAD + claims_table(decisions))
        write_atomic(settings.results / ARMS, ARMS_HEAD + runs_table(rows) + "\n")
        _draw_figures(found.figures, rows, settings.results)
    return decisions


CLAIMS_HEAD = """# Claims of the reports, decided

Written by `hpsearch reproduce`. Each value is the mean over seeds with its standard deviation;
differences are paired by seed, with their 95 % t-interval. *Confirmed*: the interval is above the
size that the claim names (or above zero). *Refuted*: all of it is at or below, or all of it is
below the gain that the report gives. About equal: confirmed within, refuted outside the stated
tolerance. *Undecided*: neither, or fewer than three seeds. Claims that three seeds left undecided,
but which a few more would decide, got those (`MORE_SEEDS` in the lists). A run that collapsed or
diverged counts with mAP 0.

"""
ARMS_HEAD = """# Runs

Written by `hpsearch reproduce`. One arm a line: mean over its seeds ± half the range.

"""


def _draw_figures(figures: Sequence[RunFigure], rows: Sequence[Row], folder: Path) -> None:
    for figure in figures:
        if (drawn := figure.draw(rows)) is not None:
            write_atomic(folder / f"{figure.name}.svg", svg(drawn))


def missing_runs(settings: Reproduction) -> list[Run]:
    """Runs that the table lacks, in the order in which ``reproduce`` would train them.

    Raises:
        UserError: as ``reproduce``.
    """
    chosen = read_lists(settings.lists).of_claims(settings.claims).runs
    alike = read_versions(settings.results / VERSIONS)
    return missing_from(read_rows(settings.results / TABLE), chosen, versions=alike)


def _runner(settings: Reproduction, runs: Sequence[Run], log: Callable[[str], None]) -> RunTrainer:
    code = code_version()
    alike = read_versions(settings.results / VERSIONS)
    if code not in alike and alike and runs:
        log(
            f"version {code} is not listed in {settings.results / VERSIONS}: it counts as training "
            "alike here; benchmarks/alike_runs.py compares it with the listed ones"
        )
    stores = _open_stores(settings.data, {run.data for run in runs}, settings.folder)
    return RunTrainer(
        settings.folder, settings.results / TABLE, stores, code, [*alike, code], log=log
    )


@contextmanager
def exclusive_folder(folder: Path) -> Iterator[None]:
    """Lock a folder for one runner.

    Raises:
        UserError: if another process holds it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    lock = try_lock(folder / "lock")
    if lock is None:
        raise UserError(f"another process trains in {folder}; wait for it, or give another --home")
    with lock:
        yield


def _open_stores(given: Mapping[str, str], wanted: set[str], folder: Path) -> dict[str, PatchStore]:
    stores = {name: PatchStore.open(path) for name, path in given.items() if name in wanted}
    for name in wanted & BUILTIN_SETS.keys() - stores.keys():
        stores[name] = PatchStore.open(open_builtin(name, folder / "data"))
    return stores
