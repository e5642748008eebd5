"""Addresses in the MLflow UI, from its root on."""

from collections.abc import Mapping
from urllib.parse import quote

from hpsearch.tracking.names import KIND
from hpsearch.tracking.publisher import Tracking

MODE = "workflowType=machine_learning"
"""Without it MLflow opens in its mode for language models and calls runs and models otherwise."""


def runs_page(tracking: Tracking) -> str:
    """All searches, their trials folded beneath them."""
    return f"?{MODE}#/experiments/{_experiment(tracking)}/runs?{MODE}"


def trials_page(tracking: Tracking, *, metric: str = "val/mAP") -> str:
    """Learning curves of the trials, the best ten by ``metric`` shown."""
    rule = quote(f"tags.`{KIND}` = 'trial'", safe="")
    order = quote(f"metrics.`{metric}`", safe="")
    view = f"searchFilter={rule}&orderByKey={order}&orderByAsc=false&compareRunsMode=CHART"
    return f"{runs_page(tracking)}&{view}"


def run_pages(tracking: Tracking, run_ids: Mapping[str, str]) -> dict[str, str]:
    """Runs by what they are called, as links that work on any page of the UI."""
    experiment = _experiment(tracking)
    return {name: f"#/experiments/{experiment}/runs/{run}" for name, run in run_ids.items()}


def _experiment(tracking: Tracking) -> str:
    found = tracking.client().get_experiment_by_name(tracking.experiment)
    return found.experiment_id if found else "0"
