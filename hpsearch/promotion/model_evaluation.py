"""Loading of models and baselines, and their evaluation on test sequences."""

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol, TypeVar

import numpy as np
from torch import nn

from hpsearch.data.patch_store import PatchStore
from hpsearch.data.splits import TEST_SEQUENCES, TrialSplit
from hpsearch.defaults import BUILT_IN_MODELS, SPEC_FILE
from hpsearch.errors import UserError, list_names
from hpsearch.evaluation import Scores, Tasks, evaluate, read_tasks
from hpsearch.evaluation.descriptor_io import read_descriptors
from hpsearch.models import Pipeline
from hpsearch.models.serialization import LoadedPipeline, describe_any, load_pipeline
from hpsearch.promotion.final_evaluation import load_trained, pixel_baseline
from hpsearch.search.workspace import Workspace
from hpsearch.shapes import Float, UInt8
from hpsearch.tracking.run_state import Run
from hpsearch.training.devices import choose_device
from hpsearch.training.trial import CHECKPOINT_FILE
from hpsearch.training.validation import EvaluationSet, build_test_set
from hpsearch.untrusted import command_line, is_clutter

InputKind = Literal["noisy", "clean"]
Describe = Callable[[UInt8[np.ndarray, "n 32 32"]], Float[np.ndarray, "n d"]]


@dataclass(frozen=True, eq=False)
class EvaluatedModel:
    """Model to evaluate, as functions of patches."""

    name: str
    pipeline: Describe
    without_denoiser: Describe | None = None
    """Descriptor without the denoiser; None if the model has no denoiser."""

    def variants(self, input_kind: InputKind) -> Iterator[tuple[str, Describe]]:
        """Descriptor functions for patches of a kind, by the input of the descriptor.

        The input is ``denoised`` for noisy patches, ``clean, denoised`` for clean ones (which shows
        the loss by the denoiser without noise), and the patches themselves without a denoiser.
        """
        if self.without_denoiser is None:
            yield input_kind, self.pipeline
            return
        yield "denoised" if input_kind == "noisy" else "clean, denoised", self.pipeline
        yield input_kind, self.without_denoiser


def load_model_functions(
    ref: str, workspace: Workspace, *, uri: str | None = None
) -> EvaluatedModel:
    """Load a model as functions of patches; see ``load_pipeline_by_ref``.

    Raises:
        UserError: if there is no such model, or it is not loadable.
    """
    return from_pipeline(ref, load_pipeline_by_ref(ref, workspace, uri=uri))


def load_pipeline_by_ref(
    ref: str, workspace: Workspace, *, uri: str | None = None
) -> LoadedPipeline:
    """Load a pipeline by its reference.

    Args:
        ref: ``hpsearch-base``, ``models:/NAME@ALIAS``, ``models:/NAME/VERSION``, a folder, or
            ``SEARCH/TRIAL``.
        workspace: home with the searches.
        uri: address of MLflow.

    Raises:
        UserError: if the reference is none of these, or the model is not loadable.
    """
    if ref in BUILT_IN_MODELS:
        return load_pipeline(BUILT_IN_MODELS[ref])
    if ref.startswith("models:/"):
        try:
            tracking = workspace.tracking(uri, read_only=True)
        except UserError as error:
            raise UserError(f"{ref} could not be loaded: {error}", code=error.code) from error
        tracking.check_exists(ref)

        from hpsearch.tracking.model_artifact import load_descriptor
        from hpsearch.tracking.model_registry import configure_mlflow_logging

        configure_mlflow_logging()
        return load_descriptor(ref, tracking.uri).pipeline
    if (Path(ref) / SPEC_FILE).is_file():
        return load_pipeline(Path(ref))
    name, _, trial = ref.partition("/")
    if trial and name in workspace.searches():
        context = workspace.open(name)
        run = find_run(context.runs, trial, search=name)
        if not (context.paths.trials_dir / run.id / CHECKPOINT_FILE).exists():
            raise UserError(
                f"trial {trial} of search {name!r} has no checkpoint in "
                f"{context.paths.trials_dir}; train it again with "
                f"`{command_line('train', f'{name}/{run.label}')}`",
                code="no-checkpoint",
            )
        return load_trained(run, context).pipeline()
    raise workspace.no_such_model(ref)


def from_pipeline(name: str, pipeline: LoadedPipeline) -> EvaluatedModel:
    """Convert a pipeline, with its descriptor alone if it has a denoiser."""
    bare = None
    if isinstance(pipeline, Pipeline) and pipeline.denoiser is not None:
        bare = Pipeline(
            denoiser=None, descriptor=pipeline.descriptor, compression=pipeline.compression
        )
    return EvaluatedModel(
        name, _as_function(pipeline), None if bare is None else _as_function(bare)
    )


