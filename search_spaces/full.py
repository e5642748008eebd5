"""Complete search space: input, denoiser, descriptor, loss, batches, optimizer, augmentation.

A conditional space of some forty names, about half of which are in use at a time. Begin with a
smaller space; this one is for what they may have missed, and for a cluster. On the embedded set, a
trial that is not stopped early takes one to four minutes of one core. On the whole of N-HPatches,
with GPUs: ``WIDTH = 1``, ``BUDGET = 5_000_000``, ``--data STORE``.
"""

import optuna

from hpsearch import config as c
from hpsearch.search.search import Search

BUDGET = 128_000  # patches a trial
WIDTH = 0.25
UNIT = ["facenet", "in_batch_hard", "hardnet", "percentile"]  # defined for unit descriptors
TURNS = {turns: c.Augmentation(turns=turns) for turns in ("none", "patch", "point")}
SCHEDULES = {"constant": c.Constant(), "step": c.StepDecay(), "cosine": c.Cosine()}
# Few denoisers, so that trials often share one; ``denoisers.py`` looks closer.
DENOISERS: dict[str, c.Denoiser] = {
    "shallow": c.ShallowUNet(width=0.25),
    "deep": c.UNet(levels=3, channels=16),
    "dncnn": c.DnCNN(depth=9, channels=16),
}


def suggest(trial: optuna.Trial) -> c.TrialConfig:
    """Each part in a function of its own; the loss decides which batches there can be."""
    losses = ["triplet", "contrastive", "batch_all", "batch_hard", *UNIT]
    kind = trial.suggest_categorical("loss", losses)
    unit = kind in UNIT or trial.suggest_categorical("unit_norm", [False, True])
    # R3 begins batch hard with the baseline's weights; they are trained once for each input.
    warm = kind == "batch_hard" and trial.suggest_categorical("warm_start", [False, True])
    return c.TrialConfig(
        input=suggest_input(trial),
        descriptor=c.L2Net(
            width=WIDTH,
            dropout=trial.suggest_float("dropout", 0.0, 0.5),
            input_norm=trial.suggest_categorical("patch_norm", [False, True]),
            final_norm=unit and trial.suggest_categorical("final_norm", [False, True]),
            unit_norm=unit,
            bn_momentum=0.1,
        ),
        loss=suggest_loss(trial, kind),
        sampler=suggest_sampler(trial, kind),
        optimizer=suggest_optimizer(trial),
        schedule=SCHEDULES[trial.suggest_categorical("schedule", list(SCHEDULES))],
        augmentation=TURNS[trial.suggest_categorical("turns", list(TURNS))],
        warm_start=c.WarmStart(patches=24_000) if warm else None,
        patches=BUDGET,
    )


def suggest_input(trial: optuna.Trial) -> c.Input:
    """With a denoiser, trained on what it gives, or on clean patches, at first or throughout."""
    match trial.suggest_categorical("input", ["noisy", "clean", "denoised"]):
        case "noisy":
            return c.Noisy()
        case "clean":
            return c.Clean()
    denoiser = c.DenoiserTraining(
        network=DENOISERS[trial.suggest_categorical("denoiser", list(DENOISERS))],
        optimizer=c.Adam(lr=trial.suggest_categorical("denoiser_lr", [1e-3, 3e-3])),
        batch=trial.suggest_categorical("denoiser_batch", [64, 256]),
        patches=16_000,
    )
    match trial.suggest_categorical("train_on", ["denoised", "clean", "clean, then denoised"]):
        case "denoised":
            return c.Denoised(denoiser=denoiser)
        case "clean":
            return c.Denoised(denoiser=denoiser, train_on="clean")
        case _:
            share = trial.suggest_float("clean_first", 0.2, 0.9)
            return c.Denoised(denoiser=denoiser, clean_warmup=share)


