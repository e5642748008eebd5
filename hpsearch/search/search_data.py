"""Patches that a search trains, validates and tests on, of one store or of several."""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from hpsearch.data.patch_store import Patches, PatchStore
from hpsearch.data.splits import TEST_SHARE, VALIDATION_SHARE, Part, TrialSplit
from hpsearch.errors import UserError, list_names
from hpsearch.search.objective import PAIR_METRICS, Objective

MAX_COMPARED_POINTS = 50_000
"""Points of each part whose first patches are compared to find overlaps."""


@dataclass(frozen=True)
class SearchData:
    """Parts of the data of a search, each with its store.

    A search trains, validates and tests on the sequences of one store, unless others are named.
    A store for testing is used for its test part alone, and a store for validation without it, so
    that one store may serve for both.
    """

    store: PatchStore
    """Store that trials are trained on."""
    split: TrialSplit
    """Its sequences by part; a part that another store serves for is empty."""
    validation_store: PatchStore
    validation: tuple[str, ...]
    """Sequences of ``validation_store`` that trials are validated on."""
    test_store: PatchStore
    test_split: TrialSplit
    """Split of ``test_store`` whose test part is used."""

    @classmethod
    def divide(
        cls,
        store: PatchStore,
        split: str,
        *,
        validation_store: PatchStore | None = None,
        test_store: PatchStore | None = None,
    ) -> "SearchData":
        """Divide the sequences of the stores.

        Args:
            store: store to train on.
            split: name of the split of the store that is tested on.
            validation_store: store to validate on; None for ``store``.
            test_store: store to test on; None for ``store``.

        Raises:
            UserError: if a split does not apply, or nothing is left for a part.
        """
        if validation_store is not None and _is_same(validation_store, store):
            validation_store = None  # its own validation part, which is not trained on
        if test_store is not None and _is_same(test_store, store):
            test_store = None
        train_split = store.split(
            split if test_store is None else "auto",
            validation_share=VALIDATION_SHARE if validation_store is None else 0.0,
            test_share=TEST_SHARE if test_store is None else 0.0,
        )
        test_split = train_split if test_store is None else _test_split(test_store, split)
        validation = train_split.validation
        if validation_store is not None:
            is_tested = test_store is not None and _is_same(validation_store, test_store)
            other = validation_store.split(split if is_tested else "auto", test_share=0.0)
            other = test_split if is_tested else other
            validation = (*other.train, *other.validation)
            if not validation:
                raise UserError(
                    f"every sequence of {validation_store.path} is in the test part of its split "
                    f"{other.name!r}, so none is left to validate on; give another store",
                    code="no-validation-part",
                )
        return cls(
            store,
            train_split,
            validation_store or store,
            validation,
            test_store or store,
            test_split,
        )

    def validation_patches(self) -> Patches:
        """Patches that the reports of trials are evaluated on."""
        names = TrialSplit("validation", (), self.validation, ())
        split = self.split if self.validation_store is self.store else names
        return _part(self.validation_store, split, "validation")

    @property
    def validation_on(self) -> Patches | None:
        """Validation patches of another store; None if they are of the store itself."""
        return None if self.validation_store is self.store else self.validation_patches()

    def test_patches(self) -> Patches:
        """Patches that winner and baselines are evaluated on."""
        return _part(self.test_store, self.test_split, "test")

    def check(self, objectives: tuple[Objective, ...]) -> None:
        """Check that the objectives can be measured, and that the test patches have levels.

        Raises:
            UserError: naming the option that changes it.
        """
        for objective in objectives:
            on_pairs, metric = objective.metric in PAIR_METRICS, objective.metric
            if on_pairs and self.validation_store.has_levels:
                raise UserError(
                    f"{metric} needs pairs of patches to validate on, which "
                    f"{self.validation_store.path} does not have; give a store of `hpsearch data "
                    "phototour` to --validation-data, or choose another objective",
                    code="objective-needs-pairs",
                )
            if metric.startswith("val/") and not on_pairs:
                self.validation_store.check_levels(
                    f"the objective {metric} (validation: --validation-data mini, or "
                    f"objective=Objective(metric={PAIR_METRICS[0]!r}, …))"
                )
        self.test_store.check_levels("the test of a search (--test-data mini, for instance)")

    def overlaps(self) -> Iterator[str]:
        """Yield sentences about test or validation patches that are trained on as well.

        Sequences with one name in two stores are reported too, since they may show one scene.
        """
        train = self.store.part(self.split, "train")
        trained = _patch_hashes(train)
        parts = (
            ("validation", self.validation_store, self.validation_patches),
            ("test", self.test_store, self.test_patches),
        )
        for part, other, patches_of in parts:
            if other is self.store:
                continue
            patches = patches_of()
            same = [name for name in patches.names if name in train.names]
            if same:
                yield (
                    f"{part} sequences with names of training sequences: "
                    f"{list_names(same, limit=5)}; if they show one scene, {part} scores are too "
                    "high"
                )
            shared = len(_patch_hashes(patches) & trained)
            if shared:
                yield (
                    f"{shared:,} {part} points of {patches.store.path.name} have a patch of the "
                    f"training part of {self.store.path.name}, so {part} scores are too high"
                )


def _part(store: PatchStore, split: TrialSplit, part: Part) -> Patches:
    try:
        return store.part(split, part)
    except UserError as error:
        remedy = f"{error}, or give other patches to --{part}-data"
        raise UserError(remedy, code=error.code) from error


def _test_split(store: PatchStore, split: str) -> TrialSplit:
    """Split of a store for testing; all of its sequences if it has no test part."""
    found = store.split(split)
    if found.test:
        return found
    return replace(found, name="all", train=(), validation=(), test=tuple(store.names))


def _is_same(one: PatchStore, other: PatchStore) -> bool:
    return one.fingerprint == other.fingerprint


def _patch_hashes(patches: Patches) -> set[bytes]:
    """Hashes of the first clean patch of points, evenly chosen if there are many.

    Flat patches are left out, since equal ones occur in any pictures.
    """
    step = -(-len(patches) // MAX_COMPARED_POINTS)
    first = patches.store.first_rows[patches.points[::step]]
    pixels = patches.store.clean_rows[np.sort(first)]
    textured = pixels.reshape(len(pixels), -1).std(axis=1) > 1
    return {hashlib.blake2b(patch.tobytes(), digest_size=16).digest() for patch in pixels[textured]}
