"""Everything at once: input, denoiser, descriptor, loss, batches, optimiser, augmentation.

A conditional space of some fifty names, a dozen or two of which are in use at a time. Begin with a
smaller space; this one is for what they may have missed, and for a cluster: 300 trials of a quarter
of the published width take a night on a laptop. On the whole of N-HPatches, with GPUs:
``WIDTHS = [1]``, ``BUDGET = 5_000_000``, ``--data STORE``.
"""

import optuna

from hpsearch import config as c
from hpsearch.search.search import Search

BUDGET = 128_000  # patches a trial
WIDTHS = [0.25]
UNIT = ["facenet", "in_batch_hard", "hardnet", "percentile"]  # defined for unit descriptors
TURNS = {turns: c.Augmentation(turns=turns) for turns in ("none", "patch", "point")}


def suggest(trial: optuna.Trial) -> c.TrialConfig:
    """Each part in a function of its own; the loss decides which batches there can be."""
    losses = ["triplet", "contrastive", "batch_all", "batch_hard", *UNIT]
    kind = trial.suggest_categorical("loss", losses)
    unit = kind in UNIT or trial.suggest_categorical("unit_norm", [False, True])
    return c.TrialConfig(
        input=suggest_input(trial),
        descriptor=c.L2Net(
            width=trial.suggest_categorical("width", WIDTHS),
            dropout=trial.suggest_float("dropout", 0.0, 0.5),
            patch_norm=trial.suggest_categorical("patch_norm", [False, True]),
            final_norm=unit and trial.suggest_categorical("final_norm", [False, True]),
            unit_norm=unit,
            norm_momentum=0.1,
        ),
        loss=suggest_loss(trial, kind),
        sampler=suggest_sampler(trial, kind),
        optimiser=suggest_optimiser(trial),
        schedule=suggest_schedule(trial),
        augmentation=TURNS[trial.suggest_categorical("turns", list(TURNS))],
        warm_start=suggest_warm_start(trial, kind),
        patches=BUDGET,
    )


def suggest_input(trial: optuna.Trial) -> c.Input:
    """A denoiser costs as much as its settings differ from those that are trained already."""
    match trial.suggest_categorical("input", ["noisy", "clean", "denoised"]):
        case "noisy":
            return c.Noisy()
        case "clean":
            return c.Clean()
    match trial.suggest_categorical("train_on", ["denoised", "clean", "clean, then denoised"]):
        case "clean":
            return c.Denoised(denoiser=suggest_denoiser(trial), train_on="clean")
        case "denoised":
            return c.Denoised(denoiser=suggest_denoiser(trial))
    share = trial.suggest_float("clean_first", 0.2, 0.9)
    return c.Denoised(denoiser=suggest_denoiser(trial), clean_first=share)


def suggest_denoiser(trial: optuna.Trial) -> c.DenoiserTrial:
    """Few values each, so that trials often share one; ``denoisers.py`` looks closer."""
    networks: dict[str, c.Denoiser] = {
        "shallow": c.ShallowUNet(width=0.25),
        "deep": c.UNet(levels=3, channels=16),
        "dncnn": c.DnCNN(depth=9, channels=16),
    }
    network = networks[trial.suggest_categorical("denoiser", list(networks))]
    if trial.suggest_categorical("denoiser_optimiser", ["sgd", "adam"]) == "adam":
        optimiser = c.Adam(lr=trial.suggest_categorical("denoiser_adam_lr", [1e-3, 3e-3]))
    else:
        lr = trial.suggest_categorical("denoiser_sgd_lr", [1e-5, 1e-4])
        optimiser = c.SGD(lr=lr, momentum=0.9, nesterov=True)
    batch = trial.suggest_categorical("denoiser_batch", [64, 256])
    return c.DenoiserTrial(network=network, optimiser=optimiser, batch=batch, patches=16_000)


def suggest_loss(trial: optuna.Trial, kind: str) -> c.Loss:
    """Names are shared where a value means the same, so that one loss learns from another."""
    if kind == "contrastive":
        return c.Contrastive(radius=trial.suggest_float("radius", 0.3, 3.0, log=True))
    if kind == "facenet":
        return c.FaceNet(margin=suggest_hinge(trial))
    soft = trial.suggest_categorical("margin", ["hard", "soft"]) == "soft"
    margin = c.SoftMargin() if soft else suggest_hinge(trial)
    match kind:
        case "in_batch_hard":
            return c.InBatchHard(margin=margin)
        case "hardnet":
            return c.HardNet(margin=margin)
        case "percentile":
            return c.Percentile(q=trial.suggest_float("q", 0.5, 20), margin=margin)
    distance = "squared" if trial.suggest_categorical("squared", [False, True]) else "euclidean"
    match kind:
        case "batch_all":
            return c.BatchAll(distance=distance, margin=margin)
        case "batch_hard":
            return c.BatchHard(distance=distance, margin=margin)
        case _:
            return c.Triplet(distance=distance, margin=margin)


