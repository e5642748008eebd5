"""Live progress of a search: a table on a terminal and in a notebook, plain lines in a file."""

import importlib
import io
import threading
import time
from dataclasses import dataclass, field

from rich.console import Console
from rich.live import Live
from rich.table import Table

from hpsearch.collapse_thresholds import is_reported_collapsed
from hpsearch.config.formatting import summary
from hpsearch.execution.shutdown import in_notebook
from hpsearch.search.search import Search
from hpsearch.search.time_estimate import seconds_left
from hpsearch.tracking.event_log import Event, EventLog
from hpsearch.tracking.run_state import UNFINISHED, Run, apply_event

MAX_TABLE_ROWS = 14
"""Maximum rows of the live table: running trials first, then the latest that ended."""
NOTEBOOK_WIDTH = 110
"""Characters of a line of the table in a notebook."""
STATUS_STYLES = {
    "running": "bold",
    "completed": "green",
    "infeasible": "yellow dim",
    "pruned": "dim",
    "collapsed": "magenta",
    "diverged": "magenta",
    "failed": "red",
    "interrupted": "yellow",
    "paused": "cyan",
}


@dataclass
class LiveProgress:
    """Thread that follows the event log of a search and shows its runs."""

    event_log: EventLog
    search: Search
    console: Console
    trials: int
    kind: str = "trial"
    """Kind of runs to show: trials or baselines."""
    end_patches: int = 0
    """Patches that are trained, or described, after the last trial."""
    _offset: int = 0
    _runs: dict[str, Run] = field(default_factory=dict)

    def __enter__(self) -> "LiveProgress":
        self._apply(self._new_events(), announce=False)
        self._stop = threading.Event()
        self._live: Live | NotebookTable | None = None
        if self.console.is_terminal:
            self._live = Live(self._table(), console=self.console, refresh_per_second=2)
            self._live.start()
        elif in_notebook():
            self._live = NotebookTable(self._table())
        self._thread = threading.Thread(target=self._follow, name="watch", daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._stop.set()
        self._thread.join()
        if self._live is not None:
            self._live.update(self._table())
            self._live.stop()

    def _follow(self) -> None:
        stopping = False
        while not stopping:
            stopping = self._stop.wait(0.5)
            self._apply(self._new_events(), announce=self._live is None)
            if self._live is not None:
                self._live.update(self._table())

    def _new_events(self) -> list[Event]:
        events, self._offset = self.event_log.read(self._offset)
        return [event for event in events if "trial" in event]

    def _apply(self, events: list[Event], *, announce: bool) -> None:
        for event in events:
            before = self._runs.get(event["trial"])
            run = apply_event(before, event)
            self._runs[event["trial"]] = run
            if not announce or run.kind != self.kind or _repeats(event, before):
                continue
            if line := self._event_line(event, run):
                self.console.print(line, highlight=False, soft_wrap=True, markup=False)

    def _event_line(self, event: Event, run: Run) -> str | None:
        clock = time.strftime("%H:%M:%S", time.localtime(event["time"]))
        head = f"{clock} {run.label:>8}"
        match event["event"]:
            case "start" if run.pauses and run.seen:
                return f"{head} resumed    from {run.seen:,} patches"
            case "start":
                return f"{head} started    {summary(run.config)}"
            case "report":
                return f"{head} {run.seen:>9,} patches  {_run_numbers(run)}  {self._eta()}"
            case "worker_failed":
                return f"{head} resumed    from {run.seen:,} patches; {event['reason']}"
            case "restarted_from_scratch":
                return f"{head} restarts from scratch; {event['reason']}"
            case "trial_paused" | "trial_finished":
                reason = f"  ({run.reason})" if run.reason else ""
                return (
                    f"{head} {run.status:<10} {run.seen:>9,} patches  {_run_numbers(run)}{reason}"
                )
        return None

    def _table(self) -> Table:
        table = Table(title=self._eta(), title_justify="left", expand=True, box=None)
        for name, justify in (("trial", "right"), ("status", "left"), ("patches", "right")):
            table.add_column(name, justify=justify, no_wrap=True)  # type: ignore[arg-type]
        table.add_column("loss", justify="right", no_wrap=True)
        table.add_column("mAP", justify="right", no_wrap=True)
        table.add_column("configuration", no_wrap=True, overflow="ellipsis", ratio=1)
        for run in self._visible_trials():
            loss, score = run.metric("train/loss"), run.metric("val/mAP")
            cells = [f"{run.seen:,}", "" if loss is None else f"{loss:.3f}"]
            cells += ["" if score is None else f"{score:.3f}", summary(run.config)]
            table.add_row(run.label, run.status, *cells, style=STATUS_STYLES[run.status])
        return table

    def _visible_trials(self) -> list[Run]:
        shown = [run for run in self._runs.values() if run.kind == self.kind]
        running = [run for run in shown if run.status == "running"]
        ended = [run for run in shown if run.status != "running"]
        ended.sort(key=lambda run: run.ended or 0.0)
        return [*ended[-(MAX_TABLE_ROWS - len(running)) :], *running]

    def _eta(self) -> str:
        if self.kind != "trial":
            return self._time_left()
        trials = [run for run in self._runs.values() if run.kind == "trial"]
        ended = [run for run in trials if run.status not in UNFINISHED]
        paused = sum(run.status == "paused" for run in trials)
        count = f"{len(ended)} of {self.trials} trials" + (f", {paused} paused" if paused else "")
        return f"{count} · {self._best_so_far(trials)} · {self._time_left()}"

    def _best_so_far(self, trials: list[Run]) -> str:
        """Best last objective of the trials that did not collapse, finished or not."""
        known = [run for run in trials if run.reports and not is_reported_collapsed(run.last)]
        known = [run for run in known if run.status not in ("collapsed", "diverged", "infeasible")]
        if not known:
            return "no score yet"
        pick = max if self.search.objective.direction == "maximize" else min
        best = pick(known, key=lambda run: run.reports[-1]["objective"])
        value = best.reports[-1]["objective"]
        return f"best last {self.search.objective.metric} {value:.3f} (trial {best.label})"

    def _time_left(self) -> str:
        """Estimate the time until the search has finished, its baseline and test scores too."""
        seconds = seconds_left(
            list(self._runs.values()),
            trials=self.trials,
            budget=self.search.budget,
            end_patches=self.end_patches,
        )
        if seconds is None:
            return "time left unknown"
        return (
            f"about {seconds / 60:.0f} min left" if seconds > 90 else f"about {seconds:.0f} s left"
        )


class NotebookTable:
    """Table in the output of a notebook's cell, replaced as it changes.

    Args:
        table: first state of the table.
    """

    def __init__(self, table: Table) -> None:
        self._display = importlib.import_module("IPython.display")
        self._shown = _table_html(table)
        self._handle = self._display.display(self._display.HTML(self._shown), display_id=True)

    def update(self, table: Table) -> None:
        """Show another state of the table, if it differs."""
        html = _table_html(table)
        if html != self._shown:
            self._shown = html
            self._handle.update(self._display.HTML(html))

    def stop(self) -> None:
        """Leave the last state in the output."""


def _repeats(event: Event, run: Run | None) -> bool:
    """Return whether a trial that resumes from its checkpoint repeats its last report."""
    return event["event"] == "report" and run is not None and event["seen"] == run.seen


def _table_html(table: Table) -> str:
    """Table as HTML without scripts; text of the user is escaped."""
    recorder = Console(file=io.StringIO(), record=True, width=NOTEBOOK_WIDTH, force_jupyter=False)
    recorder.print(table)
    style = "font-family: monospace; line-height: 1.25; overflow-x: auto; white-space: pre"
    page = f'<pre style="{style}">{{code}}</pre>'
    return recorder.export_html(inline_styles=True, code_format=page)


def _run_numbers(run: Run) -> str:
    names = {"loss": "train/loss", "mAP": "val/mAP"}
    found = {short: run.metric(name) for short, name in names.items()}
    return "  ".join(f"{short} {value:.3f}" for short, value in found.items() if value is not None)
