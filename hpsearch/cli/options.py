"""Options of several commands."""

from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    pass

LIMITS_PANEL, TRIALS_PANEL = "Limits", "Resources of a trial"

MaxConcurrent = Annotated[int | None, typer.Option(min=1, help="Trials at once.")]
Cpus = Annotated[int | None, typer.Option(min=1, help="CPUs that Ray may use here.")]
TimeLimit = Annotated[
    float | None,
    typer.Option(min=0, help="Seconds, of this session.", rich_help_panel=LIMITS_PANEL),
]
Patches = Annotated[
    int | None, typer.Option(min=1, help="Patches over all trials.", rich_help_panel=LIMITS_PANEL)
]
GpuSeconds = Annotated[
    float | None, typer.Option(min=0, help="Over all trials.", rich_help_panel=LIMITS_PANEL)
]
ReportTimeout = Annotated[
    float | None,
    typer.Option(
        min=1,
        help="Seconds without a report; if unset, 10 times the longest seen, at least 30 minutes "
        "(a day before the first report).",
        rich_help_panel=LIMITS_PANEL,
    ),
]
CpusPerTrial = Annotated[
    float | None, typer.Option(min=0, help="1 if unset.", rich_help_panel=TRIALS_PANEL)
]
GpusPerTrial = Annotated[
    float | None,
    typer.Option(
        min=0,
        help="0.25: four share one; if unset, as many as its memory holds.",
        rich_help_panel=TRIALS_PANEL,
    ),
]
TpusPerTrial = Annotated[
    int | None,
    typer.Option(min=0, help="Chips; 1 if unset and there are any.", rich_help_panel=TRIALS_PANEL),
]
Device = Annotated[
    str | None,
    typer.Option(
        help="cpu, cuda or xla; if unset, whatever the cluster has.", rich_help_panel=TRIALS_PANEL
    ),
]
WaitForNodes = Annotated[
    bool,
    typer.Option(
        "--wait",
        help="Ask a cluster for nodes (--concurrent times what a trial asks for), and wait.",
        rich_help_panel=TRIALS_PANEL,
    ),
]
OnSpaceChange = Annotated[
    str | None,
    typer.Option(
        metavar="keep|take",
        help="The space's file has changed: keep what the search began with, or take the new one.",
    ),
]


def drop_none(**options: Any) -> dict[str, Any]:
    """Options that are set."""
    return {name: value for name, value in options.items() if value is not None}


def to_cli_args(**options: Any) -> list[str]:
    """Options that are set, as command-line arguments."""
    named = (
        (f"--{name.replace('_', '-')}", str(value)) for name, value in drop_none(**options).items()
    )
    return [word for pair in named for word in pair]
