"""Links into the MLflow UI, relative to its root."""

from collections.abc import Mapping
from urllib.parse import quote

from hpsearch.errors import UserError
from hpsearch.tracking.connection import TrackingServer
from hpsearch.tracking.mlflow_tags import RUN_KIND, SEARCH_ID, SEARCH_NAME_TAG

WORKFLOW_MODE = "workflowType=machine_learning"
"""Query parameter that selects MLflow's view for machine learning instead of language models."""


def runs_url(tracking: TrackingServer) -> str:
    """URL of all searches, with their trials as collapsed child runs."""
    return f"?{WORKFLOW_MODE}#/experiments/{_experiment_url(tracking)}/runs?{WORKFLOW_MODE}"


def trials_url(
    tracking: TrackingServer, *, metric: str = "val/mAP", search: str | None = None
) -> str:
    """URL of the learning curves of one search or all, with the ten best trials by ``metric``."""
    words = f"tags.`{RUN_KIND}` = 'trial'"
    if search is not None:
        words += f" and tags.`{SEARCH_NAME_TAG}` = '{search}'"
    rule = quote(words, safe="")
    order = quote(f"metrics.`{metric}`", safe="")
    view = f"searchFilter={rule}&orderByKey={order}&orderByAsc=false&compareRunsMode=CHART"
    return f"{runs_url(tracking)}&{view}"


def find_search_run(tracking: TrackingServer, search_id: str, name: str) -> str:
    """Find the MLflow run id of a search.

    Raises:
        UserError: if there is no such run, or it was deleted.
    """
    rule = f"tags.`{SEARCH_ID}` = '{search_id}' and tags.`{RUN_KIND}` = 'search'"
    found = tracking.client().search_runs([_experiment_url(tracking)], rule, max_results=1)
    if not found:
        raise UserError(
            f"MLflow at {tracking.display_uri} has no run of search {name!r}; "
            f"create it with `hpsearch sync {name}`"
        )
    return found[0].info.run_id


def saved_view_url(tracking: TrackingServer, name: str) -> str:
    """URL of the table of runs in a saved view."""
    return f"{runs_url(tracking)}&viewStateShareKey={name}"


def run_url(tracking: TrackingServer, run: str) -> str:
    """URL of one run: description, metrics, charts and files."""
    return f"?{WORKFLOW_MODE}#/experiments/{_experiment_url(tracking)}/runs/{run}?{WORKFLOW_MODE}"


def file_links(tracking: TrackingServer, run: str, paths: Mapping[str, str]) -> dict[str, str]:
    """Markdown links to files of a run under the given names, valid on any page of the UI."""
    (page,) = run_links(tracking, {"": run}).values()
    return {name: f"{page}/artifacts/{path}".rstrip("/") for name, path in paths.items()}


def file_url(run: str, path: str) -> str:
    """URL of the content of a run's file, for an image on a page of the UI."""
    return f"get-artifact?path={quote(path, safe='')}&run_uuid={run}"


def run_links(tracking: TrackingServer, run_ids: Mapping[str, str]) -> dict[str, str]:
    """Markdown links to runs by name, valid on any page of the UI."""
    experiment = _experiment_url(tracking)
    return {name: f"#/experiments/{experiment}/runs/{run}" for name, run in run_ids.items()}


def _experiment_url(tracking: TrackingServer) -> str:
    found = tracking.client().get_experiment_by_name(tracking.experiment)
    return found.experiment_id if found else "0"
