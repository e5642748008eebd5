"""Addresses in the MLflow UI, from its root on."""

from collections.abc import Mapping
from urllib.parse import quote

from hpsearch.errors import UserError
from hpsearch.tracking.connection import Tracking
from hpsearch.tracking.mlflow_tags import IDENTITY, KIND, SEARCH

MODE = "workflowType=machine_learning"
"""Without it MLflow opens in its mode for language models and calls runs and models otherwise."""


def runs_page(tracking: Tracking) -> str:
    """All searches, their trials folded beneath them."""
    return f"?{MODE}#/experiments/{_experiment(tracking)}/runs?{MODE}"


def trials_page(tracking: Tracking, *, metric: str = "val/mAP", search: str | None = None) -> str:
    """Learning curves of the trials of one search or all, the best ten by ``metric`` shown."""
    words = f"tags.`{KIND}` = 'trial'"
    if search is not None:
        words += f" and tags.`{SEARCH}` = '{search}'"
    rule = quote(words, safe="")
    order = quote(f"metrics.`{metric}`", safe="")
    view = f"searchFilter={rule}&orderByKey={order}&orderByAsc=false&compareRunsMode=CHART"
    return f"{runs_page(tracking)}&{view}"


def search_run(tracking: Tracking, identity: str, name: str) -> str:
    """Run id of a search.

    Raises:
        UserError: if there is no such run, or it was deleted.
    """
    rule = f"tags.`{IDENTITY}` = '{identity}' and tags.`{KIND}` = 'search'"
    found = tracking.client().search_runs([_experiment(tracking)], rule, max_results=1)
    if not found:
        raise UserError(
            f"MLflow at {tracking.shown} has no run of search {name!r}; "
            f"make it with `hpsearch sync {name}`"
        )
    return found[0].info.run_id


def view_page(tracking: Tracking, name: str) -> str:
    """The table of runs as a saved view shows it."""
    return f"{runs_page(tracking)}&viewStateShareKey={name}"


def run_page(tracking: Tracking, run: str) -> str:
    """One run: its description, numbers, charts and files."""
    return f"?{MODE}#/experiments/{_experiment(tracking)}/runs/{run}?{MODE}"


def file_pages(tracking: Tracking, run: str, paths: Mapping[str, str]) -> dict[str, str]:
    """Files of a run, under the names given, as links that work on any page of the UI."""
    (page,) = run_pages(tracking, {"": run}).values()
    return {name: f"{page}/artifacts/{path}".rstrip("/") for name, path in paths.items()}


def file_address(run: str, path: str) -> str:
    """The content of a run's file, for a picture on a page of the UI."""
    return f"get-artifact?path={quote(path, safe='')}&run_uuid={run}"


def run_pages(tracking: Tracking, run_ids: Mapping[str, str]) -> dict[str, str]:
    """Runs by what they are called, as links that work on any page of the UI."""
    experiment = _experiment(tracking)
    return {name: f"#/experiments/{experiment}/runs/{run}" for name, run in run_ids.items()}


def _experiment(tracking: Tracking) -> str:
    found = tracking.client().get_experiment_by_name(tracking.experiment)
    return found.experiment_id if found else "0"
