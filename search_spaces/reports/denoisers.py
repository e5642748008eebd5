"""Chosen points for what reports R0, R1 and R2 say of denoisers, each with three seeds.

The same descriptor stands behind all: R1's in-batch hard, trained on clean patches, which R2 found
best, so that only the denoiser differs; three arms train it on denoised ones. ``val/MAE`` and
``val/PSNR`` in a row's curve tell the denoiser's own error. A quarter of the published channels,
100,000 patches for the denoiser and as many for the descriptor. R2's transfer from a DnCNN that
others trained needs their weights and is not here.
"""

from collections.abc import Iterator

from hpsearch.config import (
    SGD,
    Adam,
    Denoised,
    DenoiserTraining,
    DnCNN,
    InBatchHard,
    L2Net,
    Pairs,
    ShallowUNet,
    TrialConfig,
    UNet,
)
from hpsearch.reporting.claims import Claim

DATA = "photographs"
EVALUATION = {"reports": 10}
WIDTH, PATCHES, SEEDS = 0.25, 100_000, (0, 1, 2)
PUBLISHED = SGD(lr=1e-5, momentum=0.9, nesterov=True)
"""The coursework's, with batches of 50."""
SHALLOW, DEEP, DEEPER = ShallowUNet(width=WIDTH), UNet(channels=16), UNet(channels=16, levels=4)
"""R1's baseline, its table 3, and one level more."""


def denoisers() -> dict[str, DenoiserTraining]:
    """By name; R0 and R3 tell of rates and batches, R1 of Adam and depth, R2 of DnCNN."""
    return {
        "shallow, SGD": DenoiserTraining(network=SHALLOW, optimizer=PUBLISHED, batch=50),
        "shallow, Adam": DenoiserTraining(network=SHALLOW, optimizer=Adam(lr=1e-3), batch=50),
        "deep, SGD": DenoiserTraining(network=DEEP, optimizer=PUBLISHED, batch=50),
        "deep, Adam": DenoiserTraining(network=DEEP, optimizer=Adam(lr=1e-3), batch=50),
        "deeper, Adam": DenoiserTraining(network=DEEPER, optimizer=Adam(lr=1e-3), batch=50),
        "DnCNN 5, Adam": DenoiserTraining(network=DnCNN(depth=5, channels=16), batch=50),
        "shallow, 16, 1e-3": DenoiserTraining(network=SHALLOW, optimizer=Adam(lr=1e-3), batch=16),
        "shallow, 1024, 1e-3": DenoiserTraining(
            network=SHALLOW, optimizer=Adam(lr=1e-3), batch=1024
        ),
        "shallow, 1024, 1e-2": DenoiserTraining(
            network=SHALLOW, optimizer=Adam(lr=1e-2), batch=1024
        ),
    }


def arms() -> Iterator[tuple[str, Denoised]]:
    """All denoisers with clean training patches, two with denoised ones, one with clean first."""
    for name, settings in denoisers().items():
        yield name, Denoised(denoiser=settings, train_on="clean")
    for name in ("shallow, Adam", "deep, Adam"):
        yield f"{name}, trained on denoised", Denoised(denoiser=denoisers()[name])
    yield (
        "deep, Adam, clean then denoised",
        Denoised(denoiser=denoisers()["deep, Adam"], clean_warmup=0.5),
    )


def run(name: str, given: Denoised, seed: int) -> tuple[str, TrialConfig]:
    """One run; budgets and seeds of both networks are alike."""
    both = {"patches": PATCHES, "seed": seed}
    config = TrialConfig(
        input=given.model_copy(update={"denoiser": given.denoiser.model_copy(update=both)}),
        descriptor=L2Net(width=WIDTH, input_norm=True, bn_momentum=0.1, unit_norm=True),
        loss=InBatchHard(),
        sampler=Pairs(batch=128),
        optimizer=Adam(lr=1e-2),
        evaluate_on="noisy",
        patches=PATCHES,
        seed=seed,
    )
    return name, config


MORE_SEEDS = {
    "shallow, Adam": 5,
    "deep, Adam": 5,
    "deep, Adam, trained on denoised": 5,
    "DnCNN 5, Adam": 5,
    "shallow, SGD": 7,
    "deep, SGD": 7,
    "shallow, 1024, 1e-3": 9,
    "shallow, 1024, 1e-2": 9,
}
"""Seeds of arms whose claims three left undecided: as many as would decide them by then."""


def runs() -> Iterator[tuple[str, TrialConfig]]:
    """All arms of a seed before the next seed."""
    for seed in range(max(MORE_SEEDS.values())):
        for name, given in arms():
            if seed in SEEDS or seed < MORE_SEEDS.get(name, 0):
                yield run(name, given, seed)


RUNS = list(runs())


CLAIMS = [
    Claim("R1-adam-PSNR", "Adam raises the denoiser's PSNR", "R1 table 1", "32.16 / 30.5 dB",
          "shallow, Adam", "shallow, SGD", measure="PSNR"),
    Claim("R1-depth-PSNR", "A deep U-Net raises PSNR", "R1 table 1", "32.32 / 32.16 dB",
          "deep, Adam", "shallow, Adam", measure="PSNR"),
    Claim("R1-depth-SGD-PSNR", "A deep U-Net raises PSNR also with SGD", "R1 table 1",
          "30.73 / 30.5 dB", "deep, SGD", "shallow, SGD", measure="PSNR", gain=0.23),
    Claim("R1-deeper-PSNR", "A deeper one raises it further", "R1 table 1", "32.47 / 32.32 dB",
          "deeper, Adam", "deep, Adam", measure="PSNR", gain=0.15),
    Claim("R0-adam-MAE", "SGD leaves a larger error than Adam", "R0", "MAE 5.5 / 5.3",
          "shallow, SGD", "shallow, Adam", measure="MAE"),
    Claim("R0-rate", "At 64 times the batch ten times the rate trains better than the same rate",
          "R0, R3", "none", "shallow, 1024, 1e-3", "shallow, 1024, 1e-2", measure="MAE"),
    Claim("R3-denoiser-mAP", "A smaller denoiser error hardly moves mAP", "R3",
          "MAE 4.5 / 5.3", "deep, Adam", "shallow, Adam", tolerance=0.02),
    Claim("R2-train-clean", "On denoised patches, training on clean ones is better",
          "R2 fig. 8", "0.481 / 0.439", "deep, Adam", "deep, Adam, trained on denoised",
          gain=0.042),
    Claim("R1-fine-tune", "Clean patches first, then denoised, gains over denoised throughout",
          "R1, text", "0.611 / 0.608", "deep, Adam, clean then denoised",
          "deep, Adam, trained on denoised"),
    Claim("R2-DnCNN", "A DnCNN denoises better for the descriptor than a U-Net (here without the "
          "transfer from published weights)", "R2 fig. 6", "0.486 / 0.481", "DnCNN 5, Adam",
          "deep, Adam", gain=0.005),
    Claim("R3-batch-time", "On a CPU the batch hardly changes the time of an epoch (here denoiser "
          "and descriptor together)", "R3, seconds an epoch", "125 / 123 s",
          "shallow, 16, 1e-3", "shallow, 1024, 1e-3", measure="log time", tolerance=0.1),
]  # fmt: skip
