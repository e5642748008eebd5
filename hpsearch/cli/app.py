"""Command-line application: parsing, one function call, output."""

import errno
import gc
import logging
import sys
import time
from pathlib import Path
from typing import Annotated

import typer
from pydantic import ValidationError
from typer import rich_utils

import hpsearch
from hpsearch.cli.old_words import CommandGroup
from hpsearch.console.output import COLOR_SYSTEM, err, lost_output, out, runnable, steady_output
from hpsearch.defaults import HOME_ENV
from hpsearch.errors import EXIT_INTERRUPTED, UserError, file_error_sentence
from hpsearch.execution.shutdown import install_termination_handlers
from hpsearch.locations import is_remote
from hpsearch.redaction import redacted
from hpsearch.untrusted import printable, validation_sentence

GC_THRESHOLD = 100_000
"""New objects before a garbage collection, not 700: importing MLflow takes 570 collections then."""
STARTED_AT = time.monotonic()
"""Time at which the command started."""

app = typer.Typer(
    name="hpsearch",
    cls=CommandGroup,
    help="Hyperparameter search for learned image-patch descriptors.",
    no_args_is_help=True,
    add_completion=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

READING_COMMANDS = frozenset(
    ("status", "logs", "list", "describe", "evaluate", "export", "match", "report", "compare")
) | frozenset(("show", "du", "archive", "doctor", "ui"))
"""Commands that read a home in an object store without its lease."""
STEERING_COMMANDS = frozenset(("try", "pause", "concurrency", "note", "stop", "resume"))
"""Commands that take it, or send a request to the process that holds it; all others need it."""
LIGHT_COMMANDS = (STEERING_COMMANDS - {"resume"}) | {"status", "list", "show", "doctor"}
"""Commands that need no checkpoints, patch stores and artifacts."""
JOB_COMMANDS = frozenset(("status", "logs", "list", "stop"))
"""Commands that ask a cluster, and open no home, where an address is given."""
SLURM_COMMANDS = JOB_COMMANDS | {"resume"}
"""Commands that ask Slurm, and open no home, with ``--slurm``."""


def _path_or_address(text: str | Path) -> str | Path:
    """A path, or the address of a home in an object store, which is none."""
    return text if is_remote(text) else Path(text)


def open_home_option(context: typer.Context, given: str | Path) -> Path:
    """Local folder of ``--home``; that of an address in an object store is mirrored until the end.

    Options that this depends on are eager, so that they are parsed before it.

    Raises:
        UserError: if the store refuses, or another driver uses it.
    """
    command, params = context.info_name, context.params
    if context.resilient_parsing or not is_remote(given):
        return Path(given)
    if params.get("slurm") and command in SLURM_COMMANDS and not params.get("trial"):
        return Path(given)  # the job opens it
    address = params.get("address") or ""
    if (command in JOB_COMMANDS and address) or address.startswith(("http://", "https://")):
        return Path(given)  # the cluster opens it
    from hpsearch.object_storage.home_session import Access, open_home

    access: Access = "steer" if command in STEERING_COMMANDS else "write"
    if command in READING_COMMANDS or params.get("dry_run") is True:
        access = "read"
    return context.with_resource(open_home(given, access=access, light=command in LIGHT_COMMANDS))


Home = Annotated[
    Path,
    typer.Option(
        envvar=HOME_ENV,
        parser=_path_or_address,
        callback=open_home_option,
        metavar="PATH|URL",
        help="Folder for data, searches and MLflow's files; s3://BUCKET/PREFIX for object storage.",
    ),
]
TrackingUri = Annotated[
    str | None,
    typer.Option(
        envvar="MLFLOW_TRACKING_URI", help="Address of MLflow (default: SQLite in the home folder)."
    ),
]


def main() -> None:
    """Run the command; a user error is printed as one sentence with exit code 2."""
    gc.set_threshold(GC_THRESHOLD)
    steady_output()
    install_termination_handlers()
    if COLOR_SYSTEM is None:
        rich_utils.COLOR_SYSTEM = None
    try:
        _run_app()
    except UserError as error:
        _exit_with_error(str(error))
    except ValidationError as error:
        _exit_with_error(validation_sentence(error))
    except OSError as error:
        if error.errno == errno.ENAMETOOLONG:
            name = Path(str(error.filename)).name
            _exit_with_error(f"{name[:60]}… is too long for the name of a file; shorten it")
        sentence = file_error_sentence(error)
        if sentence is None:
            raise
        _exit_with_error(sentence)
    except KeyboardInterrupt:
        err.print("interrupted")
        sys.exit(EXIT_INTERRUPTED)


def _run_app() -> None:
    """Run the command; one that succeeded but whose output could not be written has failed.

    Raises:
        UserError: if standard output could not be written, on a full disk for example.
    """
    try:
        app()
    except SystemExit as end:
        reason = "" if end.code else lost_output()
        if reason:
            raise UserError(
                f"standard output could not be written ({reason}); free some space there, or "
                "redirect it elsewhere",
                code="output-not-written",
            ) from end
        raise


def _exit_with_error(sentence: str) -> None:
    shown = runnable(printable(redacted(sentence)))
    err.print(f"error: {shown}", style="red", markup=False, soft_wrap=True)
    sys.exit(2)


@app.callback(invoke_without_command=True)
def version(
    version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False,
    log_level: Annotated[
        str,
        typer.Option(
            envvar="HPSEARCH_LOG_LEVEL",
            metavar="debug|info|warning|error",
            help="Diagnostics of this program and its libraries on standard error.",
        ),
    ] = "warning",
) -> None:
    """Hyperparameter search for learned image-patch descriptors."""
    level = logging.getLevelNamesMapping().get(log_level.upper())
    if level is None:
        raise UserError(f"--log-level is debug, info, warning or error, not {log_level!r}")
    if level != logging.WARNING:
        logging.basicConfig(level=level, format="%(levelname)s %(name)s: %(message)s")
    if version:
        out.print(hpsearch.__version__)
        raise typer.Exit
