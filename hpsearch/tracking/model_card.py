"""Model card and version description: Markdown, as pure functions of data."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import hpsearch
from hpsearch.config import Clean, Denoised, TrialConfig
from hpsearch.config.formatting import summary
from hpsearch.data.arrow_header import StoreMeta
from hpsearch.evaluation import Scores
from hpsearch.evaluation.bootstrap import HEADLINES, Interval, format_bounds, intervals
from hpsearch.tracking.decision import Decision
from hpsearch.untrusted import markdown_text

if TYPE_CHECKING:
    from hpsearch.tracking.model_registry import Decision

LOADING_SECTION = """\
```python
import mlflow  # with MLFLOW_TRACKING_URI set to the address of this registry

model = mlflow.pyfunc.load_model("models:/{model}/{version}")
descriptors = model.predict(patches)  # (N, 32, 32) uint8 or float32 -> (N, {dimensions}) float32
```

It needs `hpsearch=={package}` in addition to torch and mlflow, and runs on a CPU or a GPU. The
artifact contains settings as JSON and weights as a state dict, read with `weights_only`, and no
code. Therefore torch and mlflow alone cannot load it: MLflow would need the code in the artifact,
and would then run whatever code an artifact contains.
"""
LIMITATIONS_SECTION = """\
- For gray patches of 32×32 pixels around keypoints, as in HPatches; other sizes are rejected.
- Trained {seen}; other noise and other cameras have not been measured.
- Scores are of {sequences} test sequences. The intervals cover the choice of sequences of the same
  kind, not photographs of another kind.
