"""Model registry: versions, their aliases, and the looks at a champion."""

import json
import logging
import os
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

import mlflow
from mlflow.artifacts import download_artifacts
from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException

from hpsearch.errors import UserError
from hpsearch.evaluation import Scores
from hpsearch.schema import from_json
from hpsearch.tracking.connection import TrackingServer, configure_client
from hpsearch.tracking.decision import (
    CHALLENGER,
    CHAMPION,
    LOOKS_TAG_PREFIX,
    Alias,
    Decision,
    format_looks,
    parse_looks,
    with_look,
)
from hpsearch.tracking.mlflow_errors import (
    MlflowUnavailableError,
    is_not_found,
    translate_mlflow_errors,
)
from hpsearch.tracking.mlflow_tags import MODEL_VERSIONS
from hpsearch.tracking.model_artifact import (
    SCORES_ARTIFACT,
    ModelArtifact,
    log_model,
    truncate_description,
)
from hpsearch.untrusted import reading

MAX_HISTORY = 200
"""Maximum number of versions in a champion history."""


def parse_history(text: str) -> tuple[int, ...]:
    """Parse a champion history from its tag, ``"1 4 7"``; anything but numbers is ignored."""
    return tuple(int(word) for word in text.split() if word.isdecimal())


def reconcile_with_alias(history: tuple[int, ...], champion: int | None) -> tuple[int, ...]:
    """Adjust a history so that it ends with the present champion.

    A champion that is not in the history is appended. One that is in it was restored by a rollback,
    so the versions after it are removed.
    """
    if champion is None:
        return history
    if champion not in history:
        return (*history, champion)
    return history[: len(history) - history[::-1].index(champion)]


def append_champion(history: tuple[int, ...], version: int) -> tuple[int, ...]:
    """Append a new champion to a history."""
    return history if history[-1:] == (version,) else (*history, version)[-MAX_HISTORY:]


def previous_champion(history: tuple[int, ...], existing: frozenset[int]) -> int | None:
    """Latest existing champion before the last of a history; None if there is none."""
    return next((version for version in history[-2::-1] if version in existing), None)


NETWORK_TAG = "network"
"""Tag of a version: fingerprint of its weights; absent in versions of 0.1.0."""
NO_ALIAS = "none"
"""Value of the tag ``decision`` of a version that got no alias."""
HISTORY_TAG = "champions"
"""Tag of a registered model: its champion history, oldest first."""


def has_terms(version: ModelVersion, terms: Mapping[str, str]) -> bool:
    """Return whether a version was evaluated on these test patches, as far as its tags show.

    Args:
        version: the version.
        terms: tags that identify the test patches; one that the version lacks does not count.
    """
    return all(version.tags.get(tag, value) == value for tag, value in terms.items())


