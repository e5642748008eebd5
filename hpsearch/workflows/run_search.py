"""Start of a search.

Heavy modules are imported inside ``run_search``, after all checks that do not need them.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from hpsearch.config import TrialConfig
from hpsearch.data.builtin_sets import check_exists
from hpsearch.defaults import DEFAULT_HOME, DEFAULT_MODEL_NAME
from hpsearch.errors import UserError
from hpsearch.locations import recorded
from hpsearch.redaction import refuse_password
from hpsearch.search.resources import Resources
from hpsearch.search.search import Search, fixed_settings
from hpsearch.search.search_context import SearchContext
from hpsearch.search.search_data import SearchData
from hpsearch.search.space_file import imported_modules, load_search
from hpsearch.search.stopping import Limits
from hpsearch.search.workspace import SearchRecord, Workspace
from hpsearch.untrusted import check_name, name_from
from hpsearch.workflows.observer import Observer, SearchResult

if TYPE_CHECKING:
    from hpsearch.data.patch_store import Patches, PatchStore
    from hpsearch.data.splits import Part, TrialSplit

LONGEST_NAME = 80
"""Maximum length of the name of a new search."""


def run_search(
    space: str | Path,
    *,
    name: str | None = None,
    again: bool = False,
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
) -> SearchResult:
    """Search a space, evaluate the winner on test patches, and register it.

    Args:
        space: a Python file that exports ``SEARCH``.
        name: name of the search; that of the file if None.
        again: if a search of that name exists, name the new one ``NAME-2``, ``NAME-3`` … instead of
            raising an error.
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
        warm_start_from: an earlier search whose trials the sampler learns from.
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

    Raises:
        UserError: if an argument, the space, the data or the cluster is not usable.
    """
    observer, space = observer or Observer(), Path(space)
    for option, given in (("--study", study), ("--address", address)):
        refuse_password(given, option)
    search = load_search(space)
    search.validate_space()
    modules = imported_modules()
    for remark in search.remarks():
        observer.message(remark)
    data, validation_data = data or search.data, validation_data or search.validation_data
    test_data = test_data or search.test_data
    for given in filter(None, (data, validation_data, test_data)):
        check_exists(given)
    workspace = Workspace(Path(home))
    chosen = _choose_name(workspace, space, name, observer, again=again)

    workspace.check_writable()
    tracking = workspace.tracking(tracking_uri)
    refuse_password(tracking.given, "--tracking-uri")
    if model is not None:
        check_name(model, "a model")
    warm_start_from = warm_start_from or search.warm_start_from
    earlier = workspace.open(warm_start_from) if warm_start_from else None
    if study:
        from hpsearch.search.study import check_study_name_available

        check_study_name_available(study, chosen)
    with observer.progress("building patches") as advance:
        store, validation_store, test_store = (
            None if one is None else workspace.store(one, progress=advance)
            for one in (data, validation_data, test_data)
        )
    assert store is not None, "a search always has data to train on"
    parts = SearchData.divide(
        store, split, validation_store=validation_store, test_store=test_store
    )
    _check_data(search, parts)
    for sentence in parts.overlaps():
        observer.message(sentence)
    if earlier:
        from hpsearch.search.warm_start import check_comparable

        check_comparable(
            earlier,
            search=search,
            fingerprint=store.fingerprint,
            split=parts.split.name,
            validation_fingerprint=validation_store and validation_store.fingerprint,
        )
    record = SearchRecord(
        space=str(space),
        store=str(store.path.absolute()),
        fingerprint=store.fingerprint,
        split=split,
        **_other_stores(validation_store=validation_store, test_store=test_store),
        tracking_uri=tracking.given,
        trials=search.num_trials(trials),
        max_concurrent_trials=max_concurrent_trials,
        cpus=cpus,
        address=address,
        wait_for_nodes=wait_for_nodes,
        study=study,
        warm_start_from=warm_start_from,
        report_timeout=report_timeout,
        space_path=str(space.absolute()),
        limits=Limits.model_validate({"seconds": search.time_limit, **limits}),
        resources=Resources.model_validate({**search.resources.model_dump(), **resources}),
        model=DEFAULT_MODEL_NAME if model is None else model,
    )

    from hpsearch.execution import ray_runtime
    from hpsearch.workflows.search_session import run_session, start_ray

    tracking.check_experiment()
    start_ray(observer, address=address, cpus=cpus)
    if not wait_for_nodes:
        ray_runtime.check_capacity_now(record.resources, max_concurrent_trials)
    context = workspace.create(chosen, space, record, search=search, modules=modules)
    with context.lock():
        _announce(context, search, store, observer)
        return run_session(context, observer)


def _choose_name(
    workspace: Workspace, space: Path, name: str | None, observer: Observer, *, again: bool
) -> str:
    """Choose the name of a new search.

    Raises:
        UserError: if it is taken, or can be none.
    """
    wanted = name_from(space.stem) if name is None else check_name(name, "a search")
    if len(wanted) > LONGEST_NAME:
        raise UserError(
            f"the name {wanted[:30]}… has {len(wanted)} characters; use at most {LONGEST_NAME}, "
            "since the promotion of a search has a longer name",
            code="name-too-long",
        )
    chosen = workspace.unique_name(wanted) if again else wanted
    workspace.check_name_available(chosen)
    if chosen != wanted:
        observer.message(f"a search {wanted!r} exists already; this one is {chosen!r}")
    return chosen


def _other_stores(**stores: "PatchStore | None") -> dict[str, Any]:
    """Fields of a record for stores that are not the one that is trained on."""
    return {
        field: value
        for name, store in stores.items()
        if store is not None
        for field, value in (
            (name, str(store.path.absolute())),
            (name.replace("_store", "_fingerprint"), store.fingerprint),
        )
    }


def _check_data(search: Search, data: SearchData) -> None:
    """Check that there are enough sequences and points to train, validate and test trials.

    Raises:
        UserError: if no trial could be trained or evaluated on these patches.
    """
    from hpsearch.data.splits import folds

    if search.num_folds and data.validation_store is not data.store:
        raise UserError(
            "num_folds validates on the training sequences in turn; omit --validation-data",
            code="folds-with-validation-data",
        )
    data.check(search.objectives)
    store, whole, points = data.store, data.split, search.validation_points
    for one in folds(whole, search.num_folds) if search.num_folds else [whole]:
        held_out = store.part(one, "validation") if search.num_folds else data.validation_patches()
        _check_part(held_out, whole, "validation", points)
        _check_batches(search, store.part(one, "train"))
    _check_part(data.test_patches(), data.test_split, "test", points)


def _check_part(patches: "Patches", split: "TrialSplit", part: "Part", points: int) -> None:
    """Check that scores can be computed on a part of a split."""
    from hpsearch.training.validation import validation_set

    try:
        validation_set(patches, points=points)
    except UserError as error:
        names = ", ".join(patches.names)
        raise UserError(
            f"the {part} part of split {split.name!r} is too small ({names}): {error}; choose "
            "another --split, or data with more sequences",
            code="part-too-small",
        ) from error


def _check_batches(search: Search, train: "Patches") -> None:
    """Check that the baseline and one configuration of the space get their batches."""
    from hpsearch.data.samplers import rng_for, sample
    from hpsearch.training.batch_schedule import current_sampler

    def problem(config: TrialConfig) -> str:
        try:
            for progress in (0.0, 0.99):  # a curriculum changes in between
                rng = rng_for(0, "batch", 0)
                sampler = current_sampler(config.sampler, share=progress)
                sample(
                    sampler,
                    train.sequence_of,
                    rng,
                    progress=progress,
                    first_rows=train.first_rows,
                )
        except UserError as error:
            return str(error)
        return ""

    problems = [problem(config) for config in search.examples()]
    baseline = problem(search.baseline)
    if baseline or all(problems):
        what = "the baseline" if baseline else "any configuration of the space"
        raise UserError(
            f"{', '.join(train.names)} cannot train {what}: {baseline or problems[0]}",
            code="too-few-points",
        )


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
    source = context.record.warm_start_from
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