- Descriptors are compared by Euclidean distance, and only with others of the same version.
"""


@dataclass(frozen=True)
class CardTable:
    """Table of a card; cells are text."""

    header: tuple[str, ...]
    rows: Sequence[tuple[str, ...]]


@dataclass(frozen=True, kw_only=True)
class ModelCardData:
    """Data of a model card and a version description."""

    model: str
    search: str
    config: TrialConfig
    patches: StoreMeta
    fingerprint: str
    split: Mapping[str, Sequence[str]]
    """Sequence names by part of the split."""
    scores: Mapping[str, Scores]
    """Test scores by name: this version first, then what it is compared with."""
    chosen_by: str
    """Sentence about how the network was selected."""
    trainings_table: CardTable | None = None
    """Retrained configurations, with one objective per seed."""
    links: Mapping[str, str] = field(default_factory=dict)
    """MLflow addresses by label."""
    looks: str = ""
    """Sentence about the looks at the champion; empty without a comparison."""
    descriptor_dim: int = 0
    """Numbers in a descriptor of the model; 0 until the model is saved."""
    onnx: str = ""
    """Sentence about its ONNX file; empty until the model is saved."""


def render_card(data: ModelCardData, *, version: str = "VERSION") -> str:
    """Render the model card: data, configuration, scores, seeds, limits, and how to load it."""
    config = data.config
    trained_on = {Clean: "on clean patches", Denoised: "behind a denoiser, which is part of it"}
    seen = trained_on.get(type(config.input), "on noisy patches")
    own = next(iter(data.scores.values()))
    loading = how_to_load(data.model, data.descriptor_dim, version=version, onnx=data.onnx)
    limits = LIMITATIONS_SECTION.format(seen=seen, sequences=len(own.names))
    settings = (
        f"{markdown_text(summary(config))}\n\n```json\n{config.model_dump_json(indent=1)}\n```"
    )
    parts = {
        "How to load it": loading,
        "Scores on test": f"{score_table(data.scores)}\n\n{_scoring_section(data)}",
        "How it was chosen": _selection_section(data),
        "Data": dataset_section(data.patches, data.fingerprint, data.split),
        "Limits": limits,
        "Configuration": settings,
    }
    return combined_card(data.model, data.descriptor_dim, parts)


def how_to_load(
    model: str, descriptor_dim: int, *, version: str = "VERSION", onnx: str = ""
) -> str:
    """Section on how to load the model: Python code and its requirements."""
    loading = LOADING_SECTION.format(
        model=model, version=version, dimensions=descriptor_dim, package=hpsearch.__version__
    )
    return f"{loading}\n{onnx}\n" if onnx else loading


def combined_card(model: str, descriptor_dim: int, parts: Mapping[str, str]) -> str:
    """Join the sections of a card under their headings."""
    body = "\n\n".join(f"## {name}\n\n{text.strip()}" for name, text in parts.items())
    lead = (
        f"Turns noisy gray patches (N×32×32) into {descriptor_dim} numbers each, so "
        "that patches of the same point lie close together."
    )
    return f"# {model}\n\n{lead}\n\n{body}\n"


def version_description(data: ModelCardData, decision: "Decision") -> str:
    """Render the short description of a version: decision, both tables, links."""
    links = " · ".join(f"[{name}]({address})" for name, address in data.links.items())
    parts = [
        f"**{describe_decision(decision)}**: {markdown_text(decision.reason)}.",
        score_table(data.scores),
        _selection_section(data),
        f"Patches: {markdown_text(data.patches.source)}; "
        f"license: {markdown_text(data.patches.license)}.",
        f"{markdown_text(summary(data.config))}, from search {markdown_text(data.search)}.",
        links,
        "The model card is among the model's files, in `data/pipeline/README.md`.",
    ]
    return "\n\n".join(part for part in parts if part)


def describe_decision(decision: "Decision") -> str:
    """Describe the alias that a decision assigns."""
    return decision.alias.capitalize() if decision.alias else "No alias"


def score_table(named_scores: Mapping[str, Scores]) -> str:
    """Table of each mAP with its 95 % interval, one row per evaluated model."""
    cells = ((name, *_cells(intervals(found))) for name, found in named_scores.items())
    return markdown_table(
        CardTable(("mAP on test, 95 % interval", *HEADLINES[:3], "mean"), list(cells))
    )


def markdown_table(table: CardTable) -> str:
    """Render a Markdown table; the first column is text, all others are numbers."""
    rule = (":--", *("--:" for _ in table.header[1:]))
    rows = [table.header, rule, *table.rows]
    return "\n".join(f"| {' | '.join(_cell(cell) for cell in row)} |" for row in rows)


def _cell(words: str) -> str:
    return words if words in (":--", "--:") else markdown_text(words)


def _cells(found: Mapping[str, Interval]) -> tuple[str, ...]:
    return tuple(_with_bounds(found[name]) for name in HEADLINES)


def _with_bounds(found: Interval) -> str:
    bounds = format_bounds(found, ".3f", between="–")
    return f"{found.value:.3f} ({bounds})" if bounds else f"{found.value:.3f}"


def _selection_section(data: ModelCardData) -> str:
    if data.trainings_table is None:
        return data.chosen_by
    return f"On validation, by seed:\n\n{markdown_table(data.trainings_table)}\n\n{data.chosen_by}"


def _scoring_section(data: ModelCardData) -> str:
    given = data.config.evaluate_on
    names = markdown_text(", ".join(data.split.get("test", ())))
    return (
        f"Evaluated on {given} patches of sequences that neither training nor the search has read: "
        f"{names}. Intervals by jackknife over sequences, with Student's t. A network is evaluated "
        "on test once; its scores are cached and looked up from then on."
        f"{' ' if data.looks else ''}{data.looks}"
    )


def dataset_section(
    patches: StoreMeta, fingerprint: str, split: Mapping[str, Sequence[str]]
) -> str:
    """Section on the data set: source, license, and the sequences of each part."""
    parts = (f"- {part}: {markdown_text(', '.join(names))}" for part, names in split.items())
    return "\n".join(
        [
            f"- source: {markdown_text(patches.source)}",
            f"- license: {markdown_text(patches.license)}",
            f"- fingerprint: `{fingerprint}`",
            *parts,
        ]
    )