@dataclass(frozen=True, kw_only=True)
class Registry:
    """Versions of one registered model; each method raises UserError if MLflow is unreachable."""

    tracking: TrackingServer
    model: str

    def register(self, artifact: ModelArtifact, *, description: str = "") -> int:
        """Log the pipeline to its run and register it as a new version; no alias moves."""
        with self._translate_errors():
            self._point_mlflow_here()
            info = log_model(artifact)
            self._ensure_model()
            version = self._client().create_model_version(
                self.model,
                source=info.model_uri,
                run_id=artifact.run_id,
                model_id=info.model_id,
                tags=artifact.version_tags,
                description=truncate_description(description),
            )
            self._link_version(info.model_id, version)
        return int(version.version)

    def _link_version(self, model_id: str, version: ModelVersion) -> None:
        """Name a version on its logged model, as MLflow's server does, but not its database."""
        client, link = self._client(), {"name": self.model, "version": str(version.version)}
        known = json.loads(client.get_logged_model(model_id).tags.get(MODEL_VERSIONS, "[]"))
        if link not in known:
            client.set_logged_model_tags(model_id, {MODEL_VERSIONS: json.dumps([*known, link])})

    def champion(self) -> ModelVersion | None:
        """Version with the alias ``champion``; None if there is none."""
        return self.with_alias(CHAMPION)

    def with_alias(self, alias: Alias) -> ModelVersion | None:
        """Version with an alias; None if there is none."""
        with self._translate_errors():
            try:
                return self._client().get_model_version_by_alias(self.model, alias)
            except MlflowException as error:
                if is_not_found(error):
                    return None
                raise

    def versions(self) -> list[ModelVersion]:
        """List all versions, oldest first."""
        with self._translate_errors():
            found = self._client().search_model_versions(f"name = '{self.model}'")
        return sorted(found, key=lambda version: int(version.version))

    def version_of(
        self, search: str, trial: str | None = None, *, network: str | None = None
    ) -> ModelVersion | None:
        """Latest version that a search registered; None if there is none.

        Args:
            search: name of the search.
            trial: label of the trial; any if None.
            network: fingerprint of the weights, since a search of the same name may have been
                started again; any if None, and in versions without one.
        """
        asked = {"search": search, **({} if trial is None else {"trial": trial})}
        own = [version for version in self.versions() if asked.items() <= version.tags.items()]
        if network is not None:
            own = [one for one in own if one.tags.get(NETWORK_TAG, network) == network]
        return own[-1] if own else None

    def champion_is(self, number: int | None) -> bool:
        """Return whether a version is the present champion; None: whether there is none."""
        now = self.champion()
        return number == (None if now is None else int(now.version))

    def decision_on(
        self, search: str, trial: str | None = None, *, network: str | None = None
    ) -> tuple[int, Decision] | None:
        """Version that a search registered, and the decision then; None if there is none."""
        version = self.version_of(search, trial, network=network)
        if version is None or "decision" not in version.tags:
            return None
        known: Mapping[str, Alias] = {CHAMPION: CHAMPION, CHALLENGER: CHALLENGER}
        alias = known.get(version.tags["decision"])
        return int(version.version), Decision(alias, version.tags.get("reason", ""))

    def scores(self, version: ModelVersion) -> Scores:
        """Test scores of a version from its registration.

        Raises:
            UserError: if its run or its scores no longer exist.
        """
        self._point_mlflow_here()
        try:
            path = download_artifacts(run_id=version.run_id, artifact_path=SCORES_ARTIFACT)
        except (MlflowException, OSError) as error:
            raise MlflowUnavailableError(
                f"the test scores of {self.model} version {version.version} were deleted with its "
                "run; evaluate it again with `hpsearch promote SEARCH --reevaluate`",
                code="no-test-scores",
            ) from error
        remedy = "evaluate it again with `hpsearch promote SEARCH --reevaluate`"
        with reading(path, "record of test scores", remedy):
            return Scores.from_dict(from_json(Path(path).read_text("utf-8"), path))

    def scores_if_comparable(
        self, version: ModelVersion, terms: Mapping[str, str], names: Sequence[str]
    ) -> Scores | None:
        """Test scores of a version if it was evaluated on the same terms and sequences, else None.

        Args:
            version: the version.
            terms: tags that must be equal.
            names: names of the test sequences.
        """
        if not has_terms(version, terms):
            return None
        found = self.scores(version)
        return found if found.names == tuple(names) else None

    def looks(self, version: ModelVersion, test_set: str) -> dict[str, int]:
        """Looks at a version on a test set: number by the fingerprint of the network."""
        return parse_looks(version.tags.get(LOOKS_TAG_PREFIX + test_set, ""))

    def record_look(self, version: ModelVersion, test_set: str, network: str) -> int:
        """Record that a network is compared with a version, and return the number of the look.

        Args:
            version: the champion.
            test_set: identifier of the test patches, from ``identify_test_set``.
            network: fingerprint of the network; the same one again is the same look.
        """
        looks = with_look(self.looks(version, test_set), network)
        with self._translate_errors():
            tags = {LOOKS_TAG_PREFIX + test_set: format_looks(looks)}
            self._set_tags(int(version.version), tags)
        return looks[network]

    def apply(self, version: int, decision: Decision, *, description: str = "") -> None:
        """Move the alias according to a decision, and record the reason."""
        alias, previous = decision.alias, self.champion()
        tags = {"decision": alias or NO_ALIAS, "reason": decision.reason}
        tags["forced"] = str(decision.forced)
        if decision.promote and previous is not None and str(previous.version) != str(version):
            tags["champion_before"] = str(previous.version)
        with self._translate_errors():
            line = self._history()
            if alias is not None:
                self._client().set_registered_model_alias(self.model, alias, str(version))
            if alias != CHALLENGER:
                self._remove_alias(CHALLENGER, version)
            if decision.promote:
                self._write_history(append_champion(line, version))
            self._set_tags(version, tags)
            self._client().update_model_version(
                self.model, str(version), truncate_description(description or decision.reason)
            )

    def rollback(self, to: int | None = None) -> tuple[int, int | None]:
        """Restore the alias to the previous champion, or to a version.

        Returns:
            The present champion, and the one before; None if there was none.

        Raises:
            UserError: if there is no previous champion, or no such model or version.
        """
        existing = self._existing_version(to)
        champion = self.champion()
        now = None if champion is None else int(champion.version)
        with self._translate_errors():
            line = self._history()
            earlier = None if now is None else previous_champion(line, existing)
            target = earlier if to is None else to
            if target is None:
                whom = "a champion" if now is None else f"a champion before version {now}"
                raise UserError(
                    f"{self.model} never had {whom}; name one with --version",
                    code="no-earlier-champion",
                )
            self._client().set_registered_model_alias(self.model, CHAMPION, str(target))
            self._write_history(reconcile_with_alias(line, target))
            if now is not None and now != target:
                self._set_tags(now, {"rolled_back_to": str(target)})
        return target, now

    def _existing_version(self, wanted: int | None) -> frozenset[int]:
        found = frozenset(int(version.version) for version in self.versions())
        if not found:
            with self._translate_errors():
                models = [model.name for model in self._client().search_registered_models()]
            if self.model in models:
                raise UserError(
                    f"all versions of {self.model} were deleted, so none can be made champion; "
                    "register one with `hpsearch promote SEARCH`",
                    code="no-versions",
                )
            raise UserError(
                f"there is no registered model {self.model!r} at {self.tracking.display_uri}; "
                f"there are: {', '.join(models) or 'none yet'}",
                code="no-such-model",
            )
        if wanted is not None and wanted not in found:
            known = ", ".join(map(str, sorted(found)[-8:]))
            raise UserError(
                f"{self.model} has no version {wanted}; it has: {known}", code="no-such-version"
            )
        return found

    def _ensure_model(self) -> None:
        try:
            self._client().create_registered_model(self.model)
        except MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise

    def _history(self) -> tuple[int, ...]:
        """Champion history, the present champion last."""
        text = self._client().get_registered_model(self.model).tags.get(HISTORY_TAG, "")
        champion = self.champion()
        return reconcile_with_alias(
            parse_history(text), None if champion is None else int(champion.version)
        )

    def _write_history(self, history: tuple[int, ...]) -> None:
        self._client().set_registered_model_tag(
            self.model, HISTORY_TAG, " ".join(map(str, history))
        )

    def _remove_alias(self, alias: Alias, version: int) -> None:
        """Remove an alias from a version, if it has it."""
        aliases = self._client().get_registered_model(self.model).aliases
        if str(aliases.get(alias)) == str(version):
            self._client().delete_registered_model_alias(self.model, alias)

    def _set_tags(self, version: int, tags: Mapping[str, str]) -> None:
        for key, value in tags.items():
            self._client().set_model_version_tag(self.model, str(version), key, value)

    def _client(self) -> mlflow.MlflowClient:
        return self.tracking.client()

    def _point_mlflow_here(self) -> None:
        mlflow.set_tracking_uri(self.tracking.uri)
        mlflow.set_registry_uri(self.tracking.uri)

    def _translate_errors(self) -> AbstractContextManager[None]:
        return translate_mlflow_errors(self.tracking.uri)


def configure_mlflow_logging() -> None:
    """Turn off MLflow's telemetry, progress bars and database logs; shorten its retries."""
    logging.getLogger("mlflow").setLevel(logging.WARNING)
    logging.getLogger("alembic").setLevel(logging.WARNING)
    logging.getLogger("mlflow.store.db").setLevel(
        logging.CRITICAL
    )  # the caller prints a sentence instead
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")
    configure_client()
