"""Handle of a search for notebooks and programs: tables, figures, trials to train, and requests.

Heavy modules are imported inside functions, so that a search is opened in an instant.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hpsearch.defaults import DEFAULT_HOME
from hpsearch.errors import UserError, list_names
from hpsearch.search.pruners import check_may_ask
from hpsearch.search.search import Search
from hpsearch.search.search_context import SearchContext
from hpsearch.search.workspace import Workspace
from hpsearch.tracking.run_state import Run, SearchState
from hpsearch.workflows import steer_search
from hpsearch.workflows.observer import Observer, SearchResult
from hpsearch.workflows.search_plan import SearchOptions, plan_search

if TYPE_CHECKING:
    import pandas as pd

    from hpsearch.execution.external_trials import EndStatus, ExternalTrial, ExternalTrials
    from hpsearch.workflows.promote_search import PromotionResult


class SearchHandle:
    """An existing search, whether it runs, was interrupted, or has ended.

    Tables and figures show the search as it is when they are asked for.

    Args:
        context: the search.

    Example:
        >>> import hpsearch as hp
        >>> search = hp.open_search("quickstart")  # doctest: +SKIP
        >>> search.trials().sort_values("value")  # doctest: +SKIP
        >>> while trial := search.ask():  # doctest: +SKIP
        ...     search.train(trial)
    """

    def __init__(self, context: SearchContext) -> None:
        self.context = context

    def __repr__(self) -> str:
        return f"<search {self.name!r} in {self.context.home}: {len(self._own_runs())} trials>"

    @property
    def name(self) -> str:
        """Name of the search."""
        return self.context.name

    @property
    def search(self) -> Search:
        """Settings of the search."""
        return self.context.search

    @property
    def state(self) -> SearchState:
        """State of the search by now, with every run and report."""
        return self.context.state

    @property
    def is_complete(self) -> bool:
        """True if no trial is left to train."""
        return self.context.is_complete

    @property
    def study(self) -> Any:
        """Optuna's study, for any of Optuna's functions that read one."""
        from hpsearch.search.study import read_study

        context = self.context
        return read_study(context.paths.folder, search=context.search, url=context.record.study)

    @property
    def best(self) -> Run:
        """Completed trial with the best objective on validation.

        Raises:
            UserError: if no trial has completed.
        """
        from hpsearch.promotion.final_evaluation import best_run

        return best_run(self.context.runs, self.context.objective)

    def trials(self) -> "pd.DataFrame":
        """Table with one row for each trial, by its number.

        Columns: ``state``, ``value`` (objective at the last report), ``seen`` (patches),
        ``seconds`` of training and validation, further objectives by name, and a column for each
        setting that varies, such as ``optimizer.lr``.
        """
        from hpsearch.reporting.trial_table import trial_frame

        extra = [objective.metric for objective in self.search.extra_objectives]
        return trial_frame(self._own_runs(), metrics=extra)

    def reports(self) -> "pd.DataFrame":
        """Table with one row for each report: ``number`` of the trial, ``seen``, all metrics."""
        from hpsearch.reporting.trial_table import report_frame

        return report_frame(self._own_runs())

    def figure(self, name: str) -> Any:
        """Draw a figure of the report by its name, or by a part of it, such as ``curves``.

        Returns:
            Figure of matplotlib.

        Raises:
            UserError: if there is no such figure, or it would show nothing.
        """
        from hpsearch.workflows.publish_figures import draw_search_figures

        if not isinstance(name, str):
            raise UserError(
                f"a figure has a name, such as 'curves', not {name!r}", code="no-such-figure"
            )
        drawn = draw_search_figures(self.context)
        found = [one for one in drawn.figures if name in one.name]
        if not found:
            names = list_names((one.name for one in drawn.figures), limit=20) or "none yet"
            why = "".join(f" {reason}" for reason in drawn.omitted if name in reason)
            raise UserError(
                f"there is no figure {name!r} of search {self.name!r}; there are: {names}{why}",
                code="no-such-figure",
            )
        exact = [one for one in found if one.name == name]
        return (exact or found)[0].figure

    def promote(
        self,
        *,
        top: int | None = None,
        seeds: int | None = None,
        force: bool = False,
        observer: Observer | None = None,
    ) -> "PromotionResult":
        """Retrain the best configurations, evaluate the best on test, and register it.

        Args:
            top: number of configurations to retrain; 3 if None.
            seeds: trainings of each; 3 if None.
            force: make it champion whatever the comparison shows.
            observer: receives messages and progress.
        """
        from hpsearch.workflows.promote_search import plan_promotion, promote

        plan = plan_promotion(self.name, top=top, seeds=seeds, home=self.context.home)
        return promote(plan, force=force, observer=observer)

    def resume(self, **options: Any) -> SearchResult:
        """Train the trials that are left with Ray, and finish the search; see ``resume_search``."""
        from hpsearch.workflows.resume_search import resume_search

        self._external.close()
        return resume_search(self.name, home=self.context.home, **options)

    def export_study(self, storage: str, *, name: str | None = None) -> str:
        """Copy the trials of this search into another Optuna storage.

        Args:
            storage: address as Optuna takes it, such as ``sqlite:///studies.db``.
            name: name of the study there; that of the search if None.

        Returns:
            Name of the study.

        Raises:
            UserError: if the storage is not available, or has a study of this name.
        """
        from hpsearch.search.study import export_study

        return export_study(self.study, storage, name or self.name)

    def enqueue_trial(self, params: Mapping[str, Any]) -> None:
        """Try a point as the next trial, also while the search runs; see ``steer_search``."""
        steer_search.enqueue_trial(self.context, params)

    def stop_trial(self, trial: str | int) -> None:
        """Stop a trial at its next report, also while the search runs; it counts as pruned."""
        steer_search.stop_trial(self.context, trial)

    @cached_property
    def _external(self) -> "ExternalTrials":
        from hpsearch.execution.external_trials import ExternalTrials

        return ExternalTrials(self.context)

    def ask(self, *, cpus: float = 1, gpus: float = 0) -> "ExternalTrial | None":
        """Start the next trial in this process, whoever trains it; see ``ExternalTrials.ask``.

        Returns:
            Trial with ``config``, ``number`` and a ``folder`` for its checkpoint; None if there is
            none to start now.
        """
        check_may_ask(self.search.active_pruner, self.name)
        return self._external.ask(cpus=cpus, gpus=gpus)

    def report(self, trial: "ExternalTrial", seen: int, metrics: Mapping[str, float]) -> bool:
        """Report scores of a trial after ``seen`` patches.

        Returns:
            Whether to stop it, as Optuna's ``should_prune``.
        """
        return self._external.report(trial, seen, metrics)

    def tell(
        self,
        trial: "ExternalTrial",
        *,
        status: "EndStatus" = "completed",
        reason: str = "",
        sync: bool = True,
    ) -> str:
        """End a trial, and send what is new to MLflow.

        Args:
            trial: as ``ask`` returned it.
            status: completed, collapsed, diverged or failed; a trial that was to be stopped counts
                as pruned.
            reason: in words, unless it completed.
            sync: False leaves MLflow to ``hpsearch sync``.

        Returns:
            Status of the trial in the search.
        """
        ended = self._external.tell(trial, status=status, reason=reason)
        if sync:
            self._sync()
        return ended

    def give_back(self, trial: "ExternalTrial") -> None:
        """Interrupt a trial; ``ask``, of any process, starts it again."""
        self._external.give_back(trial)

    def train(self, trial: "ExternalTrial") -> str:
        """Train a trial here as a worker of Ray does, from its checkpoint if it has one.

        Returns:
            Status of the trial in the search.
        """
        from hpsearch.execution.cross_validation import run_cross_validation
        from hpsearch.execution.resumable_trial import CheckpointHooks, run_with_checkpoints
        from hpsearch.execution.system_metrics import SystemMonitor

        env, hooks = self.context.environment, CheckpointHooks(trial.folder)
        folds = self.search.num_folds
        reports = (
            run_cross_validation(trial.config, env, hooks, k=folds)
            if folds
            else run_with_checkpoints(trial.config, env, hooks)
        )
        with self._failing(trial), SystemMonitor() as system:
            for report in reports:
                measured = replace(report, metrics={**report.metrics, **system.metrics()})
                if report.status != "running":
                    ended = self._external.end_with(trial, measured)
                    self._sync()
                    return ended
                if self._external.report(trial, report.seen, measured.metrics):
                    break
        return self.tell(trial)

    @contextmanager
    def _failing(self, trial: "ExternalTrial") -> Iterator[None]:
        """End a trial as failed if its training raises; give it back if that is interrupted."""
        from hpsearch.execution.retry_policy import format_trial_error

        try:
            yield
        except Exception as error:
            if not trial.ended:
                self.tell(trial, status="failed", reason=format_trial_error(error))
            raise
        except BaseException:
            if not trial.ended:
                self.give_back(trial)
            raise

    def close(self) -> None:
        """Give back the trials that this process has open; a ``with`` block does it at its end."""
        self._external.close()

    def __enter__(self) -> "SearchHandle":
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def _sync(self) -> None:
        """Send new events to MLflow; a failure changes nothing, since the rest is sent later."""
        with suppress(UserError, OSError):
            mlflow_sync = self.context.mlflow_sync()
            mlflow_sync.start()
            mlflow_sync.stop()

    def _own_runs(self) -> list[Run]:
        return [run for run in self.context.runs if run.kind == "trial"]


def open_search(
    name: str, *, home: str | Path = DEFAULT_HOME, tracking_uri: str | None = None
) -> SearchHandle:
    """Open an existing search, also while it runs.

    Args:
        name: name of the search.
        home: folder of the search.
        tracking_uri: address of MLflow; the search's own if None.

    Raises:
        UserError: if there is none of that name.
    """
    return SearchHandle(Workspace(Path(home)).open(name, tracking_uri=tracking_uri))


def create_search(
    space: str | Path | Search,
    *,
    home: str | Path = DEFAULT_HOME,
    observer: Observer | None = None,
    **options: Any,
) -> SearchHandle:
    """Create a search without starting Ray; its trials are trained by ``ask`` or by ``resume``.

    Args:
        space: a ``Search``, or the path of a Python file that exports one.
        home: folder for data, searches and MLflow's files.
        observer: receives messages.
        options: as of ``run_search``, such as ``name``, ``data`` and ``trials``.

    Raises:
        UserError: if an option, the space or the data is not usable.
    """
    from hpsearch.workflows.run_search import begin_search

    observer = observer or Observer()
    plan = plan_search(space, SearchOptions(**options), Workspace(Path(home)), observer)
    plan.workspace.tracking(plan.record.tracking_uri).check_experiment()
    with begin_search(plan, observer) as context:
        return SearchHandle(context)
