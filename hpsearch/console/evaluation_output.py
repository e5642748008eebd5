"""Output of an evaluation: a table for each task, comparisons, and notes."""

from hpsearch.console.output import out, print_plain
from hpsearch.reporting.evaluation_report import comparison_table, patch_pair_table, score_tables
from hpsearch.reporting.text_tables import to_text
from hpsearch.workflows.evaluate_models import EvaluationResult, notes_on


def print_evaluation(result: EvaluationResult) -> None:
    """Print the tables and the notes."""
    on_pairs = {"": patch_pair_table(result.on_pairs)} if result.on_pairs else {}
    for table in (on_pairs or score_tables(result.rows)).values():
        print_plain(to_text(table))
        out.print()
    for title, (first, second) in result.pairs.items():
        print_plain(f"{title}\n{to_text(comparison_table(first, second))}\n")
    for note in notes_on(result):
        print_plain(note)
