"""Devices: what is refused, how networks are laid out, what a gather gives."""

import numpy as np
import pytest
import torch

from hpsearch.config import L2Net
from hpsearch.errors import UserError
from hpsearch.models import build_descriptor
from hpsearch.training.devices import Compute, choose_device, keep_freed_memory, resident

CPU = torch.device("cpu")


@pytest.mark.parametrize(("name", "remedy"), [("tpu", "choose auto"), ("xla", "torch_xla")])
def test_a_device_that_is_not_there_is_refused(name: str, remedy: str) -> None:
    with pytest.raises(UserError, match=remedy):
        choose_device(name)


def test_laying_out_a_network_changes_no_number() -> None:
    settings = L2Net(width=0.125, dropout=0.0)
    plain, placed = (build_descriptor(settings, seed=1) for _ in range(2))
    placed = Compute(device=CPU).place(placed)
    weight = dict(placed.named_parameters())["blocks.1.conv.weight"]
    assert weight.is_contiguous(memory_format=torch.channels_last)
    for (name, one), (_, other) in zip(
        plain.state_dict().items(), placed.state_dict().items(), strict=True
    ):
        assert torch.equal(one, other), name
    x = 255 * torch.rand(6, 1, 32, 32, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(plain(x), placed(x), rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize(
    ("precision", "device", "expected"),
    [
        ("auto", "cpu", False),
        ("auto", "cuda", True),
        ("float32", "cuda", False),
        ("bfloat16", "cpu", True),
    ],
)
def test_bfloat16_is_for_accelerators_unless_asked_for(
    precision: str, device: str, expected: bool
) -> None:
    compute = Compute(device=torch.device(device), precision=precision)  # type: ignore[arg-type]
    assert compute.uses_bfloat16 == expected


def test_a_gather_gives_the_rows_asked_for_in_grey_levels() -> None:
    patches = np.random.default_rng(0).integers(256, size=(9, 32, 32), dtype=np.uint8)
    rows = np.array([4, 0, 4])
    found = resident(patches, CPU)(rows)
    assert found.dtype == torch.float32
    assert np.array_equal(found.numpy()[:, 0], patches[rows])


def test_keeping_freed_memory_is_harmless() -> None:
    keep_freed_memory()
    assert float(torch.ones(2**22).sum()) == 2**22
