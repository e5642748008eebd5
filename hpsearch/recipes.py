"""Networks and trainings of papers and reports, by name.

A recipe holds what its source states, names what the source leaves open or hpsearch does otherwise,
and repeats the published numbers where they could be read.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

from hpsearch.config import (
    SGD,
    SOSR,
    Adam,
    Augmentation,
    BatchHard,
    Clean,
    ConvNet,
    Denoised,
    DenoiserTraining,
    HardMargin,
    HardNet,
    HeNormal,
    HybridSimilarity,
    InBatchHard,
    L2Net,
    LinearDecay,
    NormDifference,
    Pairs,
    PKSampler,
    RandomTriplets,
    SoftMargin,
    Stage,
    Stepped,
    TrialConfig,
    Triplet,
    UNet,
    WarmStart,
)
from hpsearch.errors import UserError


def _l2net_stages(activation: Literal["relu", "tlu"]) -> tuple[Stage, ...]:
    return tuple(
        stage.model_copy(update={"activation": activation})
        for stage in ConvNet.model_fields["stages"].default
    )


CONVNETS: Mapping[str, ConvNet] = MappingProxyType(
    {
        "hardnet": ConvNet(),
        "l2net": ConvNet(
            affine=True,
            norm_eps=1e-3,
            bias=True,
            last_bias=True,
            input_norm="none",
            final_norm=False,
            unit_norm=False,
            bn_momentum=0.01,
            init=HeNormal(),
        ),
        "hardnet8": ConvNet(
            stages=(
                Stage(channels=32, depth=2),
                Stage(channels=64, depth=2, reduce="stride"),
                Stage(channels=128, depth=2, reduce="stride"),
                Stage(channels=256),
            ),
            descriptor_dim=512,
        ),
        "hynet": ConvNet(stages=_l2net_stages("tlu"), norm="frn", bias=True, input_norm="frn"),
        "vgg": ConvNet(
            stages=(
                Stage(channels=64, depth=2),
                Stage(channels=128, depth=2, reduce="max"),
                Stage(channels=256, depth=3, reduce="max"),
            ),
            affine=True,
            init=HeNormal(),
        ),
        "resnet": ConvNet(
            stages=(
                Stage(channels=32),
                Stage(channels=32, depth=2, residual=True),
                Stage(channels=64, depth=2, residual=True, reduce="stride"),
                Stage(channels=128, depth=2, residual=True, reduce="stride"),
            ),
            affine=True,
            head="pooled",
            init=HeNormal(),
        ),
    }
)
"""Networks by name: ``hardnet`` (also of the original L2-Net and SOSNet), ``l2net`` of the
coursework, ``hardnet8`` (8,969,504 parameters; compress its 512 numbers), ``hynet``, and a VGG-like
and a ResNet-like network."""


@dataclass(frozen=True)
class Recipe:
    """Training of a paper or report."""

    config: TrialConfig
    source: str
    """Paper, report or program that states the settings."""
    published: str
    """Its published numbers, or where they were looked for."""
    open: tuple[str, ...] = ()
    """Settings that the source does not state, or that hpsearch has otherwise."""


_HYNET_PUBLISHED = (
    "not found, neither HPatches mAP nor FPR95 of Photo Tourism: looked for in abstract and "
    "introduction (arXiv 2006.10202), in readme and programs of yuruntian/HyNet (0ae3483), in "
    "kornia's model card; the paper's tables could not be read"
)
_SOSNET_PUBLISHED = (
    "not found, neither HPatches mAP nor FPR95 of Photo Tourism: looked for in abstract and "
    "introduction (arXiv 1904.05019), in readme, demo and programs of scape-research/SOSNet "
    "(511e475) and of yuruntian/HyNet (0ae3483); the paper's tables, its poster and its slides "
    "could not be read"
)
CLEAN = {"input": Clean(), "evaluate_on": "clean"}
_HARDNET = TrialConfig(
    **CLEAN,
    descriptor=CONVNETS["hardnet"],
    loss=HardNet(margin=HardMargin(alpha=1.0)),
    sampler=Pairs(batch=1024),
    optimizer=SGD(lr=10.0, momentum=0.9, dampening=0.9, weight_decay=1e-4),
    schedule=LinearDecay(),
    patches=10 * 5_000_000 * 2,
)
_HARDNET_PUBLISHED = (
    "HPatches mAP in percent, from a figure in DagnyT/hardnet: matching 48.24, retrieval 65.26; "
    "verification not found there"
)
_HARDNET_PLUS_PUBLISHED = (
    "HPatches mAP in percent, from two figures in DagnyT/hardnet: verification 87.12, matching "
    "50.38, retrieval 66.82"
)
_HARDNET_SOURCE = "Mishchuk et al., NeurIPS 2017, as in DagnyT/hardnet, code/HardNet.py (94e5683)"
_HARDNET_OPEN = (
    "trained there on 5,000,000 pairs an epoch of the Photo Tourism set, ten epochs",
    "the loss there leaves out negatives nearer than 0.008, here none",
)
_HYNET = TrialConfig(
    **CLEAN,
    descriptor=CONVNETS["hynet"],
    loss=HybridSimilarity(alpha=2.0, margin=1.2),
    regularizers=(NormDifference(weight=0.1),),
    sampler=Pairs(batch=512),
    optimizer=Adam(lr=1e-2),
    augmentation=Augmentation(turns="point"),
    patches=100_000_000,
)
_HYNET_OPEN = (
    "the steps of its 200 epochs depend on the data and are not stated; the budget is HardNet's",
    "the loss there is a sum over pairs, here the mean; Adam's steps are the same",
)
_R3_STAGES = tuple(
    PKSampler(groups=groups, views=views) for groups, views in ((32, 2), (32, 4), (64, 6), (128, 8))
)
_BASELINE_PATCHES = 50 * 100_000 * 3

RECIPES: Mapping[str, Recipe] = MappingProxyType(
    {
        "hardnet": Recipe(_HARDNET, _HARDNET_SOURCE, _HARDNET_PUBLISHED, _HARDNET_OPEN),
        "hardnet-plus": Recipe(
            _HARDNET.model_copy(update={"augmentation": Augmentation(turns="point")}),
            f"{_HARDNET_SOURCE}, with --fliprot=True as in code/run_me.sh",
            _HARDNET_PLUS_PUBLISHED,
            (
                *_HARDNET_OPEN,
                "pairs are transposed and mirrored there, here turned by 90° and mirrored",
            ),
        ),
        "hynet": Recipe(
            _HYNET,
            "Tian et al., NeurIPS 2020, as in yuruntian/HyNet, train.py and model.py (0ae3483)",
            _HYNET_PUBLISHED,
            (
                *_HYNET_OPEN,
                "initial weights there are PyTorch's, here orthogonal",
            ),
        ),
        "sosnet": Recipe(
            _HYNET.model_copy(
                update={
                    "descriptor": CONVNETS["hardnet"],
                    "loss": HardNet(margin=HardMargin(alpha=1.2), negatives="all", exponent=2),
                    "regularizers": (SOSR(neighbors=8),),
                }
            ),
            "Tian et al., CVPR 2019, as in Loss_SOSNet of yuruntian/HyNet, train.py (0ae3483)",
            _SOSNET_PUBLISHED,
            (
                *_HYNET_OPEN,
                "the script trains HyNet's network with this loss, here it is the paper's",
                "neighborhoods there are symmetric and cross the pairs, those of SOSR do not",
            ),
        ),
        "baseline": Recipe(
            TrialConfig(
                **CLEAN,
                descriptor=L2Net(),
                loss=Triplet(),
                sampler=RandomTriplets(batch=50),
                optimizer=SGD(lr=0.1),
                patches=_BASELINE_PATCHES,
            ),
            "the coursework's notebook: L2-Net, 50 epochs of 100,000 triplets",
            "clean, verification 0.857, matching 0.341, retrieval 0.662 (R1, table 2)",
        ),
        "r1": Recipe(
            TrialConfig(
                **CLEAN,
                descriptor=L2Net(unit_norm=True),
                loss=InBatchHard(margin=HardMargin(alpha=0.01)),
                sampler=Pairs(batch=128),
                optimizer=Adam(),
                patches=50 * 100 * 128 * 2,
            ),
            'report R1, "Learning Patch Descriptors": 50 epochs of 100 batches of 128 pairs',
            "clean, verification 0.913, matching 0.509, retrieval 0.758 (R1, table 2)",
            ("the learning rate is not stated; here Adam's default",),
        ),
        "r2": Recipe(
            TrialConfig(
                input=Denoised(
                    denoiser=DenoiserTraining(
                        network=UNet(levels=4, convolutions=2), patches=45_000
                    ),
                    train_on="clean",
                ),
                descriptor=L2Net(),
                loss=Triplet(),
                sampler=RandomTriplets(batch=50, tough_until=0.2, far_from=0.9),
                optimizer=SGD(lr=0.1),
                patches=50 * 10_000 * 3,
            ),
            "report R2: 10 epochs of tough positives, 35 regular, 5 of far negatives, clean",
            "reduced data, verification 0.800, matching 0.171, retrieval 0.496 (R2, figure 11)",
            (
                "optimizer, rate and batch are not stated; here the baseline's",
                "the denoiser's optimizer is not stated; here a U-Net of 4 levels with Adam",
            ),
        ),
        "r3": Recipe(
            TrialConfig(
                input=Denoised(denoiser=DenoiserTraining(network=UNet(convolutions=2))),
                descriptor=L2Net(),
                loss=BatchHard(margin=SoftMargin(alpha=0.0)),
                sampler=Stepped(stages=_R3_STAGES),
                optimizer=Adam(lr=2e-4),
                warm_start=WarmStart(
                    loss=Triplet(distance="euclidean", margin=SoftMargin(alpha=0.0)),
                    optimizer=SGD(lr=0.1),
                    sampler=RandomTriplets(batch=50),
                    patches=_BASELINE_PATCHES,
                ),
                patches=_BASELINE_PATCHES,
            ),
            "report R3: soft batch hard, batches of 64 to 1024 patches, after baseline weights",
            "soft batch hard 1024, verification 0.873, matching 0.356, retrieval 0.645 (R3)",
            (
                "budget and rule of the steps are not stated; here the baseline's, and Stepped's",
                "the third batch is printed as 386, which 6 views do not divide; here 384",
                "the U-Net's width and budget are not stated; here 64 channels and the default",
            ),
        ),
    }
)
"""Trainings by name. L2-Net's own (Tian et al., CVPR 2017) is left out: its loss is not among
hpsearch's."""


def recipe(name: str) -> Recipe:
    """Recipe of a name.

    Raises:
        UserError: if there is none.

    Example:
        >>> hardnet = recipe("hardnet").config
        >>> hardnet.model_copy(update={"patches": 200_000, "seed": 1}).sampler.batch
        1024
    """
    if name not in RECIPES:
        raise UserError(
            f"there is no recipe {name!r}; choose one of: {', '.join(RECIPES)}",
            code="no-such-recipe",
        )
    return RECIPES[name]
