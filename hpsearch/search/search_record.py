"""The record of a search: what it was started with, in ``search.json``."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, ClassVar

from pydantic import Field

from hpsearch.atomic_files import write_atomic
from hpsearch.config.base import FrozenConfig
from hpsearch.defaults import DEFAULT_MODEL_NAME
from hpsearch.locations import located, moved, recorded
from hpsearch.redaction import redacted
from hpsearch.schema import KEY, parsed, to_json, unstamped
from hpsearch.search.resources import Resources
from hpsearch.search.stopping import Limits
from hpsearch.tracking.mlflow_tags import default_uri, is_server
from hpsearch.tracking.relocation import former_homes
from hpsearch.untrusted import reading

RECORD_FILE = "search.json"
PLAN_FILE = "plan.json"
"""In the folder of a promotion: its retraining plan."""
PROMOTION_OF = "promotion of "
"""Beginning of the space of a promotion; the name of the promoted search follows."""
ADDRESSES = ("store", "validation_store", "test_store", "tracking_uri", "study", "space_path")
"""Fields that are recorded relative to the home, where they lie inside."""


class SearchRecord(FrozenConfig):
    """Options of a search when it was started, apart from its space."""

    former_names: ClassVar[Mapping[str, str]] = {
        "max_concurrent_trials": "concurrent",
        "wait_for_nodes": "wait",
        "space_path": "origin",
        "report_timeout": "hang_after",
        "warm_start_from": "warm_from",
        "patience_offset": "forgiven",
    }

    space: str
    store: str
    """Path of the patch store."""
    fingerprint: str
    validation_store: str | None = None
    """Path of the patch store for validation; None for ``store``."""
    validation_fingerprint: str | None = None
    test_store: str | None = None
    """Path of the patch store for testing; None for ``store``."""
    test_fingerprint: str | None = None
    split: str
    tracking_uri: str
    model: str = DEFAULT_MODEL_NAME
    trials: int
    max_concurrent_trials: int | None = None
    cpus: int | None = None
    address: str | None = None
    wait_for_nodes: bool = False
    """True if a session requests the nodes that it needs, and waits for them."""
    space_path: str | None = None
    """The space file that was copied; None if changes of it are of no interest any more."""
    limits: Limits = Limits()
    resources: Resources = Resources()
    report_timeout: float | None = Field(default=None, gt=0)
    """Seconds without a report after which a trial hangs; None to judge by the others."""
    study: str | None = None
    """Storage of the study, if it is not a file in the search's folder."""
    study_name: str | None = None
    """Name of the study in its storage, which stays when the folder is renamed; None in records of
    earlier versions."""
    warm_start_from: str | None = None
    """An earlier search that the sampler knows."""
    overrides: Mapping[str, Any] = Field(default_factory=dict)
    """Settings that replace those of the space, by name (see ``search/overrides.py``)."""
    patience_offset: int = 0
    """Trials that had ended when the search was last extended; patience is counted from there."""

    @property
    def promoted_search(self) -> str | None:
        """Name of the search that this one promotes; None if it is no promotion."""
        is_promotion = self.space.startswith(PROMOTION_OF)
        return self.space.removeprefix(PROMOTION_OF) if is_promotion else None

    def addresses(self) -> dict[str, str | None]:
        """Addresses in the record, by the option that gives them."""
        return {
            "--study": self.study,
            "--tracking-uri": self.tracking_uri,
            "--address": self.address,
            "--warm-start-from": self.warm_start_from,
            "--data": self.store,
        }

    @classmethod
    def read(cls, folder: Path) -> "SearchRecord":
        """As it was last written, with addresses as they are where its home lies now.

        Raises:
            UserError: if it is damaged, or a newer hpsearch wrote it.
        """
        path = folder / RECORD_FILE
        with reading(path, "record of a search", "restore it from a copy"):
            content = parsed(path.read_text("utf-8"), path)
            record = cls.model_validate(unstamped(content, path))
        home = folder.absolute().parents[1]
        if KEY in content:
            return record._with_addresses(lambda address: located(address, home))
        former = record._former_homes(home)
        return record._with_addresses(lambda address: moved(address, home, former))

    def write(self, folder: Path) -> None:
        """Whole or not at all, for its owner alone, without a password.

        What lies inside its home is recorded relative to it.
        """
        kept = self.model_copy(update={"tracking_uri": redacted(self.tracking_uri)})
        home = folder.absolute().parents[1]
        kept = kept._with_addresses(lambda address: recorded(address, home))
        unused = set() if self.overrides else {"overrides"}  # which earlier versions do not know
        content = kept.model_dump(mode="json", exclude=unused)
        write_atomic(folder / RECORD_FILE, to_json(content, indent=1), private=True)

    def _with_addresses(self, change: Callable[[str], str]) -> "SearchRecord":
        addresses = {name: getattr(self, name) for name in ADDRESSES}
        return self.model_copy(
            update={
                name: change(address)
                for name, address in addresses.items()
                if address and not is_server(address)
            }
        )

    def _former_homes(self, home: Path) -> tuple[Path, ...]:
        """Former paths of the home, from MLflow's database, else from this record."""
        data = Path(self.store).parent
        own = (home / data.name / Path(self.store).name).is_file()
        known = own and self.tracking_uri == default_uri(data.parent)
        return (*former_homes(home), *((data.parent,) if known else ()))
