"""Whether a search can go on with another space."""

import optuna
from optuna.distributions import check_distribution_compatibility

from hpsearch.errors import UserError
from hpsearch.search.search import Search
from hpsearch.search.study import open_study
from hpsearch.search.workspace import SearchFolder

DRAWS = 32
TERMS = ("budget", "objectives", "folds", "data", "validation_points", "baseline", "seeds")
"""What must stay, or trials before and after could not be compared."""


def refuse_other_terms(folder: SearchFolder, new: Search) -> None:
    """Make sure that the trials of a search can be compared with those of a changed space.

    Raises:
        UserError: naming what must not change, or the setting that Optuna cannot carry over.
    """
    old = folder.search()
    for term in TERMS:
        if getattr(old, term) != getattr(new, term):
            raise UserError(
                f"the new space has another {term}, so its trials could not be compared with those "
                f"of search {folder.name!r}; change it back, or begin a new search"
            )
    new.rehearse()
    known = {}
    study = open_study(folder.path, search=old, url=folder.record.study)
    for trial in study.get_trials(deepcopy=False):
        known |= trial.distributions
    drawn = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=new.seed))
    for _ in range(DRAWS):
        trial = drawn.ask()
        new.draw(trial)
        for name in known.keys() & trial.distributions.keys():
            try:
                check_distribution_compatibility(known[name], trial.distributions[name])
            except ValueError as error:
                raise UserError(
                    f"the new space draws {name!r} from other choices or in another way, which "
                    "the study cannot mix; give it a new name there, or begin a new search"
                ) from error
