"""Warm start from an earlier search with a compatible search space."""

from collections.abc import Callable, Iterable, Sequence

import optuna
from optuna.distributions import check_distribution_compatibility
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState, create_trial

from hpsearch.errors import UserError, list_names
from hpsearch.redaction import redacted
from hpsearch.search.grid import validate_point
from hpsearch.search.outcome import COLLAPSED
from hpsearch.search.overrides import fixed_settings
from hpsearch.search.prior_sampler import best_first
from hpsearch.search.search import Search
from hpsearch.search.search_context import SearchContext
from hpsearch.search.study import JOURNAL_PREFIX, open_storage, open_study, read_study
from hpsearch.search.trial_queue import TRANSFER_ATTR, WARM_START_ATTR, started_trials
from hpsearch.search.workspace import Workspace

NUM_DRAWS = 32
COMPARED_FIELDS = (
    *("budget", "objectives", "num_folds", "data", "validation_points", "baseline"),
    *("seeds_per_point", "constraints"),
)
"""Settings that must not change, since trials would not be comparable."""


def check_same_terms(context: SearchContext, new: Search) -> None:
    """Check that the trials of a search are comparable with those of a changed space.

    Raises:
        UserError: with the setting that must not change, or that Optuna cannot convert.
    """
    old = context.search
    for term in COMPARED_FIELDS:
        if getattr(old, term) != getattr(new, term):
            raise UserError(
                f"the new space has another {term}, so its trials are not comparable with those "
                f"of search {context.name!r}; change it back, or start a new search",
                code="incomparable-space",
            )
    new.validate_space()
    known = {}
    study = open_study(context.paths.folder, search=old, url=context.record.study)
    for trial in study.get_trials(deepcopy=False):
        known |= trial.distributions
    drawn = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=new.seed))
    for _ in range(NUM_DRAWS):
        trial = drawn.ask()
        new.suggest_config(trial)
        for name in known.keys() & trial.distributions.keys():
            try:
                check_distribution_compatibility(known[name], trial.distributions[name])
            except ValueError as error:
                raise UserError(
                    f"the new space draws {name!r} from another distribution, which "
                    "the study cannot mix; rename the parameter, or start a new search",
                    code="incompatible-parameter",
                ) from error


IMPORTED_STATES = (TrialState.COMPLETE, TrialState.PRUNED)
COPIED_ATTRS = ("outcome", "reason", "seed")


def check_same_objective(earlier: SearchContext, search: Search) -> None:
    """Check that an earlier search optimized the same metric as a new one.

    Raises:
        UserError: if it did not.
    """
    if earlier.search.objectives == search.objectives:
        return
    names = ", ".join(objective.metric for objective in earlier.search.objectives)
    raise UserError(
        f"search {earlier.name!r} had another objective ({names}), so its trials are not "
        "comparable; set the same one in the space, or omit the warm start",
        code="incomparable-search",
    )


def difference_in_terms(
    earlier: SearchContext,
    *,
    search: Search,
    fingerprint: str,
    is_same_split: Callable[[], bool],
    validation_fingerprint: str | None = None,
) -> str:
    """Phrase about why values of an earlier search are not comparable; empty if they are.

    Its ranks may still be similar, so that its good points are worth a try.

    Args:
        earlier: the earlier search.
        search: the new search.
        fingerprint: fingerprint of the new search's patches.
        is_same_split: returns whether the splits are the same; called for the same patches only.
        validation_fingerprint: fingerprint of its patches for validation, if they are others.
    """
    stated = earlier.search
    if earlier.record.fingerprint != fingerprint:
        return "other patches"
    if earlier.record.validation_fingerprint != validation_fingerprint:
        return "other patches to validate on"
    larger = stated.budget > search.budget
    if larger or (search.extra_objectives and stated.budget != search.budget):
        return f"a budget of {stated.budget:,} patches, not {search.budget:,}"
    widths = [fixed_settings(one).get("descriptor.width") for one in (stated, search)]
    if widths[0] != widths[1]:
        return "another width"
    return "" if is_same_split() else "another split"


def warm_start(context: SearchContext, earlier: SearchContext) -> tuple[int, int]:
    """Add the compatible trials of an earlier search to a study.

    Idempotent: a trial is not added twice, and none is added once the search has started.

    Returns:
        Number of compatible trials, and of all trials of the earlier search.
    """
    source = read_study(earlier.paths.folder, search=earlier.search, url=earlier.record.study)
    other = difference_in_terms(
        earlier,
        search=context.search,
        fingerprint=context.record.fingerprint,
        is_same_split=lambda: (
            earlier.record.split == context.record.split or earlier.split.name == context.split.name
        ),
        validation_fingerprint=context.record.validation_fingerprint,
    )
    budget = earlier.search.budget
    return _add_trials(context, source, earlier.name, budget=budget, by_rank=bool(other))


