"""Splits by sequence: official HPatches splits and generated ones."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from hpsearch.errors import UserError
from hpsearch.rng import rng_for

_TEST_A = """
    i_ajuntament i_autannes i_bologna i_books i_bridger i_brooklyn i_fog i_fruits i_kurhaus
    i_lionnight i_nijmegen i_porta i_resort i_salon i_santuario i_table i_tools i_troulos
    i_whitebuilding i_zion v_abstract v_azzola v_bees v_birdwoman v_busstop v_coffeehouse
    v_courses v_eastsouth v_feast v_fest v_man v_pomegranate v_soldiers v_strand v_tabletop
    v_talent v_underground v_woman v_yard v_yuri
""".split()  # noqa: SIM905
_TEST_B = """
    i_autannes i_bridger i_castle i_chestnuts i_dome i_duda i_fog i_fruits i_greenhouse
    i_kions i_kurhaus i_lionday i_melon i_partyfood i_pencils i_porta i_resort i_school
    i_ski i_village v_adam v_apprentices v_astronautis v_bees v_bip v_birdwoman v_charing
    v_churchill v_colors v_feast v_graffiti v_laptop v_london v_posters v_sunseason v_there
    v_underground v_war v_woman v_yard
""".split()  # noqa: SIM905
_TEST_C = """
    i_bologna i_boutique i_castle i_crownnight i_dc i_fog i_kions i_leuven i_londonbridge
    i_melon i_nijmegen i_parking i_partyfood i_pool i_ski i_smurf i_steps i_table i_tools
    i_troulos v_adam v_artisans v_azzola v_bees v_blueprint v_busstop v_coffeehouse
    v_dirtywall v_feast v_gardens v_graffiti v_machines v_man v_maskedman v_pomegranate
    v_talent v_tempera v_war v_weapons v_wounded
""".split()  # noqa: SIM905
_ONLY_TRAINING = """
    i_contruction i_crownday i_fenis i_gonnenberg i_greentea i_indiana i_ktirio i_miniature
    i_nescafe i_nuts i_objects i_pinard i_toy i_veggies i_yellowtent v_bark v_beyus v_bird
    v_boat v_bricks v_calder v_cartooncity v_circus v_dogman v_grace v_home v_samples
    v_vitro v_wall v_wapping v_wormhole
