"""Options of several commands."""

import re
from typing import Annotated, Any

import typer

LIMITS_PANEL, TRIALS_PANEL, NOTIFY_PANEL = "Limits", "Resources of a trial", "Notifications"
DURATION = re.compile(r"(?:(\d+(?:\.\d+)?)([smhd]))+", re.ASCII)
SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86_400}


def parse_duration(text: str | float) -> float:
    """Parse a duration such as ``90m``, ``2h``, ``1h30m`` or a number of seconds.

    Raises:
        typer.BadParameter: if it is none, or not positive; of another error's words typer would
            print the kind as well.

    Example:
        >>> parse_duration("1h30m"), parse_duration("90m"), parse_duration("45")
        (5400.0, 5400.0, 45.0)
    """
    given = str(text).strip()
    try:
        seconds = float(given)
    except ValueError:
        seconds = 0.0
        if DURATION.fullmatch(given):
            parts = re.findall(r"(\d+(?:\.\d+)?)([smhd])", given)
            seconds = sum(float(number) * SECONDS[unit] for number, unit in parts)
    if not 0 < seconds < float("inf"):
        raise typer.BadParameter(
            f"{given!r} is not a duration; give 90m, 2h, 1h30m, 1d, or a number of seconds"
        )
    return seconds


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
        parser=parse_duration,
        metavar="DURATION",
        help="Time, such as 90m, after which this session stops its trials; they can be resumed.",
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
        parser=parse_duration,
        metavar="DURATION",
        help="GPU time of all trials together, such as 20h, after which no more are started.",
        rich_help_panel=LIMITS_PANEL,
    ),
]
ReportTimeout = Annotated[
    float | None,
    typer.Option(
        parser=parse_duration,
        metavar="DURATION",
        help="Time without a report, such as 45m, after which a trial counts as hung (default: "
        "10 times the longest seen, at least 30 minutes; a day before the first report).",
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
Notify = Annotated[
    list[str] | None,
    typer.Option(
        envvar="HPSEARCH_NOTIFY",
        metavar="URL|COMMAND",
        help="Send a message as JSON at the end, a failure, a new best, a new champion, and if "
        "there is no progress; also several times.",
        rich_help_panel=NOTIFY_PANEL,
    ),
]
NotifyIdle = Annotated[
    float | None,
    typer.Option(
        parser=parse_duration,
        metavar="DURATION",
        help="Time without a report after which --notify sends a message (default: 1h).",
        rich_help_panel=NOTIFY_PANEL,
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
    """Options that are set."""
    return {name: value for name, value in options.items() if value is not None}


def to_cli_args(**options: Any) -> list[str]:
    """Options that are set, as command-line arguments."""
    named = (
        (f"--{name.replace('_', '-')}", str(value)) for name, value in drop_none(**options).items()
    )
    return [word for pair in named for word in pair]


def notifiers(targets: list[str] | None, idle: float | None) -> list[Any]:
    """Callbacks that send messages to the targets, if there are any.

    Raises:
        UserError: if a target is neither an address nor a program.
    """
    if not targets:
        return []
    from hpsearch.workflows.notifications import DEFAULT_IDLE_S, Notifier

    return [Notifier(targets, idle_seconds=idle or DEFAULT_IDLE_S)]
