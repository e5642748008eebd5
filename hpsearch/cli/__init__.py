"""The ``hpsearch`` command."""

from hpsearch.cli import (  # noqa: F401  (each module adds its commands to the app)
    data,
    jobs,
    models,
    pictures,
    registry,
    reproduce,
    results,
    search,
    steering,
    train,
)
from hpsearch.cli.app import app, main

__all__ = ["app", "main"]
