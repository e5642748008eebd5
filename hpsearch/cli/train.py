"""Command that trains one trial on this machine: ``hpsearch train``."""

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from hpsearch.cli.app import Home, app
from hpsearch.cli.completion import complete_trials
from hpsearch.cli.options import (
    drop_none,
)
from hpsearch.console.output import print_plain
from hpsearch.defaults import DEFAULT_HOME
from hpsearch.errors import UserError

if TYPE_CHECKING:
    from hpsearch.config import TrialConfig
from hpsearch.cli.search import console_observer


@app.command(rich_help_panel="Search")
def train(
    trial: Annotated[
        str | None,
        typer.Argument(
            help="SEARCH/TRIAL, to repeat it, or a TrialConfig as JSON.",
            autocompletion=complete_trials,
        ),
    ] = None,
    recipe: Annotated[
        str | None,
        typer.Option(
            help="Instead of a trial, the training of a paper or report: hardnet, hardnet-plus, "
            "hynet, sosnet, baseline, r1, r2 or r3."
        ),
    ] = None,
    patches: Annotated[
        int | None,
        typer.Option(
            min=1, help="Patches seen in the training of a recipe (default: as its source states)."
        ),
    ] = None,
    space: Annotated[
        Path | None,
        typer.Option(
            help="Space file that defines the own objects of a trial as JSON, itself or in modules "
            "next to it."
        ),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="Folder for the checkpoint and the model."),
    ] = None,
    data: Annotated[
        str | None,
        typer.Option(help="Patches: mini, tiny, or the path of a store (default: mini)."),
    ] = None,
    validation_data: Annotated[
        str | None,
        typer.Option(
            help="Other patches to validate on, apart from their test part; the validation part of "
            "--data is then trained on."
        ),
    ] = None,
    split: Annotated[
        str | None,
        typer.Option(
            help="Which sequences train, validate and test: auto, a, b, c, illum, view, full, "
            "mini or seeded. Default: auto."
        ),
    ] = None,
    sequences: Annotated[
        str | None,
        typer.Option(help="Sequences to train on, separated by commas (default: all that train)."),
    ] = None,
    validation_points: Annotated[
        int | None,
        typer.Option(min=1, help="Points of each validation sequence (default: 64)."),
    ] = None,
    threads: Annotated[
        int | None,
        typer.Option(
            min=1, help="Threads of the CPU (default: as a trial's worker, 1 for each of its CPUs)."
        ),
    ] = None,
    device: Annotated[
        str | None, typer.Option(help="Device: auto, cpu, cuda or xla (default: auto).")
    ] = None,
    precision: Annotated[
        str | None,
        typer.Option(
            help="Numbers that convolutions compute in while training: auto, float32 or bfloat16 "
            "(default: auto)."
        ),
    ] = None,
    compile_: Annotated[
        bool,
        typer.Option("--compile", help="Use torch.compile, which is worth it for long budgets."),
    ] = False,
    deterministic: Annotated[
        bool,
        typer.Option(
            "--deterministic", help="Refuse operations whose results vary from run to run."
        ),
    ] = False,
    home: Home = DEFAULT_HOME,
) -> None:
    """Train one trial on this machine without Ray.

    SEARCH/TRIAL takes data, split, folds, validation points, threads, device and precision from
    the search, so that the trial repeats to the last bit on a machine of the same kind. The JSON
    in a trial's MLflow run holds none of these: give them as options.

    A trial as JSON that names a loss or another object of your own imports nothing by itself: give
    the space file that defines it with --space.

    A recipe is trained as its source states; what the source leaves open is printed.

    Run again with the same --output, it resumes from its checkpoint.

    Example: hpsearch train quickstart/3 --output runs/trained
    """
    from hpsearch.atomic_files import check_target_folder
    from hpsearch.search.workspace import Workspace
    from hpsearch.workflows import train_trial as workflow

    if (trial is None) == (recipe is None):
        raise UserError(
            "give one of TRIAL and --recipe: SEARCH/TRIAL, a TrialConfig as JSON, or a name",
            code="trial-or-recipe",
        )
    if patches is not None and recipe is None:
        raise UserError(
            "--patches is for a recipe; the budget of a trial is part of it",
            code="patches-without-recipe",
        )
    workspace, recorded = Workspace(home), None
    is_json = trial is not None and (
        Path(trial).is_file() or trial.partition("/")[0] not in workspace.searches()
    )
    if space is not None and not is_json:
        raise UserError(
            "--space is for a trial as JSON; a search has its own copy of its space, and a recipe "
            "needs none",
            code="space-not-needed",
        )
    workspace.check_writable()
    if output is not None:
        check_target_folder(output, "--output")
    settings = drop_none(
        data=data,
        validation_data=validation_data,
        split=split,
        sequences=sequences,
        validation_points=validation_points,
        precision=precision,
        compile=compile_ or None,
        deterministic=deterministic or None,
    )
    name, observer = trial or recipe or "", console_observer()
    environment = {"device": device or "auto", **settings}
    if recipe is not None:
        config = _config_of_recipe(recipe, patches)
        job = workflow.environment_of(config, workspace, environment, observer)
    elif not is_json:
        from hpsearch.workflows.recorded_trial import recorded_trial

        refuse_settings_of_search(name, settings)
        recorded = recorded_trial(name, workspace)
        config, job = recorded.run.config, recorded.environment(device)
    else:
        config = workflow.read_config(Path(name), space)
        job = workflow.environment_of(config, workspace, environment, observer)
        print_plain(
            "The JSON holds the trial's settings alone; data, split, validation points, threads "
            "and precision are options. To repeat a trial:  hpsearch train SEARCH/TRIAL"
        )
    folder = output or home / "trained" / (Path(name).stem if recorded is None else name)
    workflow.train_trial(
        config,
        job,
        folder,
        threads=threads or (1 if recorded is None else recorded.threads),
        recorded=recorded,
        observer=observer,
    )
    evaluate = shlex.join(["hpsearch", "evaluate", str(folder), "--data", str(job.store.path)])
    print_plain(f"saved {folder}; evaluate it with:  {evaluate}")


def _config_of_recipe(name: str, patches: int | None) -> "TrialConfig":
    """Trial of a recipe, whose source and open points are printed."""
    from hpsearch.recipes import recipe

    found = recipe(name)
    print_plain(f"{name}: {found.source}\nPublished: {found.published}")
    for point in found.open:
        print_plain(f"- {point}")
    return found.config.model_copy(update={} if patches is None else {"patches": patches})


def refuse_settings_of_search(trial: str, settings: dict[str, Any]) -> None:
    """Refuse options that would make a repeated trial another one.

    Raises:
        UserError: naming the first.
    """
    for name in settings:
        raise UserError(
            f"--{name.replace('_', '-')} of {trial} is that of its search; leave it out, or give "
            "the trial's config.json from MLflow instead",
            code="setting-of-search",
        )
