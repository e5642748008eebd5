"""After a driver died between two of its books: the study and the ledger agree again."""

from optuna.trial import FrozenTrial, TrialState

from hpsearch.running.optuna_bridge import OUTCOME, trial_name
from hpsearch.search.points import WARM, begun
from hpsearch.search.study import open_study
from hpsearch.search.workspace import SearchFolder


def reconcile(folder: SearchFolder) -> None:
    """End in the ledger what has ended in the study.

    The study is told first, so it is the ledger that may lack an end.
    """
    runs = {run.id: run for run in folder.runs()}
    study = open_study(folder.path, search=folder.search(), url=folder.record.study)
    trials = study.get_trials(deepcopy=False)
    first = sum(WARM in trial.user_attrs for trial in trials)
    for trial in begun(trials):
        run = runs.get(trial_name(trial.number - first))
        if run and trial.state.is_finished() and run.status in ("running", "interrupted"):
            folder.ledger.append("end", trial=run.id, **_ending(trial))


def _ending(trial: FrozenTrial) -> dict[str, str]:
    if trial.state == TrialState.FAIL:
        return {"status": "failed", "reason": "the driver died before it could say why"}
    attributes = trial.user_attrs
    return {"status": attributes[OUTCOME], "reason": attributes.get("reason", "")}
