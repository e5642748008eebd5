"""A training on this machine that is interrupted: saved at the step it was at, and resumed."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from hpsearch.config import L2Net, TrialConfig
from hpsearch.execution.shutdown import install_termination_handlers
from hpsearch.models.serialization import WEIGHTS_FILE
from hpsearch.training.trial import CHECKPOINT_FILE, TrialEnvironment
from hpsearch.workflows.observer import Observer
from hpsearch.workflows.train_trial import train_trial

CONFIG = TrialConfig(descriptor=L2Net(width=0.125), patches=600)


class Interrupter(Observer):
    """Sends a signal at the first report, and keeps the messages."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.messages: list[str] = []

    def message(self, text: str) -> None:
        """Keep a message."""
        self.messages.append(text)
        if "loss" in text:
            os.kill(os.getpid(), self.number)


@pytest.fixture(autouse=True)
def handlers() -> Iterator[None]:
    """Handlers as the command installs them."""
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    known = {number: signal.getsignal(number) for number in numbers}
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
    install_termination_handlers()
    yield
    for number, handler in known.items():
        signal.signal(number, handler)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_training_that_a_signal_ends_is_saved_and_resumed_to_the_last_bit(
    number: int, job: TrialEnvironment, tmp_path: Path
) -> None:
    train_trial(CONFIG, job, tmp_path / "whole")
    observer = Interrupter(number)
    with pytest.raises(KeyboardInterrupt):
        train_trial(CONFIG, job, tmp_path / "cut", observer=observer)
    assert (tmp_path / "cut" / CHECKPOINT_FILE).is_file()
    assert not (tmp_path / "cut" / WEIGHTS_FILE).exists()
    assert "the same command resumes" in observer.messages[-1]
    train_trial(CONFIG, job, tmp_path / "cut")
    whole, cut = (
        torch.load(tmp_path / name / WEIGHTS_FILE, weights_only=True) for name in ("whole", "cut")
    )
    assert all(torch.equal(whole[name], cut[name]) for name in whole)
