"""Links into the MLflow UI, relative to its root."""

from collections.abc import Mapping
from urllib.parse import quote

from hpsearch.errors import UserError
from hpsearch.tracking.connection import TrackingServer
from hpsearch.tracking.mlflow_mapping import table_view
from hpsearch.tracking.mlflow_tags import (
    ALL_TRIALS_VIEW,
    RUN_KIND,
    SAVED_VIEW_PREFIX,
    SEARCH_ID,
    SEARCH_NAME_TAG,
)

WORKFLOW_MODE = "workflowType=machine_learning"
"""Query parameter that selects MLflow's view for machine learning instead of language models."""
MAX_VIEWED_RUNS = 1000
"""Most trials, the latest, whose settings are columns of the table of all trials."""


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


def all_trials_view_url(tracking: TrackingServer) -> str:
    """URL of a table of the trials of all searches, with the settings that differ between them.

    The view is saved in MLflow, again at each call, since the settings are those of the trials.
    """
    client, experiment = tracking.client(), _experiment_url(tracking)
    rule = f"tags.`{RUN_KIND}` = 'trial'"
    runs = client.search_runs([experiment], rule, max_results=MAX_VIEWED_RUNS)
    names = sorted({name for run in runs for name in run.data.params})
    varying = [name for name in names if len({run.data.params.get(name) for run in runs}) > 1]
    view = table_view(rule, varying, metric="val/mAP", tags=(SEARCH_NAME_TAG,))
    client.set_experiment_tag(experiment, SAVED_VIEW_PREFIX + ALL_TRIALS_VIEW, view)
    return saved_view_url(tracking, ALL_TRIALS_VIEW)


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