def classical_baselines() -> Iterator[EvaluatedModel]:
    """Classical baselines: normalized pixels, SIFT and RootSIFT."""
    from hpsearch.evaluation.baselines import root_sift, sift  # not installed on a bare worker

    yield EvaluatedModel("pixels 16×16", pixel_baseline)
    yield EvaluatedModel("SIFT", sift)
    yield EvaluatedModel("RootSIFT", root_sift)


def load_test_set(store: PatchStore, split: TrialSplit, tasks: Path | None) -> EvaluationSet:
    """Load the test sequences, with official task lists or lists sampled from the store.

    Raises:
        UserError: with file and line, if a list points outside these sequences.
    """
    if tasks is None:
        return build_test_set(store, split)
    patches = store.part(split, "test")
    lists = read_tasks(tasks, split.name, names=patches.names, counts=patches.counts)
    return EvaluationSet(patches, np.arange(len(patches)), lists)


Result = TypeVar("Result", covariant=True)


class ScoredSet(Protocol[Result]):
    """Patches with a measure of their descriptors: ``EvaluationSet`` or ``PatchPairSet``."""

    def pixels(self, *, noisy: bool) -> UInt8[np.ndarray, "n 32 32"]:
        """Patches to be described."""
        ...

    def score(self, descriptors: Float[np.ndarray, "n d"]) -> Result:
        """Scores of descriptors, one per patch."""
        ...


def evaluate_model(
    model: EvaluatedModel, test: ScoredSet[Result], input_kind: Iterable[InputKind]
) -> dict[str, Result]:
    """Evaluate a model; scores by the input of the descriptor."""
    return {
        seen: test.score(function(test.pixels(noisy=patches == "noisy")))
        for patches in input_kind
        for seen, function in model.variants(patches)
    }


def load_descriptors(
    folder: Path, *, tasks: Path, split: str
) -> tuple[dict[str, np.ndarray], Tasks]:
    """Load descriptors in the official layout, with the benchmark's task lists of a split.

    Raises:
        UserError: with file and row, if they are malformed.
    """
    found = _read_descriptors(folder, TEST_SEQUENCES.get(split))
    counts = [len(views) for views in found.values()]
    lists = read_tasks(tasks, split, names=tuple(found), counts=counts)
    if lists.all_but_last_used(counts):
        raise UserError(
            f"{folder} has one row too many in every sequence: the task lists use all rows but the "
            "last; remove the header line, or whatever else is not a descriptor"
        )
    return found, lists


def evaluate_descriptors(folder: Path, test: EvaluationSet) -> Scores:
    """Evaluate descriptors in the official layout on the test sequences of a store.

    Raises:
        UserError: with file and row, if they are malformed or not of these patches.
    """
    names = test.patches.names
    found = read_descriptors(folder, names)
    for name, count in zip(names, test.patches.counts, strict=True):
        if len(found[name]) != count:
            remedy = (
                "remove the one row too many, such as a header line"
                if len(found[name]) == count + 1
                else "describe the same patches"
            )
            raise UserError(
                f"{folder / name} has {len(found[name])} rows per view, but the sequence has "
                f"{count} points in this store; {remedy}"
            )
    return evaluate(found, test.tasks)


def _read_descriptors(folder: Path, wanted: tuple[str, ...] | None) -> dict[str, np.ndarray]:
    """Read all sequences of a folder, or those of an official split that it contains."""
    folders = (path.name for path in folder.iterdir() if path.is_dir())
    there = sorted(name for name in folders if not is_clutter(Path(name)))
    chosen = [name for name in there if wanted is None or name in wanted]
    return read_descriptors(folder, chosen or None)


def find_run(runs: list[Run], trial: str, *, search: str) -> Run:
    """Find a run of a search by its label or number.

    Raises:
        UserError: if the search has none.
    """
    number = int(trial) if re.fullmatch(r"\d{1,9}", trial) else None
    found = [
        run for run in runs if trial == run.label or (run.kind == "trial" and run.number == number)
    ]
    if not found:
        labels = list_names((run.label for run in runs), limit=8)
        raise UserError(
            f"search {search!r} has no trial {trial!r}; it has {labels or 'none yet'}",
            code="no-such-trial",
        )
    return found[0]


def _as_function(pipeline: nn.Module) -> Describe:
    where = choose_device("auto")
    pipeline.to(where)
    return lambda patches: describe_any(pipeline, patches, device=where)
