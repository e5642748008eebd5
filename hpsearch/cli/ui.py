"""``hpsearch ui``: the MLflow pages of this folder."""

import os
import socket
import subprocess
import sys
from typing import Annotated

import typer

from hpsearch.cli.app import HOME, Home, TrackingUri, app, out
from hpsearch.errors import UserError


@app.command(rich_help_panel="Look")
def ui(
    port: Annotated[int, typer.Option(min=1, max=65535)] = 5000,
    tracking_uri: TrackingUri = None,
    home: Home = HOME,
) -> None:
    """Serve the MLflow UI on this machine only; Ctrl-C stops it.

    Example: hpsearch ui --port 5001
    """
    refuse_used_port(port)

    from hpsearch.search.workspace import Workspace
    from hpsearch.tracking.pages import runs_page, trials_page
    from hpsearch.tracking.registry import quieten_mlflow

    tracking = Workspace(home).tracking(tracking_uri)
    if tracking.uri.startswith("http"):
        out.print(f"MLflow runs at {tracking.uri}", soft_wrap=True)
        return
    quieten_mlflow()
    os.environ.setdefault("MLFLOW_SERVER_ENABLE_JOB_EXECUTION", "false")
    base = f"http://127.0.0.1:{port}/"
    out.print(f"MLflow UI: {base}{runs_page(tracking)}", soft_wrap=True)
    out.print(f"charts of the best trials: {base}{trials_page(tracking)}", soft_wrap=True)
    out.print("It is up in a few seconds; Ctrl-C stops it.")
    command = [sys.executable, "-m", "mlflow", "ui", "--backend-store-uri", tracking.uri]
    command += ["--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    if tracking.artifacts:
        command += ["--default-artifact-root", tracking.artifacts]
    try:
        raise typer.Exit(subprocess.run(command, check=False).returncode)
    except KeyboardInterrupt:
        out.print("stopped")


def refuse_used_port(port: int) -> None:
    """Make sure that a port on this machine is free.

    Raises:
        UserError: if it is in use.
    """
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError as error:
            raise UserError(f"port {port} is in use; choose another with --port") from error