""".split()  # noqa: SIM905

HPATCHES_SEQUENCES = tuple(sorted({*_TEST_A, *_TEST_B, *_TEST_C, *_ONLY_TRAINING}))
"""57 illumination (``i_``) and 59 viewpoint (``v_``) sequences; "i_contruction" is official."""

TEST_SEQUENCES: dict[str, tuple[str, ...]] = {
    "a": tuple(_TEST_A),
    "b": tuple(_TEST_B),
    "c": tuple(_TEST_C),
    "illum": tuple(n for n in HPATCHES_SEQUENCES if n.startswith("i_")),
    "view": tuple(n for n in HPATCHES_SEQUENCES if n.startswith("v_")),
    "full": HPATCHES_SEQUENCES,
    "mini": ("i_astronaut", "i_ihc", "v_coffee", "v_gravel"),
}
"""Test sequences by split; ``mini`` is that of the built-in set."""


Part = Literal["train", "validation", "test"]
SPLIT_NAMES = ("auto", *TEST_SEQUENCES, "seeded")
TEST_SHARE = 0.3
VALIDATION_SHARE = 0.2


@dataclass(frozen=True)
class TrialSplit:
    """Names of training, validation and test sequences, disjoint."""

    name: str
    train: tuple[str, ...]
    validation: tuple[str, ...]
    test: tuple[str, ...]

    def __post_init__(self) -> None:
        everything = (*self.train, *self.validation, *self.test)
        assert len(set(everything)) == len(everything), "parts must be disjoint"

    def part(self, part: Part) -> tuple[str, ...]:
        """Sequence names of one part.

        Raises:
            UserError: if the part is empty, as the training part of ``full`` is.

        """
        names = {"train": self.train, "validation": self.validation, "test": self.test}[part]
        if not names:
            raise UserError(
                f"split {self.name!r} has no {part} part here; choose another split, "
                "or a set with more sequences"
            )
        return names


def split_for(
    names: Sequence[str],
    *,
    name: str = "auto",
    test: Sequence[str] = (),
    validation_share: float = VALIDATION_SHARE,
    test_share: float = TEST_SHARE,
    seed: int = 0,
) -> TrialSplit:
    """Split sequences into training, validation and test parts.

    Args:
        names: all sequences.
        name: an official name, ``mini``, ``seeded``, or ``auto``: the data set's own split
            ``test`` if it has one, ``a`` for HPatches sequences, ``mini`` for its photographs,
            else seeded.
        test: test sequences of the data set's own split; empty if it has none.
        validation_share: share of the training sequences, in [0, 1), balanced over ``i_`` and
            ``v_``.
        test_share: share of all sequences in a generated test part; 0 for none.
        seed: seed of the generated parts.

    Raises:
        UserError: for an unknown name, or one that does not apply to these sequences.

    Example:
        >>> split = split_for(["v_wall", "v_there", "i_fog", "i_nuts"], name="a")
        >>> split.test
        ('i_fog',)

    """
    if name not in SPLIT_NAMES:
        raise UserError(f"unknown split {name!r}; choose one of {', '.join(SPLIT_NAMES)}")
    if not 0 <= validation_share < 1:
        raise UserError(f"validation_share must lie in [0, 1), got {validation_share}")
    label = _resolve(names, name, test)
    if label == "own":
        chosen = [n for n in test if n in names]
    elif label == "seeded":
        chosen = _draw_share(names, test_share, rng_for(seed, "test split", 0))
    else:
        chosen = _official_split(names, label)
    rest = [n for n in sorted(names) if n not in chosen]
    validation = _draw_share(rest, validation_share, rng_for(seed, "validation", 0))
    return TrialSplit(
        label,
        train=tuple(n for n in rest if n not in validation),
        validation=tuple(validation),
        test=tuple(chosen),
    )


def folds(split: TrialSplit, k: int, seed: int = 0) -> list[TrialSplit]:
    """K-fold splits: each training or validation sequence validates once; test is unchanged.

    Raises:
        UserError: if there are fewer than k sequences outside test, or k < 2.

    """
    names = sorted((*split.train, *split.validation))
    if not 2 <= k <= len(names):
        raise UserError(f"num_folds must lie in 2..{len(names)} for split {split.name!r}, got {k}")
    rng = rng_for(seed, "folds", k)
    order = [n for kind in _by_kind(names).values() for n in rng.permutation(kind).tolist()]
    # Round-robin assignment by kind spreads each kind evenly over the folds.
    parts = [tuple(sorted(order[i::k])) for i in range(k)]
    return [
        replace(split, validation=part, train=tuple(n for n in names if n not in part))
        for part in parts
    ]


def _resolve(names: Sequence[str], name: str, test: Sequence[str]) -> str:
    if name != "auto":
        return name
    if test:
        return "own"
    if set(names) <= set(HPATCHES_SEQUENCES) and _has_both_parts(names, TEST_SEQUENCES["a"]):
        return "a"
    return "mini" if set(TEST_SEQUENCES["mini"]) < set(names) else "seeded"


def _has_both_parts(names: Sequence[str], test: Sequence[str]) -> bool:
    """Return True if both the training and the test part would be non-empty."""
    return bool(set(names) & set(test)) and bool(set(names) - set(test))


def _official_split(names: Sequence[str], name: str) -> list[str]:
    unknown = sorted(set(names) - set(HPATCHES_SEQUENCES)) if name != "mini" else []
    if unknown:
        raise UserError(
            f"split {name!r} is for HPatches sequences, but {unknown[0]!r} is not one; use 'auto'"
        )
    chosen = [n for n in TEST_SEQUENCES[name] if n in names]
    if not chosen:
        raise UserError(
            f"none of these sequences is in the test part of split {name!r}; use 'auto'"
        )
    return chosen


def _draw_share(names: Iterable[str], share: float, rng: np.random.Generator) -> list[str]:
    """Draw a share of each kind, at least one and fewer than all of a kind."""
    chosen: list[str] = []
    for members in _by_kind(names).values():
        count = max(round(share * len(members)), 1 if share > 0 else 0)
        count = min(count, len(members) - 1)
        chosen += rng.permutation(members)[:count].tolist()
    return sorted(chosen)


def _by_kind(names: Iterable[str]) -> dict[str, list[str]]:
    """Sorted names by prefix: ``i_`` illumination, ``v_`` viewpoint, or none."""
    kinds: dict[str, list[str]] = {}
    for n in sorted(names):
        kinds.setdefault(n[:2] if n[:2] in ("i_", "v_") else "", []).append(n)
    return kinds
