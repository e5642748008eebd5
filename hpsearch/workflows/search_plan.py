"""Plan of a search: everything that is checked before its folder is created.

Heavy modules are imported inside functions, after all checks that do not need them.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from hpsearch.config import TrialConfig, loss_stages, sampling_stages
from hpsearch.data.builtin_sets import check_exists
from hpsearch.defaults import DEFAULT_MODEL_NAME
from hpsearch.errors import UserError, list_names
from hpsearch.redaction import refuse_password
from hpsearch.search.overrides import settings_without_effect, with_overrides
from hpsearch.search.resources import Resources
from hpsearch.search.search import Search
from hpsearch.search.search_context import SearchContext
from hpsearch.search.search_data import SearchData
from hpsearch.search.space_file import (
    defined_folder,
    imported_modules,
    load_search,
    space_text,
)
from hpsearch.search.stopping import Limits
from hpsearch.search.workspace import SearchRecord, Workspace
from hpsearch.tracking.mlflow_tags import SPACE_NAME
from hpsearch.untrusted import check_name, name_from
from hpsearch.workflows.observer import Observer

if TYPE_CHECKING:
    from hpsearch.data.patch_store import Patches, PatchStore
    from hpsearch.data.splits import Part, TrialSplit

LONGEST_NAME = 80
"""Maximum length of the name of a new search."""
DEFAULT_NAME = "search"
"""Name of a search that has no file, unless another is given."""
DEFINED_IN_PYTHON = "defined in Python"
"""Entry of the record where a search has no file."""


@dataclass(frozen=True, kw_only=True)
class SearchOptions:
    """Options of a new search; see ``run_search``."""

    name: str | None = None
    again: bool = False
    overrides: Mapping[str, Any] = field(default_factory=dict)
    data: str | None = None
    validation_data: str | None = None
    test_data: str | None = None
    split: str = "auto"
    trials: int | None = None
    max_concurrent_trials: int | None = None
    cpus: int | None = None
    address: str | None = None
    warm_start_from: str | None = None
    study: str | None = None
    limits: Mapping[str, Any] = field(default_factory=dict)
    resources: Mapping[str, Any] = field(default_factory=dict)
    report_timeout: float | None = None
    wait_for_nodes: bool = False
    model: str | None = None
    tracking_uri: str | None = None


@dataclass(frozen=True, kw_only=True)
class SearchPlan:
    """New search that has passed all checks but those of the cluster; nothing of it is written."""

    workspace: Workspace
    name: str
    space: Path | str
    """Space file, or its text for a search that was defined in Python."""
    search: Search
    """Search with all overrides."""
    modules: Mapping[str, Path]
    store: "PatchStore"
    data: SearchData
    record: SearchRecord


def plan_search(
    space: str | Path | Search, options: SearchOptions, workspace: Workspace, observer: Observer
) -> SearchPlan:
    """Check a new search, and build the patches of a built-in set that it uses.

    Raises:
        UserError: if an option, the space or the data is not usable.
    """
    for option, given in (("--study", options.study), ("--address", options.address)):
        refuse_password(given, option)
    file, stated = _load(space)
    search = with_overrides(stated, options.overrides)
    search.validate_space()
    modules = imported_modules()  # with those of objects that were drawn just now
    for remark in (*search.remarks(), *_override_remarks(stated, options.overrides)):
        observer.message(remark)
    given = [
        getattr(options, part) or getattr(search, part)
        for part in ("data", "validation_data", "test_data")
    ]
    for one in filter(None, given):
        check_exists(one)
    stem = DEFAULT_NAME if isinstance(space, Search) else Path(space).stem
    name = _choose_name(workspace, stem, options.name, observer, again=options.again)
    _check_targets(workspace, options, name)
    warm_start_from = options.warm_start_from or search.warm_start_from
    earlier = _open_earlier(workspace, warm_start_from, search)
    with observer.progress("building patches") as advance:
        store, validation_store, test_store = (
            None if one is None else workspace.store(one, progress=advance) for one in given
        )
    assert store is not None, "a search always has data to train on"
    parts = SearchData.divide(
        store, options.split, validation_store=validation_store, test_store=test_store
    )
    _check_data(search, parts)
    for sentence in parts.overlaps():
        observer.message(sentence)
    if earlier:
        from hpsearch.search.warm_start import check_same_objective, difference_in_terms

        check_same_objective(earlier, search)
        other = difference_in_terms(
            earlier,
            search=search,
            fingerprint=store.fingerprint,
            is_same_split=lambda: earlier.split.name == parts.split.name,
            validation_fingerprint=validation_store and validation_store.fingerprint,
        )
        if other:
            observer.message(
                f"search {earlier.name!r} had {other}: its good points are tried as far as ranks "
                "agree, and its values are not used"
            )
    record = SearchRecord(
        space=str(file) if isinstance(file, Path) else DEFINED_IN_PYTHON,
        store=str(store.path.absolute()),
        fingerprint=store.fingerprint,
        split=options.split,
        **_other_stores(validation_store=validation_store, test_store=test_store),
        tracking_uri=workspace.tracking(options.tracking_uri).given,
        trials=search.num_trials(options.trials),
        max_concurrent_trials=options.max_concurrent_trials,
        cpus=options.cpus,
        address=options.address,
        wait_for_nodes=options.wait_for_nodes,
        study=options.study,
        warm_start_from=warm_start_from,
        report_timeout=options.report_timeout,
        space_path=str(file.absolute()) if isinstance(file, Path) else None,
        limits=Limits.model_validate({"seconds": search.time_limit, **options.limits}),
        resources=Resources.model_validate({**search.resources.model_dump(), **options.resources}),
        model=DEFAULT_MODEL_NAME if options.model is None else options.model,
        overrides=dict(options.overrides),
    )
    return SearchPlan(
        workspace=workspace, name=name, space=file, search=search, modules=modules,
        store=store, data=parts, record=record,
    )  # fmt: skip


def _load(space: str | Path | Search) -> tuple[Path | str, Search]:
    """Load a space file; write one for a search without a file, and load it as a resume will."""
    if not isinstance(space, Search):
        return Path(space), load_search(Path(space))
    text = space_text(space)
    with TemporaryDirectory() as folder:
        path = Path(folder) / SPACE_NAME
        path.write_text(text, "utf-8")
        return text, load_search(path, defined_folder(text))


def _open_earlier(workspace: Workspace, source: str | None, search: Search) -> SearchContext | None:
    """Open the search of a warm start; a study of another program is checked, and None returned."""
    if not source:
        return None
    refuse_password(source, "--warm-start-from")
    from hpsearch.search.warm_start import is_study_address, load_foreign_study

    if is_study_address(source):
        load_foreign_study(source, search)
        return None
    return workspace.open(source)


def _override_remarks(stated: Search, overrides: Mapping[str, Any]) -> list[str]:
    names = settings_without_effect(stated, overrides) if overrides else []
    if not names:
        return []
    return [
        f"the space draws {list_names(names, limit=5)}, which --set fixes: every trial has the "
        "value given, and the drawn one has no effect"
    ]


def _check_targets(workspace: Workspace, options: SearchOptions, name: str) -> None:
    """Check what the search writes to: home, MLflow, registry and study.

    Raises:
        UserError: if one cannot be used.
    """
    workspace.check_writable()
    refuse_password(workspace.tracking(options.tracking_uri).given, "--tracking-uri")
    if options.model is not None:
        check_name(options.model, "a model")
    if options.study:
        from hpsearch.search.study import check_study_name_available

        check_study_name_available(options.study, name)


def _choose_name(
    workspace: Workspace, stem: str, name: str | None, observer: Observer, *, again: bool
) -> str:
    """Choose the name of a new search.

    Raises:
        UserError: if it is taken, or can be none.
    """
    wanted = name_from(stem) if name is None else check_name(name, "a search")
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
    from hpsearch.losses import collapse_value
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
            for loss in loss_stages(config.loss):
                collapse_value(loss, sampling_stages(config.sampler)[0])  # needs its package
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
