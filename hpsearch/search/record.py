"""What a search was started with, as it stands in its folder."""

from pathlib import Path

from pydantic import Field

from hpsearch.config.base import Setting
from hpsearch.files import write_whole
from hpsearch.search.limits import Limits
from hpsearch.search.resources import Resources
from hpsearch.tracking.credentials import without_credentials

MODEL = "patch-descriptor"
"""Name in the registry unless the user gives one."""
FILE = "search.json"


class SearchRecord(Setting):
    """What a search was started with, beside its space."""

    space: str
    store: str
    """Path of the patch store."""
    fingerprint: str
    split: str
    tracking_uri: str
    model: str = MODEL
    trials: int
    concurrent: int | None = None
    cpus: int | None = None
    address: str | None = None
    wait: bool = False
    """Whether a session asks the cluster for nodes that it needs, and waits for them."""
    origin: str | None = None
    """The space file that was copied; None if changes of it are of no interest any more."""
    limits: Limits = Limits()
    resources: Resources = Resources()
    hang_after: float | None = Field(default=None, gt=0)
    """Seconds without a report after which a trial hangs; None to judge by the others."""
    study: str | None = None
    """Storage of the study, if it is not a file in the search's folder."""
    warm_from: str | None = None
    """An earlier search that the sampler knows."""
    forgiven: int = 0
    """Trials that had ended when the search was last extended; patience is counted from there."""

    @classmethod
    def read(cls, folder: Path) -> "SearchRecord":
        """As it was last written."""
        return cls.model_validate_json((folder / FILE).read_text())

    def write(self, folder: Path) -> None:
        """Whole or not at all, and without a password."""
        kept = self.model_copy(update={"tracking_uri": without_credentials(self.tracking_uri)})
        write_whole(folder / FILE, kept.model_dump_json(indent=1))
