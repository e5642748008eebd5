"""The ``hpsearch`` command."""

from hpsearch.cli import (  # noqa: F401  (each module adds its commands to the app)
    data,
    describe,
    ensemble,
    evaluate,
    export,
    jobs,
    promote,
    report,
    resume,
    rollback,
    search,
    sync,
    train,
    ui,
)
from hpsearch.cli.app import app, main

__all__ = ["app", "main"]
