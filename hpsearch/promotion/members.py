"""Registered versions that are to become one model: found, and made sure that they belong together.

They must share the patches that they were trained and tested on: else what one was tested on may be
what another was trained on.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from hpsearch.data.splits import Split
from hpsearch.data.store import PatchStore
from hpsearch.errors import UserError
from hpsearch.models.pipeline import Pipeline
from hpsearch.models.serving import Recipe, load_pipeline, read_recipe
from hpsearch.search.workspace import Workspace
from hpsearch.tracking.candidate import FINGERPRINT, GIVEN, SPLIT
from hpsearch.tracking.loading import downloaded
from hpsearch.tracking.refusals import reached
from hpsearch.tracking.server import Tracking

MEMBER = re.compile(r"(?:models:/)?([^/@]+)(?:/(\d+)|@([\w-]+))")
TERMS = {FINGERPRINT: "patch set", SPLIT: "split", GIVEN: "input (noisy or clean)"}


@dataclass(frozen=True)
class Member:
    """A registered version."""

    name: str
    version: int
    tags: dict[str, str]
    recipe: Recipe
    pipeline: Pipeline

    @property
    def words(self) -> str:
        """As it is written."""
        return f"{self.name}@{self.version}"

    @property
    def given(self) -> str:
        """Which patches it was scored on: noisy or clean."""
        return self.tags.get(GIVEN) or "noisy"


def load_members(words: Sequence[str], tracking: Tracking) -> list[Member]:
    """The versions that are named, once each.

    Raises:
        UserError: if there are fewer than two, one is unknown, twice there, or an ensemble itself,
            or they were not trained and tested on the same.
    """
    if len(words) < 2:
        raise UserError("an ensemble needs at least two members; name more versions: NAME@1 NAME@3")
    members = [_member(one, tracking) for one in words]
    named = [member.words for member in members]
    twice = [name for name in named if named.count(name) > 1]
    if twice:
        raise UserError(f"{twice[0]} is named twice; name each member once")
    for tag, what in TERMS.items():
        values = [member.tags.get(tag, "") for member in members]
        for name, value in zip(named, values, strict=True):
            if value != values[0]:
                raise UserError(
                    f"{named[0]} and {name} do not share their {what} ({values[0][:16]} and "
                    f"{value[:16]}); members of an ensemble must, so name versions that do"
                )
    return members


def patches_of(
    members: Sequence[Member], workspace: Workspace, data: str | None
) -> tuple[PatchStore, Split]:
    """The patch set that the members were trained and tested on, and how it was split.

    Raises:
        UserError: if it is not known where it lies, or ``data`` is another.
    """
    tags = members[0].tags
    if data is None:
        name = tags.get("search", "")
        if name not in workspace.searches():
            raise UserError(
                f"search {name!r} of {members[0].words} is not in {workspace.home}, so its patches "
                "are not known; say with --data where they lie"
            )
        data = workspace.open(name).record.store
    store = workspace.store(data)
    if store.fingerprint != tags.get(FINGERPRINT):
        raise UserError(
            f"{store.path} is not what {members[0].words} was trained on (fingerprint "
            f"{store.fingerprint[:16]}, not {tags.get(FINGERPRINT, '')[:16]}); give its own --data"
        )
    own = store.split()
    wanted = tags.get(SPLIT) or own.name
    return store, own if own.name == wanted else store.split(wanted)


def _member(words: str, tracking: Tracking) -> Member:
    found = MEMBER.fullmatch(words)
    if found is None:
        raise UserError(f"{words!r} is no registered version; write NAME@3, or NAME@champion")
    name, number, label = found.groups()
    client = tracking.client()
    number = number or (label if label.isdigit() else None)
    address = f"models:/{name}/{number}" if number else f"models:/{name}@{label}"
    with downloaded(address, tracking.uri) as folder, reached(tracking.uri):
        if number:
            version = client.get_model_version(name, number)
        else:
            version = client.get_model_version_by_alias(name, label)
        recipe, pipeline = read_recipe(folder), load_pipeline(folder)
    if not (isinstance(recipe, Recipe) and isinstance(pipeline, Pipeline)):
        raise UserError(f"{words} is an ensemble itself; name its members instead")
    return Member(name, int(version.version), dict(version.tags), recipe, pipeline)
