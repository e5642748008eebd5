"""Hyperparameter search for learned image-patch descriptors.

The Python API; each name is imported when it is first used::

    import hpsearch as hp

    result = hp.run_search("search_spaces/quickstart.py", trials=4)
    search = hp.open_search("quickstart")
    search.trials()
    search.promote()
    hp.load_model("patch-descriptor@champion").describe(patches)

``docs/python.md`` shows more. Every setting of a trial is here too: ``hp.TrialConfig``,
``hp.L2Net``, ``hp.HardNet`` and the rest of ``hpsearch.config``.
"""

import importlib
from typing import Any

__version__ = "0.2.0"

_EXPORTS = {
    "ASHA": "search.pruners",
    "Callback": "workflows.callbacks",
    "ConsoleObserver": "console.console_observer",
    "EvaluationRequest": "workflows.evaluate_models",
    "Fixed": "search.samplers",
    "FreezeThaw": "search.pruners",
    "GP": "search.samplers",
    "Grid": "search.samplers",
    "Hyperband": "search.pruners",
    "Median": "search.pruners",
    "NSGA2": "search.samplers",
    "Near": "search.prior_sampler",
    "NoPruner": "search.pruners",
    "Notifier": "workflows.notifications",
    "Objective": "search.objective",
    "Observer": "workflows.observer",
    "PASHA": "search.pruners",
    "Random": "search.samplers",
    "Resources": "search.resources",
    "Search": "search.search",
    "SearchHandle": "workflows.search_handle",
    "SearchOptions": "workflows.search_plan",
    "TPE": "search.samplers",
    "UserError": "errors",
    "Workspace": "search.workspace",
    "compare_searches": "workflows.compare_searches",
    "create_search": "workflows.search_handle",
    "describe_keypoints": "workflows.keypoint_descriptors",
    "describe_patches": "workflows.describe_patches",
    "dry_run": "workflows.dry_run",
    "evaluate_models": "workflows.evaluate_models",
    "extend_budget": "workflows.extend_budget",
    "extend_search": "workflows.resume_search",
    "load_model": "workflows.loaded_model",
    "match_images": "workflows.match_images",
    "open_search": "workflows.search_handle",
    "plan_promotion": "workflows.promote_search",
    "promote": "workflows.promote_search",
    "resume_search": "workflows.resume_search",
    "run_search": "workflows.run_search",
    "save_evaluation": "workflows.evaluate_models",
    "train_trial": "workflows.train_trial",
}
"""Module of this package that defines each name of the API."""


def __getattr__(name: str) -> Any:
    """Import a name of the API, or a setting of ``hpsearch.config``, when it is first used."""
    if name.startswith("_"):
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module = importlib.import_module(f"{__name__}.{_EXPORTS.get(name, 'config')}")
    if name not in _EXPORTS and name not in module.__all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(module, name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    settings = importlib.import_module(f"{__name__}.config").__all__
    return sorted({*globals(), *_EXPORTS, *settings})
