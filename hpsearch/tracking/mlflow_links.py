"""Addresses in the MLflow UI, from its root on."""

from collections.abc import Mapping
from urllib.parse import quote

from hpsearch.errors import UserError
from hpsearch.tracking.connection import TrackingServer
from hpsearch.tracking.mlflow_tags import RUN_KIND, SEARCH_ID, SEARCH_NAME_TAG

WORKFLOW_MODE = "workflowType=machine_learning"
"""Without it MLflow opens in its mode for language models and calls runs and models otherwise."""


def runs_url(tracking: TrackingServer) -> str:
    """All searches, their trials folded beneath them."""
    return f"?{WORKFLOW_MODE}#/experiments/{_experiment_url(tracking)}/runs?{WORKFLOW_MODE}"


def trials_url(
    tracking: TrackingServer, *, metric: str = "val/mAP", search: str | None = None
) -> str:
    """Learning curves of the trials of one search or all, the best ten by ``metric`` shown."""
    words = f"tags.`{RUN_KIND}` = 'trial'"
    if search is not None:
        words += f" and tags.`{SEARCH_NAME_TAG}` = '{search}'"
    rule = quote(words, safe="")
    order = quote(f"metrics.`{metric}`", safe="")
    view = f"searchFilter={rule}&orderByKey={order}&orderByAsc=false&compareRunsMode=CHART"
    return f"{runs_url(tracking)}&{view}"


def find_search_run(tracking: TrackingServer, search_id: str, name: str) -> str:
    """Run id of a search.

    Raises:
        UserError: if there is no such run, or it was deleted.
    """
    rule = f"tags.`{SEARCH_ID}` = '{search_id}' and tags.`{RUN_KIND}` = 'search'"
    found = tracking.client().search_runs([_experiment_url(tracking)], rule, max_results=1)
    if not found:
        raise UserError(
            f"MLflow at {tracking.display_uri} has no run of search {name!r}; "
            f"make it with `hpsearch sync {name}`"
        )
    return found[0].info.run_id


def saved_view_url(tracking: TrackingServer, name: str) -> str:
    """The table of runs as a saved view shows it."""
    return f"{runs_url(tracking)}&viewStateShareKey={name}"


def run_url(tracking: TrackingServer, run: str) -> str:
    """One run: its description, numbers, charts and files."""
    return f"?{WORKFLOW_MODE}#/experiments/{_experiment_url(tracking)}/runs/{run}?{WORKFLOW_MODE}"


def file_links(tracking: TrackingServer, run: str, paths: Mapping[str, str]) -> dict[str, str]:
    """Files of a run, under the names given, as links that work on any page of the UI."""
    (page,) = run_links(tracking, {"": run}).values()
    return {name: f"{page}/artifacts/{path}".rstrip("/") for name, path in paths.items()}


def file_url(run: str, path: str) -> str:
    """The content of a run's file, for a picture on a page of the UI."""
    return f"get-artifact?path={quote(path, safe='')}&run_uuid={run}"


def run_links(tracking: TrackingServer, run_ids: Mapping[str, str]) -> dict[str, str]:
    """Runs by what they are called, as links that work on any page of the UI."""
    experiment = _experiment_url(tracking)
    return {name: f"#/experiments/{experiment}/runs/{run}" for name, run in run_ids.items()}


def _experiment_url(tracking: TrackingServer) -> str:
    found = tracking.client().get_experiment_by_name(tracking.experiment)
    return found.experiment_id if found else "0"