def suggest_hinge(trial: optuna.Trial) -> c.HardMargin:
    """From R1's 0.01 to as far as unit descriptors can be apart."""
    return c.HardMargin(alpha=trial.suggest_float("alpha", 0.01, 2.0, log=True))


def suggest_sampler(trial: optuna.Trial, kind: str) -> c.Sampling:
    """Equal patches a batch, whatever the loss."""
    batch = trial.suggest_categorical("batch", [64, 128, 256, 512, 1024])
    if kind in ("in_batch_hard", "hardnet", "percentile"):
        return c.Pairs(batch=batch // 2)
    if kind in ("batch_all", "batch_hard"):
        return suggest_groups(trial, batch)
    match trial.suggest_categorical("triplets", ["regular", "tough", "far", "curriculum", "mined"]):
        case "tough":
            return c.RandomTriplets(batch=batch // 3, tough_until=1.0)
        case "far":
            return c.RandomTriplets(batch=batch // 3, far_from=0.0)
        case "curriculum":
            tough = trial.suggest_float("tough_until", 0.1, 0.5)
            far = trial.suggest_float("far_from", 0.5, 0.9)
            return c.RandomTriplets(batch=batch // 3, tough_until=tough, far_from=far)
        case "mined":
            every = BUDGET // 8 if trial.suggest_categorical("mine_again", [False, True]) else None
            start = trial.suggest_float("mine_from", 0.1, 0.7)
            return c.MinedTriplets(batch=batch // 3, candidates=4_000, start=start, every=every)
        case _:
            return c.RandomTriplets(batch=batch // 3)


def suggest_groups(trial: optuna.Trial, batch: int) -> c.Sampling:
    """One S×K, or doublings from 64 patches with two views up to it."""
    views = trial.suggest_categorical("views", [2, 4, 8])
    sizes = [64 * 2**i for i in range((batch // 64).bit_length())]
    stages = tuple(
        c.SxK(groups=size // k, views=k)
        for size, k in ((size, min(views, 2 * 2**i)) for i, size in enumerate(sizes))
    )
    match trial.suggest_categorical("steps", ["one", "fixed", "stepped"]):
        case "fixed":
            shares = tuple(i / len(stages) for i in range(1, len(stages)))
            return c.FixedSteps(stages=stages, at=shares)
        case "stepped":
            return c.Stepped(stages=stages, below=trial.suggest_float("below", 0.02, 0.4))
        case _:
            return c.SxK(groups=batch // views, views=views)


def suggest_optimiser(trial: optuna.Trial) -> c.Optimiser:
    """Each with the learning rates at which it works at all."""
    decay = trial.suggest_float("weight_decay", 1e-6, 1e-2, log=True)
    match trial.suggest_categorical("optimiser", ["sgd", "adam", "adamw"]):
        case "sgd":
            lr = trial.suggest_float("sgd_lr", 1e-3, 10.0, log=True)
            momentum = trial.suggest_float("momentum", 0.0, 0.95)
            return c.SGD(lr=lr, momentum=momentum, weight_decay=decay)
        case "adam":
            lr = trial.suggest_float("adam_lr", 1e-5, 3e-2, log=True)
            return c.Adam(lr=lr, weight_decay=decay)
        case _:
            lr = trial.suggest_float("adam_lr", 1e-5, 3e-2, log=True)
            return c.AdamW(lr=lr, weight_decay=decay)


def suggest_schedule(trial: optuna.Trial) -> c.Schedule:
    """How the learning rate falls."""
    match trial.suggest_categorical("schedule", ["constant", "step", "cosine"]):
        case "step":
            return c.StepDecay()
        case "cosine":
            return c.Cosine()
        case _:
            return c.Constant()


def suggest_warm_start(trial: optuna.Trial, kind: str) -> c.WarmStart | None:
    """The baseline's weights first, as R3 begins batch hard; trained once for each input."""
    if kind != "batch_hard" or not trial.suggest_categorical("warm_start", [False, True]):
        return None
    return c.WarmStart(patches=24_000)


SEARCH = Search(
    suggest=suggest,
    budget=BUDGET,
    report_every=8_000,
    trials=300,
    baseline=c.TrialConfig(descriptor=c.L2Net(width=0.25), patches=BUDGET),
)
