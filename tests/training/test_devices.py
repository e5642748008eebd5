"""Devices: what is refused, how networks are laid out, what a gather gives."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from torch._dynamo.utils import counters
from torch._inductor import config as inductor

from hpsearch.config import ComputeConfig, L2Net
from hpsearch.errors import UserError
from hpsearch.models import build_descriptor
from hpsearch.models.layers import Dropout
from hpsearch.training.devices import (
    Compute,
    choose_device,
    cpp_compiler,
    device_resident,
    tune_glibc_malloc,
)

CPU = torch.device("cpu")


@pytest.mark.parametrize(("name", "remedy"), [("tpu", "choose auto"), ("xla", "torch_xla")])
def test_a_device_that_is_not_there_is_refused(name: str, remedy: str) -> None:
    with pytest.raises(UserError, match=remedy):
        choose_device(name)


def test_laying_out_a_network_changes_no_number() -> None:
    settings = L2Net(width=0.125, dropout=0.0)
    plain, placed = (build_descriptor(settings, seed=1) for _ in range(2))
    placed = Compute(device=CPU).to_device(placed)
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


def test_a_gather_gives_the_rows_asked_for_in_gray_levels() -> None:
    patches = np.random.default_rng(0).integers(256, size=(9, 32, 32), dtype=np.uint8)
    rows = np.array([4, 0, 4])
    found = device_resident(patches, CPU)(rows)
    assert found.dtype == torch.float32
    assert np.array_equal(found.numpy()[:, 0], patches[rows])


def test_keeping_freed_memory_is_harmless() -> None:
    tune_glibc_malloc()
    assert float(torch.ones(2**22).sum()) == 2**22


@pytest.mark.skipif(cpp_compiler() is None, reason="torch.compile needs a C++ compiler")
@pytest.mark.filterwarnings("ignore:.*script_method:DeprecationWarning")  # within torch.compile
def test_what_is_compiled_computes_the_same_and_is_found_by_the_next_trial(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))
    # otherwise torch compiles programs of its own first, to try out the processor's instructions
    monkeypatch.setattr(inductor.cpp, "vec_isa_ok", True)
    conv, dropout = nn.Conv2d(1, 2, 3), Dropout(0.5)
    x = torch.rand(4, 1, 5, 5, generator=torch.Generator().manual_seed(0))
    compute, hits = Compute.resolve(ComputeConfig(device="cpu", compiled=True)), []
    for _ in range(2):
        torch._dynamo.reset()  # forgets what this process has compiled, as another one would
        counters.clear()
        found = compute.forward(nn.Sequential(conv, dropout))(x)
        hits.append(counters["aot_autograd"]["autograd_cache_hit"])
        stays = found != 0
        assert 0.1 < float(stays.float().mean()) < 0.9
        expected = 2 * conv(x) * stays
        torch.testing.assert_close(found, expected)
        for one, other in zip(*(grads(y, conv) for y in (found, expected)), strict=True):
            torch.testing.assert_close(one, other)
    assert hits == [0, 1]


def grads(descriptors: torch.Tensor, network: nn.Module) -> tuple[torch.Tensor, ...]:
    return torch.autograd.grad(descriptors.square().sum(), list(network.parameters()))


def test_compiling_without_a_compiler_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CXX", "no-such-compiler")
    with pytest.raises(UserError, match="needs a C\\+\\+ compiler"):
        Compute.resolve(ComputeConfig(device="cpu", compiled=True))