def suggest_loss(trial: optuna.Trial, kind: str) -> c.Loss:
    """Names are shared where a value means the same, so that one loss learns from another."""
    if kind == "contrastive":
        return c.Contrastive(margin=trial.suggest_float("radius", 0.3, 3.0, log=True))
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
            return c.Percentile(quantile=trial.suggest_float("q", 0.5, 20), margin=margin)
    squared = trial.suggest_categorical("squared", [False, True])
    loss = {"triplet": c.Triplet, "batch_all": c.BatchAll, "batch_hard": c.BatchHard}[kind]
    return loss(distance="squared" if squared else "euclidean", margin=margin)


def suggest_hinge(trial: optuna.Trial) -> c.HardMargin:
    """Suggest a margin from R1's 0.01 to the maximum distance of unit descriptors."""
    return c.HardMargin(alpha=trial.suggest_float("alpha", 0.01, 2.0, log=True))


def suggest_sampler(trial: optuna.Trial, kind: str) -> c.Sampling:
    """Equal patches a batch, whatever the loss."""
    batch = trial.suggest_categorical("batch", [64, 128, 256, 512, 1024])
    if kind in ("in_batch_hard", "hardnet", "percentile"):
        return c.Pairs(batch=batch // 2)
    if kind in ("batch_all", "batch_hard"):
        return suggest_groups(trial, batch)
    size = batch // 3
    match trial.suggest_categorical("triplets", ["regular", "curriculum", "mined"]):
        case "regular":
            return c.RandomTriplets(batch=size)
        case "curriculum":  # tough throughout at 1, far throughout at 0
            tough = trial.suggest_float("tough_until", 0.0, 1.0)
            far = trial.suggest_float("far_from", 0.0, 1.0)
            return c.RandomTriplets(batch=size, tough_until=tough, far_from=far)
        case _:
            every = BUDGET // 8 if trial.suggest_categorical("mine_again", [False, True]) else None
            start = trial.suggest_float("mine_from", 0.1, 0.7)
            return c.MinedTriplets(batch=size, candidates=4_000, start=start, every=every)


def suggest_groups(trial: optuna.Trial, batch: int) -> c.Sampling:
    """One S×K, or doublings from 64 patches with two views up to it."""
    views = trial.suggest_categorical("views", [2, 4, 8])
    steps = trial.suggest_categorical("steps", ["one", "fixed", "stepped"])
    if steps == "one":
        return c.PKSampler(groups=batch // views, views=views)
    count = (batch // 64).bit_length()
    growing = [(64 * 2**i, min(views, 2 * 2**i)) for i in range(count - 1)]
    stages = tuple(c.PKSampler(groups=n // k, views=k) for n, k in [*growing, (batch, views)])
    if steps == "fixed":
        return c.FixedSteps(stages=stages, milestones=tuple(i / count for i in range(1, count)))
    return c.Stepped(stages=stages, below=trial.suggest_float("below", 0.02, 0.4))


def suggest_optimizer(trial: optuna.Trial) -> c.Optimizer:
    """Each with the learning rates at which it works at all."""
    decay = trial.suggest_float("weight_decay", 1e-6, 1e-2, log=True)
    kind = trial.suggest_categorical("optimiser", ["sgd", "adam", "adamw"])
    if kind == "sgd":
        lr = trial.suggest_float("sgd_lr", 1e-3, 10.0, log=True)
        momentum = trial.suggest_float("momentum", 0.0, 0.95)
        return c.SGD(lr=lr, momentum=momentum, weight_decay=decay)
    lr = trial.suggest_float("adam_lr", 1e-5, 3e-2, log=True)
    return (c.Adam if kind == "adam" else c.AdamW)(lr=lr, weight_decay=decay)


SEARCH = Search(
    suggest=suggest,
    budget=BUDGET,
    report_every=8_000,
    trials=300,
    baseline=c.TrialConfig(descriptor=c.L2Net(width=WIDTH), patches=BUDGET),
)
