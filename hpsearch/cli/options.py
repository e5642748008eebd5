"""Options that several commands share."""

from typing import Annotated, Any

import typer

LIMITS_PANEL, TRIALS_PANEL = "Limits", "What a trial asks for"

SplitName = Annotated[
    str,
    typer.Option(
        help="Which sequences train, validate and test: auto, a, b, c, illum, view, full, mini or "
        "seeded."
    ),
]

MaxConcurrent = Annotated[
    int | None,
    typer.Option(
        min=1, help="Largest number of trials that run at once (default: as many as fit)."
    ),
]
Cpus = Annotated[
    int | None, typer.Option(min=1, help="CPUs that Ray may use on this machine (default: all).")
]
TimeLimit = Annotated[
    float | None,
    typer.Option(
        min=0,
        help="Seconds after which this session stops its trials; they can be resumed.",
        rich_help_panel=LIMITS_PANEL,
    ),
]
MaxPatches = Annotated[
    int | None,
    typer.Option(
        min=1,
        help="Patches seen by all trials together, after which no more are started.",
        rich_help_panel=LIMITS_PANEL,
    ),
]
GpuSeconds = Annotated[
    float | None,
    typer.Option(
        min=0,
        help="GPU seconds of all trials together, after which no more are started.",
        rich_help_panel=LIMITS_PANEL,
    ),
]
ReportTimeout = Annotated[
    float | None,
    typer.Option(
        min=1,
        help="Seconds without a report after which a trial counts as hung (default: 10 times the "
        "longest seen, at least 30 minutes; a day before the first report).",
        rich_help_panel=LIMITS_PANEL,
    ),
]
CpusPerTrial = Annotated[
    float | None,
    typer.Option(min=0, help="CPUs of a trial (default: 1).", rich_help_panel=TRIALS_PANEL),
]
GpusPerTrial = Annotated[
    float | None,
    typer.Option(
        min=0,
        help="GPUs of a trial; 0.25 lets four share one (default: what its memory allows).",
        rich_help_panel=TRIALS_PANEL,
    ),
]
TpusPerTrial = Annotated[
    int | None,
    typer.Option(
        min=0,
        help="TPU chips of a trial (default: 1, if there are any).",
        rich_help_panel=TRIALS_PANEL,
    ),
]
Device = Annotated[
    str | None,
    typer.Option(
        help="Device of a trial: cpu, cuda or xla (default: what the cluster has).",
        rich_help_panel=TRIALS_PANEL,
    ),
]
WaitForNodes = Annotated[
    bool,
    typer.Option(
        "--wait-for-nodes",
        help="Request nodes from the cluster's autoscaler (for --max-concurrent-trials trials), "
        "and wait for them.",
        rich_help_panel=TRIALS_PANEL,
    ),
]
OnSpaceChange = Annotated[
    str | None,
    typer.Option(
        metavar="keep|update",
        help="If the space's file has changed: keep what the search began with, or update it.",
    ),
]


def drop_none(**options: Any) -> dict[str, Any]:
    """Options that the user gave."""
    return {name: value for name, value in options.items() if value is not None}


def to_cli_args(**options: Any) -> list[str]:
    """Options that the user gave, as words of a command."""
    named = (
        (f"--{name.replace('_', '-')}", str(value)) for name, value in drop_none(**options).items()
    )
    return [word for pair in named for word in pair]
