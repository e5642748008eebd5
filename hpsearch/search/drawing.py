"""A configuration out of what the user wrote, and what is wrong with it in one sentence."""

import traceback
from collections.abc import Callable
from pathlib import Path

import optuna

from hpsearch.config import TrialConfig
from hpsearch.errors import UserError


def drawn(
    suggest: Callable[[optuna.Trial], TrialConfig], trial: optuna.Trial, *, budget: int
) -> TrialConfig:
    """What ``suggest`` gives, checked to be what a search can use.

    Raises:
        UserError: if ``suggest`` raises, returns something else, or disagrees on the budget.
    """
    try:
        config = suggest(trial)
    except UserError:
        raise
    except Exception as error:
        where = traceback.extract_tb(error.__traceback__)[-1]
        raise UserError(
            f"suggest raised {type(error).__name__} at {Path(where.filename).name}:"
            f"{where.lineno} ({first_line(error)}); mend the space and run it again"
        ) from error
    if not isinstance(config, TrialConfig):
        raise UserError(f"suggest must return a TrialConfig, but returned {type(config).__name__}")
    if config.patches != budget:
        raise UserError(
            f"suggest set patches={config.patches}, but the search's budget is {budget}; "
            "pass patches=BUDGET in suggest so that every trial costs the same"
        )
    return config


def first_line(error: BaseException) -> str:
    """What an error says, in one line."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return " ".join(lines[:3]) if lines else "no message"
