"""Comparison of denoisers: R1's table 1 and R2's figure 6, then a search for better ones.

The rows of both tables are tried first: the shallow U-Net, the deep and the deeper one, each with
SGD and with Adam, and a DnCNN. All are scored by the descriptor behind them, because the cleanest
patches need not make the best descriptors; for R1's own question, set
``objective=Objective(metric="val/PSNR")``. Denoisers are trained once and shared.

Networks have a quarter of the published channels here (``SCALE``), and a trial takes up to three
minutes of one core, most of it for its denoiser. On the whole of N-HPatches, with a GPU:
``SCALE = 1``, ``WIDTH = 1``, ``DENOISER_BUDGET = 1_000_000``, ``BUDGET = 1_000_000``,
``--data STORE``.
"""

import optuna

from hpsearch.config import (
    SGD,
    Adam,
    Cosine,
    Denoised,
    Denoiser,
    DenoiserTraining,
    DnCNN,
    DnCNNTransfer,
    HardMargin,
    InBatchHard,
    L2Net,
    Optimizer,
    Pairs,
    ShallowUNet,
    TrialConfig,
    UNet,
)
from hpsearch.search.search import Search

BUDGET = 48_000  # patches a trial, for the descriptor
DENOISER_BUDGET = 16_000  # patches, before that
SCALE = WIDTH = 0.25
PRETRAINED: str | None = None
"""Weights of a DnCNN of depth 17, for R2's transfer: a file that every worker can read."""

KINDS = ["shallow", "unet", "dncnn", *(["dncnn_transfer"] if PRETRAINED else [])]


def suggest(trial: optuna.Trial) -> TrialConfig:
    """Suggest a denoiser; the descriptor is the same for all."""
    denoiser = DenoiserTraining(
        network=suggest_network(trial),
        loss="mse" if trial.suggest_categorical("mse", [False, True]) else "mae",
        optimizer=suggest_optimizer(trial),
        schedule=Cosine(),
        batch=trial.suggest_categorical("denoiser_batch", [16, 64, 256]),
        patches=DENOISER_BUDGET,
    )
    return TrialConfig(
        input=Denoised(denoiser=denoiser),
        descriptor=L2Net(
            width=WIDTH, input_norm=True, final_norm=True, unit_norm=True, bn_momentum=0.1
        ),
        loss=InBatchHard(margin=HardMargin(alpha=0.1)),
        sampler=Pairs(batch=96),
        optimizer=Adam(lr=5e-3),
        patches=BUDGET,
    )


def suggest_network(trial: optuna.Trial) -> Denoiser:
    """R1's deep U-Net has 3 levels of 1 convolution, its deeper one 4; R2's has 4 of 2."""
    match trial.suggest_categorical("denoiser", KINDS):
        case "shallow":
            return ShallowUNet(width=SCALE)
        case "unet":
            return UNet(
                levels=trial.suggest_int("levels", 2, 4),
                channels=round(64 * SCALE),
                convolutions=2 if trial.suggest_categorical("twice", [False, True]) else 1,
            )
        case "dncnn":
            return DnCNN(
                depth=trial.suggest_int("depth", 5, 17, step=4), channels=round(64 * SCALE)
            )
        case _:
            assert PRETRAINED is not None, "requires PRETRAINED"
            return DnCNNTransfer(weights=PRETRAINED, head=DnCNN(depth=5))


def suggest_optimizer(trial: optuna.Trial) -> Optimizer:
    """Errors are in gray levels, up to 255: SGD needs far smaller rates than Adam."""
    if trial.suggest_categorical("denoiser_optimiser", ["sgd", "adam"]) == "sgd":
        lr = trial.suggest_float("denoiser_sgd_lr", 1e-6, 1e-3, log=True)
        return SGD(lr=lr, momentum=0.9, nesterov=True)
    return Adam(lr=trial.suggest_float("denoiser_adam_lr", 1e-4, 1e-2, log=True))


WITH_SGD = {"mse": False, "denoiser_batch": 64, "denoiser_optimiser": "sgd",
            "denoiser_sgd_lr": 1e-5}  # fmt: skip
WITH_ADAM = {"mse": False, "denoiser_batch": 64, "denoiser_optimiser": "adam",
             "denoiser_adam_lr": 1e-3}  # fmt: skip
SHALLOW = {"denoiser": "shallow"}
DEEP = {"denoiser": "unet", "levels": 3, "twice": False}
DEEPER = {"denoiser": "unet", "levels": 4, "twice": False}
TABLES = (
    {**SHALLOW, **WITH_SGD},  # R1's baseline, and R2's
    {**SHALLOW, **WITH_ADAM},
    {**DEEP, **WITH_SGD},
    {**DEEP, **WITH_ADAM},
    {**DEEPER, **WITH_ADAM},
    {**DEEPER, **WITH_ADAM, "twice": True},  # R2's U-Net
    {"denoiser": "dncnn", "depth": 17, **WITH_ADAM},
    *([{"denoiser": "dncnn_transfer", **WITH_ADAM}] if PRETRAINED else []),
)

SEARCH = Search(
    suggest=suggest,
    budget=BUDGET,
    report_every=8_000,
    trials=24,
    initial_points=TABLES,
    baseline=TrialConfig(
        input=Denoised(denoiser=DenoiserTraining(network=ShallowUNet(width=SCALE))),
        descriptor=L2Net(width=WIDTH),
        patches=BUDGET,
    ),
)
