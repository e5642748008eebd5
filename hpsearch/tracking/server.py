"""The place where runs go, and what is wrong with it in one sentence."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from mlflow import MlflowClient
from mlflow.exceptions import MlflowException

from hpsearch.errors import UserError
from hpsearch.tracking.credentials import take_credentials, without_credentials
from hpsearch.tracking.names import artifact_location, is_server

EXPERIMENT = "hpsearch"
TrackingError = MlflowException
"""What a tracking server that refuses or does not answer raises."""
DATABASES = ("sqlite:", "postgres", "mysql", "mssql")
UNAUTHORISED = re.compile(r"\b(401|403)\b|UNAUTHENTICATED|PERMISSION_DENIED|password authentic")
SILENT = re.compile(r"Connection|Max retries|timed out|resolve|Failed to establish")
TROUBLED = re.compile(r"too many (5\d\d) error responses|failed with error code (5\d\d)")
STRANGER = re.compile(r"failed with error code 4\d\d|Expecting value|JSONDecode|not.*valid JSON")
MENDING = "correct --tracking-uri or MLFLOW_TRACKING_URI"


@dataclass(frozen=True, kw_only=True)
class Tracking:
    """Where runs go."""

    uri: str = field(repr=False)
    artifacts: str | None = None
    """Artifact location for a new experiment; None lets the server decide."""
    experiment: str = EXPERIMENT

    @property
    def shown(self) -> str:
        """The address as it may be printed and written."""
        return without_credentials(self.uri)

    def client(self) -> MlflowClient:
        """A client of the tracking server and of the registry behind it."""
        return MlflowClient(tracking_uri=self.uri, registry_uri=self.uri)

    def experiment_id(self) -> str:
        """Id of the experiment, which is made if there is none."""
        client = self.client()
        found = client.get_experiment_by_name(self.experiment)
        if found is not None:
            return found.experiment_id
        try:
            return client.create_experiment(self.experiment, artifact_location=self.artifacts)
        except MlflowException:
            made = client.get_experiment_by_name(self.experiment)
            if made is None:
                raise
            return made.experiment_id  # somebody else was first


def tracking_at(uri: str, home: Path) -> Tracking:
    """MLflow at an address, with files in the home folder if it is a database.

    Raises:
        UserError: if it is no address of a server or a database.
    """
    if not (is_server(uri) or uri.startswith(DATABASES)):
        raise UserError(
            f"{without_credentials(uri)!r} is no tracking URI; write http://HOST:PORT, "
            "or a database such as sqlite:////PATH/mlflow.db"
        )
    if uri.startswith("sqlite:"):
        home.mkdir(parents=True, exist_ok=True)
    return Tracking(uri=take_credentials(uri), artifacts=artifact_location(uri, home))


@contextmanager
def answering(tracking: Tracking) -> Iterator[None]:
    """Whatever goes wrong with MLflow inside becomes a UserError that says what to do."""
    try:
        yield
    except UserError:
        raise
    except (MlflowException, OSError, ValueError, KeyError, ImportError) as error:
        raise UserError(sentence(error, tracking)) from error


def sentence(error: Exception, tracking: Tracking) -> str:
    """What is wrong with a tracking server, how to mend it, and no password."""
    said = without_credentials(" ".join(str(error).split()))
    if UNAUTHORISED.search(said):
        return (
            f"MLflow at {tracking.shown} refuses these credentials; set MLFLOW_TRACKING_USERNAME "
            "and MLFLOW_TRACKING_PASSWORD"
        )
    if isinstance(error, ImportError):
        return f"{tracking.shown} needs a database driver: {said}; install it, or {MENDING}"
    if troubled := TROUBLED.search(said):
        code = troubled[1] or troubled[2]
        return f"MLflow at {tracking.shown} answers {code} and nothing else; look into its log"
    if STRANGER.search(said) or isinstance(error, (KeyError, AttributeError, TypeError)):
        return f"what answers at {tracking.shown} is not MLflow; {MENDING}"
    if SILENT.search(said):
        return f"MLflow at {tracking.shown} does not answer; start it, or {MENDING}"
    return f"MLflow at {tracking.shown} says: {said[:300].rstrip('. ')}; {MENDING}"