def start_warm(context: SearchContext) -> tuple[int, int]:
    """Add the compatible trials of the search, or of the study, that a search starts with.

    Returns:
        Number of compatible trials, and of all trials there; (0, 0) if it starts with none.

    Raises:
        UserError: if there is no such search or study.
    """
    source = context.record.warm_start_from
    if source is None:
        return 0, 0
    if is_study_address(source):
        url, _, name = source.rpartition("#")
        study = load_foreign_study(source, context.search)
        return _add_trials(context, study, f"{redacted(url)}#{name}", budget=context.search.budget)
    return warm_start(context, Workspace(context.home).open(source))


def is_study_address(source: str) -> bool:
    """Return whether a source is ``URL#NAME`` of a study of Optuna, not the name of a search."""
    return "#" in source and (source.startswith(JOURNAL_PREFIX) or "://" in source)


def load_foreign_study(source: str, search: Search) -> optuna.Study:
    """Load a study of Optuna that another program made.

    Args:
        source: ``URL#NAME``; in the URL ``$NAME`` is an environment variable.
        search: the search that starts with it.

    Raises:
        UserError: if there is none, or it has other objectives.
    """
    url, _, name = source.rpartition("#")
    storage = open_storage(url)
    names = optuna.get_all_study_names(storage)
    if name not in names:
        raise UserError(
            f"there is no study {name!r} at {redacted(url)}; there are: "
            f"{list_names(names, limit=5) or 'none'}",
            code="no-such-study",
        )
    study = optuna.load_study(study_name=name, storage=storage)
    directions = [direction.name.lower() for direction in study.directions]
    wanted = [objective.direction for objective in search.objectives]
    if directions != wanted:
        raise UserError(
            f"study {name!r} is to {' and '.join(directions)}, and the search to "
            f"{' and '.join(wanted)}, so its trials are not comparable; omit the warm start",
            code="incomparable-study",
        )
    return study


def _add_trials(
    context: SearchContext, source: optuna.Study, name: str, *, budget: int, by_rank: bool = False
) -> tuple[int, int]:
    search = context.search
    study = open_study(context.paths.folder, search=search, url=context.record.study)
    finished = [
        t for t in started_trials(source.get_trials(deepcopy=False)) if t.state in IMPORTED_STATES
    ]
    if by_rank:
        direction = source.directions[0]
        fitting = list(transferred_trials(finished, search, name, direction=direction))
    else:
        fitting = list(compatible_trials(finished, search, name, budget=budget))
    trials = study.get_trials(deepcopy=False)
    if not started_trials(trials):
        study.add_trials(fitting[sum(WARM_START_ATTR in trial.user_attrs for trial in trials) :])
    return len(fitting), len(finished)


def compatible_trials(
    trials: Iterable[FrozenTrial], search: Search, name: str, *, budget: int
) -> Iterable[FrozenTrial]:
    """Finished trials whose every value the space of ``search`` could have drawn.

    Args:
        trials: trials of the earlier search.
        search: the new search.
        name: name of the earlier search.
        budget: budget of the earlier search. If it is smaller than that of ``search``, its trials
            are added as pruned at that step.
    """
    for trial in trials:
        try:
            distributions = validate_point(search.suggest_config, trial.params, complete=True)
        except UserError:
            continue
        stopped = trial.state == TrialState.PRUNED or budget < search.budget
        state = TrialState.PRUNED if stopped and not _failed(trial) else TrialState.COMPLETE
        kept = {key: trial.user_attrs[key] for key in COPIED_ATTRS if key in trial.user_attrs}
        yield create_trial(
            state=state,
            values=trial.values,
            params=trial.params,
            distributions=distributions,
            user_attrs=kept | {WARM_START_ATTR: f"{name}/{trial.number}"},
            intermediate_values=trial.intermediate_values,
            constraints=trial.constraints,
        )


def transferred_trials(
    trials: Sequence[FrozenTrial], search: Search, name: str, *, direction: StudyDirection
) -> Iterable[FrozenTrial]:
    """Trials whose every value the space could have drawn, with their ranks instead of values.

    They have the state FAIL, so that a sampler which does not know of ranks ignores them.

    Args:
        trials: finished trials of the earlier search.
        search: the new search.
        name: name of the earlier search.
        direction: direction of its first objective.
    """
    ranked = best_first(trials, direction)
    for number, trial in enumerate(ranked):
        try:
            distributions = validate_point(search.suggest_config, trial.params, complete=True)
        except UserError:
            continue
        rank = 1 - number / max(1, len(ranked) - 1)
        yield create_trial(
            state=TrialState.FAIL,
            params=trial.params,
            distributions=distributions,
            user_attrs={WARM_START_ATTR: f"{name}/{trial.number}", TRANSFER_ATTR: rank},
        )


def _failed(trial: FrozenTrial) -> bool:
    return trial.constraints.get(COLLAPSED, 0.0) > 0
