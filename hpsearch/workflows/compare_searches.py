"""Comparison of searches in a home, as tables and as one page."""

import hashlib
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from hpsearch.defaults import DEFAULT_HOME
from hpsearch.errors import UserError
from hpsearch.reporting import search_comparison
from hpsearch.reporting.leaderboard import trial_seconds, trials_of
from hpsearch.reporting.search_comparison import ComparedSearch
from hpsearch.reporting.text_tables import TextTable
from hpsearch.search.search_context import SearchContext
from hpsearch.search.workspace import Workspace

MEANING = ("validation patches", "split")
"""Terms under which values of different searches mean the same."""


@dataclass(frozen=True)
class SearchComparison:
    """Result of ``compare_searches``."""

    searches: tuple[ComparedSearch, ...]
    results: TextTable
    terms: TextTable
    importance: TextTable
    remarks: tuple[str, ...]
    """Sentences on what limits the comparison."""

    def page(self) -> str:
        """Self-contained HTML page with tables and figures."""
        from hpsearch.reporting.evaluation_page import render_evaluation_page
        from hpsearch.reporting.search_figures import ReportFigure
        from hpsearch.reporting.setting_plots import plot_edf

        first = self.searches[0]
        values = {one.name: one.values for one in self.searches}
        drawn = [
            ReportFigure(
                "best-over-cost",
                partial(search_comparison.plot_best_over_cost, self.searches),
                f"Line chart of the best completed {first.metric} over patches, a line a search.",
                "Best completed trial over the patches that all trials have seen; of searches "
                "that differ in the seed alone the mean, from three on with its 95 % interval",
            ),
            ReportFigure(
                "distribution",
                partial(plot_edf, values, direction=first.direction, metric=first.metric),
                f"Step chart of the distribution of {first.metric}, a line a search.",
                "Share of completed trials at or below a value",
            ),
        ]
        tables = {"Results": self.results, "Terms": self.terms}
        if self.importance.rows:
            tables["Importance of settings"] = self.importance
        return render_evaluation_page(
            " and ".join(one.name for one in self.searches),
            lead=[f"Compared by {first.metric} on validation.", *self.remarks],
            tables=tables,
            figures=drawn,
        )


def compare_searches(names: Sequence[str], *, home: str | Path = DEFAULT_HOME) -> SearchComparison:
    """Compare searches of one objective; nothing is written.

    Args:
        names: at least two searches of the home.
        home: folder of the searches.

    Raises:
        UserError: if there are fewer than two, one is named twice or does not exist, their
            objectives differ, or one has no completed trial.
    """
    if len(set(names)) < len(names) or len(names) < 2:
        raise UserError("give the names of two or more different searches", code="too-few-searches")
    workspace = Workspace(Path(home))
    contexts = [workspace.open(name) for name in names]
    searches = tuple(_compared(context) for context in contexts)
    search_comparison.check_comparable(searches)
    differing = search_comparison.different_terms(searches, MEANING)
    remarks = (
        (f"The values are of different patches ({' and '.join(differing)} differ), so that they "
         "cannot be compared as such.",) if differing else ()
    )  # fmt: skip
    return SearchComparison(
        searches,
        search_comparison.result_table(searches),
        search_comparison.terms_table(searches),
        search_comparison.importance_table(searches),
        (*remarks, *search_comparison.small_group_remarks(searches)),
    )


def _compared(context: SearchContext) -> ComparedSearch:
    search, record, data = context.search, context.record, context.data
    replaced = {name: value for name, value in record.overrides.items() if name != "seed"}
    space = hashlib.sha256(context.paths.space.read_bytes()).hexdigest()
    terms = {
        "space": f"{record.space} {space[:8]}",
        "settings replaced": ", ".join(f"{k}={v}" for k, v in replaced.items()) or "none",
        "patches": f"{Path(record.store).stem} {record.fingerprint[:8]}",
        "validation patches": data.validation_store.fingerprint[:8],
        "test patches": data.test_store.fingerprint[:8],
        "split": data.split.name,
        "budget": f"{search.budget:,}",
        "sampler": search.sampler.kind,
        "pruner": search.active_pruner.kind,
        "seeds a point": str(search.seeds_per_point),
    }
    known = [trial_seconds(run) for run in trials_of(context.runs) if run.reports]
    return ComparedSearch(
        name=context.name,
        runs=tuple(context.runs),
        metric=context.objective.metric,
        direction=context.objective.direction,
        report_every=search.first_report,
        terms=terms,
        seconds=statistics.median(known) if known else None,
    )
