"""The model card, and what stands on a version's page: Markdown, pure functions of facts."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import hpsearch
from hpsearch.config import Clean, Denoised, TrialConfig
from hpsearch.config.formatting import title
from hpsearch.data.arrow_header import StoreMeta
from hpsearch.evaluation import Scores
from hpsearch.evaluation.bootstrap import HEADLINES, Interval, intervals
from hpsearch.tracking.model_registry import Decision
from hpsearch.untrusted import markdown_text

LOADING = """\
```python
import mlflow

model = mlflow.pyfunc.load_model("models:/{model}/{version}")
descriptors = model.predict(patches)  # (N, 32, 32) uint8 or float32 -> (N, {dimensions}) float32
```

It needs `hpsearch=={package}` beside torch and mlflow, and runs on a CPU or a GPU. The artifact
holds settings as JSON and weights as a state dict, read with `weights_only`; no code lies in it and
none is run from it. That is also why torch and mlflow alone do not load it: MLflow would have to be
given the code with the model, and would then run whatever code an artifact holds.
"""
LIMITS = """\
- Made for grey patches of 32×32 pixels around keypoints, as in HPatches; it refuses other sizes.
- Trained {seen}; what other noise or another camera costs has not been measured.
- Scores are of {sequences} test sequences. Their intervals say how much others of the same kind
  would change them, not what photographs of another kind would do.
- Descriptors are compared by Euclidean distance, and only with others of the same version.
"""


@dataclass(frozen=True)
class Lines:
    """A table; every cell as it is shown."""

    header: tuple[str, ...]
    rows: Sequence[tuple[str, ...]]


@dataclass(frozen=True, kw_only=True)
class Facts:
    """Everything that is said of a version."""

    model: str
    search: str
    config: TrialConfig
    patches: StoreMeta
    fingerprint: str
    split: Mapping[str, Sequence[str]]
    """Sequences by part."""
    scores: Mapping[str, Scores]
    """On test: this version's first, then what it is compared with."""
    chosen_by: str
    """How the search came to this network, in a sentence."""
    trainings: Lines | None = None
    """Configurations that were trained again, with one objective a seed."""
    links: Mapping[str, str] = field(default_factory=dict)
    """Addresses in MLflow by what is there."""


def card(facts: Facts, *, version: str = "VERSION") -> str:
    """What goes with the model: data, configuration, scores, seeds, limits, how to load it."""
    config = facts.config
    trained_on = {Clean: "on clean patches", Denoised: "behind a denoiser, which is part of it"}
    seen = trained_on.get(type(config.input), "on noisy patches")
    own = next(iter(facts.scores.values()))
    loading = how_to_load(facts.model, config.descriptor.dimensions, version=version)
    limits = LIMITS.format(seen=seen, sequences=len(own.names))
    settings = f"{markdown_text(title(config))}\n\n```json\n{config.model_dump_json(indent=1)}\n```"
    parts = {
        "How to load it": loading,
        "Scores on test": f"{score_table(facts.scores)}\n\n{_how_scored(facts)}",
        "How it was chosen": _chosen(facts),
        "Data": data_lines(facts.patches, facts.fingerprint, facts.split),
        "Limits": limits,
        "Configuration": settings,
    }
    return bound(facts.model, config.descriptor.dimensions, parts)


def how_to_load(model: str, dimensions: int, *, version: str = "VERSION") -> str:
    """Lines of Python, and what they need."""
    return LOADING.format(
        model=model, version=version, dimensions=dimensions, package=hpsearch.__version__
    )


def bound(model: str, dimensions: int, parts: Mapping[str, str]) -> str:
    """A card of its parts, by their headings."""
    body = "\n\n".join(f"## {name}\n\n{text.strip()}" for name, text in parts.items())
    lead = (
        f"Turns noisy grey patches (N×32×32) into {dimensions} numbers each, so "
        "that patches of the same point lie close together."
    )
    return f"# {model}\n\n{lead}\n\n{body}\n"


def page(facts: Facts, decision: Decision) -> str:
    """What MLflow shows of the version: the decision, both tables, links; it has to be short."""
    links = " · ".join(f"[{name}]({address})" for name, address in facts.links.items())
    parts = [
        f"**{verdict(decision)}**: {markdown_text(decision.reason)}.",
        score_table(facts.scores),
        _chosen(facts),
        f"Patches: {markdown_text(facts.patches.source)}; "
        f"licence: {markdown_text(facts.patches.licence)}.",
        f"{markdown_text(title(facts.config))}, from search {markdown_text(facts.search)}.",
        links,
        "The model card lies with the model's files, in `data/pipeline/README.md`.",
    ]
    return "\n\n".join(part for part in parts if part)


def verdict(decision: Decision) -> str:
    """The alias that a decision gives, in words."""
    return "Champion" if decision.promote else "Challenger"


def score_table(scores: Mapping[str, Scores]) -> str:
    """Each mAP with its 95 % interval, one row for everything that was scored."""
    cells = ((name, *_cells(intervals(found))) for name, found in scores.items())
    return pipe_table(Lines(("mAP on test, 95 % interval", *HEADLINES[:3], "mean"), list(cells)))


def pipe_table(lines: Lines) -> str:
    """A Markdown table; the first column is text, all others numbers."""
    rule = (":--", *("--:" for _ in lines.header[1:]))
    rows = [lines.header, rule, *lines.rows]
    return "\n".join(f"| {' | '.join(_cell(cell) for cell in row)} |" for row in rows)


def _cell(words: str) -> str:
    return words if words in (":--", "--:") else markdown_text(words)


def _cells(found: Mapping[str, Interval]) -> tuple[str, ...]:
    bounds = (found[name] for name in HEADLINES)
    return tuple(f"{b.value:.3f} ({b.low:.3f}–{b.high:.3f})" for b in bounds)


def _chosen(facts: Facts) -> str:
    if facts.trainings is None:
        return facts.chosen_by
    return f"On validation, by seed:\n\n{pipe_table(facts.trainings)}\n\n{facts.chosen_by}"


def _how_scored(facts: Facts) -> str:
    given = facts.config.evaluate_on
    names = markdown_text(", ".join(facts.split.get("test", ())))
    return (
        f"Given {given} patches of sequences that neither training nor the search has read: "
        f"{names}. Intervals by bootstrap over sequences. A network is scored on test once; its "
        "scores are written down and looked up from then on."
    )


def data_lines(patches: StoreMeta, fingerprint: str, split: Mapping[str, Sequence[str]]) -> str:
    """Where the patches come from, and which sequences were for what."""
    parts = (f"- {part}: {markdown_text(', '.join(names))}" for part, names in split.items())
    return "\n".join(
        [
            f"- source: {markdown_text(patches.source)}",
            f"- licence: {markdown_text(patches.licence)}",
            f"- fingerprint: `{fingerprint}`",
            *parts,
        ]
    )
