"""Start of a search.

Heavy modules are imported inside ``run_search``, after all checks that do not need them.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from hpsearch.config.formatting import Flat, flatten
from hpsearch.defaults import DEFAULT_HOME
from hpsearch.locations import recorded
from hpsearch.search.search import NUM_DRAWS, Search
from hpsearch.search.search_context import SearchContext
from hpsearch.search.workspace import Workspace
from hpsearch.workflows.callbacks import Callback, with_callbacks
from hpsearch.workflows.observer import Observer, SearchResult
from hpsearch.workflows.search_plan import SearchOptions, SearchPlan, plan_search

if TYPE_CHECKING:
    from hpsearch.data.patch_store import PatchStore


def run_search(
    space: str | Path | Search,
    *,
    name: str | None = None,
    again: bool = False,
    overrides: Mapping[str, Any] = MappingProxyType({}),
    data: str | None = None,
    validation_data: str | None = None,
    test_data: str | None = None,
    split: str = "auto",
    trials: int | None = None,
    max_concurrent_trials: int | None = None,
    cpus: int | None = None,
    address: str | None = None,
    warm_start_from: str | None = None,
    study: str | None = None,
    limits: Mapping[str, Any] = MappingProxyType({}),
    resources: Mapping[str, Any] = MappingProxyType({}),
    report_timeout: float | None = None,
    wait_for_nodes: bool = False,
    model: str | None = None,
    tracking_uri: str | None = None,
    home: str | Path = DEFAULT_HOME,
    observer: Observer | None = None,
    callbacks: Sequence[Callback] = (),
) -> SearchResult:
    """Search a space, evaluate the winner on test patches, and register it.

    Args:
        space: a ``Search``, also one that is defined in a notebook, or the path of a Python file
            that exports one as ``SEARCH``. Its functions are stored with the search, which
            ``resume_search`` continues in any process of the same version of Python.
        name: name of the search; if None, that of the file, and ``search`` without a file.
        again: if a search of that name exists, name the new one ``NAME-2``, ``NAME-3`` … instead of
            raising an error.
        overrides: settings that replace those of the space, such as ``{"budget": 200_000,
            "descriptor.width": 0.5, "pruner": "none"}``; they are recorded with the search.
        data: ``mini``, ``tiny``, or the path of a patch store; the space's if None.
        validation_data: as ``data``, to validate on, apart from its test part; the space's if None,
            or else ``data``.
        test_data: as ``data``, whose test part is tested on; the space's if None, or else ``data``.
        split: which sequences train, validate and test: auto, a, b, c, illum, view, full, mini or
            seeded; of the data that is tested on.
        trials: number of trials; the space's if None.
        max_concurrent_trials: trials at once; as many as fit if None.
        cpus: CPUs that Ray may use on this machine; all if None.
        address: a running Ray cluster, ``HEAD:6379``; None starts Ray on this machine.
        warm_start_from: an earlier search whose trials the sampler learns from, or ``URL#NAME`` of
            a study of Optuna with the same parameters.
        study: database URL or ``journal:PATH`` of the Optuna study; ``$NAME`` is replaced by the
            environment variable.
        limits: fields of ``Limits``: ``seconds``, ``patches``, ``gpu_seconds``.
        resources: fields of ``Resources`` that a trial asks for, instead of the space's.
        report_timeout: seconds without a report after which a trial counts as hung.
        wait_for_nodes: request nodes from the cluster's autoscaler and wait for them.
        model: name in the MLflow registry.
        tracking_uri: address of MLflow; SQLite in ``home`` if None.
        home: folder for data, searches and MLflow's files.
        observer: receives messages and progress.
        callbacks: called as trials start, report and end; see ``hp.Callback``.

    Raises:
        UserError: if an argument, the space, the data or the cluster is not usable.
    """
    observer = with_callbacks(observer, callbacks)
    options = SearchOptions(
        name=name,
        again=again,
        overrides=overrides,
        data=data,
        validation_data=validation_data,
        test_data=test_data,
        split=split,
        trials=trials,
        max_concurrent_trials=max_concurrent_trials,
        cpus=cpus,
        address=address,
        warm_start_from=warm_start_from,
        study=study,
        limits=limits,
        resources=resources,
        report_timeout=report_timeout,
        wait_for_nodes=wait_for_nodes,
        model=model,
        tracking_uri=tracking_uri,
    )
    plan = plan_search(space, options, Workspace(Path(home)), observer)
    plan.workspace.tracking(tracking_uri).check_experiment()
    prepare_cluster(plan, observer)

    from hpsearch.workflows.search_session import run_session

    with begin_search(plan, observer) as context:
        return run_session(context, observer)


def prepare_cluster(plan: SearchPlan, observer: Observer) -> None:
    """Start or join Ray, and check that it can hold the trials of a plan.

    Raises:
        UserError: if there is no such cluster, or it cannot hold the trials.
    """
    from hpsearch.execution import ray_runtime
    from hpsearch.workflows.search_session import start_ray

    record = plan.record
    start_ray(observer, address=record.address, cpus=record.cpus)
    if not record.wait_for_nodes:
        ray_runtime.check_capacity_now(record.resources, record.max_concurrent_trials)


@contextmanager
def begin_search(plan: SearchPlan, observer: Observer) -> Iterator[SearchContext]:
    """Create the folder of a planned search, log its start, and hold it while inside.

    Raises:
        UserError: if its name was taken in the meantime.
    """
    context = plan.workspace.create(
        plan.name, plan.space, plan.record, search=plan.search, modules=plan.modules
    )
    with context.lock():
        _announce(context, plan.search, plan.store, observer)
        yield context


def _announce(
    context: SearchContext, search: Search, store: "PatchStore", observer: Observer
) -> None:
    """Log the start of the search, and report it."""
    log_search_started(context, search, store)
    observer.message(
        f"search {context.name}: {context.record.trials} trials of at most {search.budget:,} "
        f"patches on {sum(store.counts):,} points of {store.path.stem}"
    )
    parts = context.data
    for part, names in (
        ("train", parts.split.train),
        ("validation", parts.validation),
        ("test", parts.test_split.test),
    ):
        listed = " ".join(names) if len(names) < 9 else f"{len(names)} sequences"
        observer.message(f"  {part:<10} {listed}")


def log_search_started(
    context: SearchContext,
    search: Search,
    store: "PatchStore",
    *,
    tags: Mapping[str, str] = MappingProxyType({}),
) -> None:
    """Append the first event of a search to its event log.

    Args:
        context: the search.
        search: settings from its space file.
        store: patch store.
        tags: more tags for the search's MLflow run.
    """
    from hpsearch.tracking.mlflow_mapping import software_versions

    split, record = context.split, context.record
    others = {"validation_data": record.validation_store, "test_data": record.test_store}
    source, overrides = record.warm_start_from, record.overrides
    reduction = getattr(search.active_pruner, "reduction_factor", None)
    params = {
        "space": context.record.space,
        "objective": ", ".join(objective.metric for objective in search.objectives),
        "trials": context.record.trials,
        "budget": search.budget,
        "pruner": search.active_pruner.kind,
        "grace_period": search.grace_patches,
        **({} if reduction is None else {"reduction_factor": f"{reduction:g}"}),
        **({} if search.num_folds is None else {"num_folds": search.num_folds}),
        "sampler": search.sampler.kind,
        "seeds_per_point": search.seeds_per_point,
        **({} if search.patience is None else {"patience": search.patience}),
        **({"overrides": json.dumps(dict(overrides))} if overrides else {}),
        **({} if source is None else {"warm_start_from": source}),
        "seed": search.seed,
        "split": split.name,
        **{name: Path(path).stem for name, path in others.items() if path is not None},
    }
    dataset = {
        "name": store.path.stem,
        "fingerprint": store.fingerprint,
        "path": recorded(str(store.path), context.home),
        "profile": json.dumps(
            {"sequences": len(store.names), "points": sum(store.counts), "split": split.name}
        ),
    }
    context.event_log.append(
        "search",
        params=params,
        dataset=dataset,
        direction=search.objective.direction,
        constants=fixed_settings(search),
        tags={**software_versions(), **tags},
    )


def fixed_settings(search: Search, *, draws: int = NUM_DRAWS) -> dict[str, Flat]:
    """Find settings with a single value among randomly drawn configurations.

    This includes settings that follow from their variant. A rare value may be missed, so the caller
    compares each trial with the result.
    """
    seen: dict[str, set[Flat]] = {}
    for config in search.examples(draws):
        for name, value in flatten(config).items():
            seen.setdefault(name, set()).add(value)
    return {name: values.pop() for name, values in seen.items() if len(values) == 1}
