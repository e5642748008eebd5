"""The place where runs go."""

from dataclasses import dataclass, field
from pathlib import Path

from mlflow import MlflowClient
from mlflow.exceptions import MlflowException

from hpsearch.errors import UserError
from hpsearch.tracking.credentials import take_credentials, without_credentials
from hpsearch.tracking.names import artifact_location, is_server

EXPERIMENT = "hpsearch"
DATABASES = ("sqlite:", "postgres", "mysql", "mssql")


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
