"""A map of collapse: which short runs the product's detector stops, over what R3 holds responsible.

Batch hard with a soft margin in every combination of distance, optimizer, rate, start, patches in a
batch and views of a point, one seed each; a cell of one map is compared with the same cell of
another, so a claim rests on as many pairs as it has cells. L2-Net of width ⅛, 40,000 patches seen.
"""

from collections.abc import Iterator
from itertools import product

from hpsearch.config import (
    SGD,
    Adam,
    BatchHard,
    Clean,
    L2Net,
    PKSampler,
    SoftMargin,
    TrialConfig,
    WarmStart,
)
from hpsearch.reporting.claims import Claim
from hpsearch.reporting.run_figures import MapFigure

DATA = "photographs"
EVALUATION = {"reports": 4, "validation_points": 8, "test_points": 25}
WIDTH, PATCHES = 0.125, 40_000
DISTANCES = ("Euclidean", "squared", "Euclidean of unit descriptors")
OPTIMIZERS = {"Adam": lambda rate: Adam(lr=rate), "SGD": lambda rate: SGD(lr=rate, momentum=0.9)}
RATES = (1e-3, 1e-2)
STARTS = ("random weights", "baseline weights")
BATCHES, VIEWS = (64, 256, 1024), (2, 4, 8)


def cell(
    distance: str, optimizer: str, rate: float, start: str, batch: int, views: int
) -> tuple[str, TrialConfig]:
    """One run, and its place on the map."""
    words = (distance, optimizer, f"{rate:.0e}", start, f"{batch} patches", f"{views} views")
    config = TrialConfig(
        input=Clean(),
        descriptor=L2Net(
            width=WIDTH, input_norm=True, bn_momentum=0.1, unit_norm="unit" in distance
        ),
        loss=BatchHard(
            margin=SoftMargin(), distance="squared" if distance == "squared" else "euclidean"
        ),
        sampler=PKSampler(groups=batch // views, views=views),
        optimizer=OPTIMIZERS[optimizer](rate),
        warm_start=WarmStart(patches=PATCHES) if start == "baseline weights" else None,
        patches=PATCHES,
        evaluate_on="clean",
    )
    return " · ".join(words), config


def runs() -> Iterator[tuple[str, TrialConfig]]:
    """All cells, those that the claims compare beside each other."""
    for rate, batch, views in product(RATES, BATCHES, VIEWS):
        for distance, optimizer, start in product(DISTANCES, OPTIMIZERS, STARTS):
            yield cell(distance, optimizer, rate, start, batch, views)


RUNS = list(runs())
CLAIMS = [
    Claim("R3-adam-sgd", "Adam collapses sooner than SGD at the same rate", "R3, collapse", "none",
          "* · Adam · *", "* · SGD · *", measure="failed"),
    Claim("R3-squared", "Squared distances collapse more than Euclidean ones", "R3, collapse",
          "none", "squared · *", "Euclidean · *", measure="failed"),
    Claim("R3-unit", "Unit norm does not save from collapse: not a tenth of the runs fewer fail",
          "R3, collapse", "none", "Euclidean of unit descriptors · *", "Euclidean · *",
          measure="failed", size=-0.1),
    Claim("R3-start", "Random weights collapse more than the baseline's", "R3, collapse", "none",
          "* · random weights · *", "* · baseline weights · *", measure="failed"),
    Claim("R3-K", "Eight views of a point collapse more than two in as large a batch",
          "R3, collapse", "none", "* · 8 views", "* · 2 views", measure="failed"),
    Claim("R3-batch", "A batch of 1024 collapses more than one of 64", "R3, collapse", "none",
          "* · 1024 patches · *", "* · 64 patches · *", measure="failed"),
    Claim("R3-rate", "Ten times the rate collapses more", "R3, collapse", "none",
          "* · 1e-02 · *", "* · 1e-03 · *", measure="failed"),
]  # fmt: skip
FIGURES = [
    MapFigure("collapse_map", "Where batch hard collapses", cells="* · * · * · * · * · *", rows=4),
]
