"""What kind of machine this is, as far as the last bit of a training can tell."""

import hashlib

import torch


def machine_digest() -> str:
    """SHA-256 of a small network trained with torch alone, and of what torch says of the CPU.

    Where it is the same as on another machine, a trial may be expected to end with the same bits.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            trained = _train()
    finally:
        torch.set_num_threads(threads)
    kind = f"{torch.__version__} {torch.backends.cpu.get_cpu_capability()}"
    return hashlib.sha256(kind.encode() + trained).hexdigest()


def _train() -> bytes:
    network = torch.nn.Sequential(
        torch.nn.Conv2d(1, 4, 3, padding=1), torch.nn.BatchNorm2d(4), torch.nn.ReLU(),
        torch.nn.Conv2d(4, 8, 3, stride=2), torch.nn.Tanh(), torch.nn.Flatten(),
        torch.nn.Linear(8 * 15 * 15, 8),
    ).to(memory_format=torch.channels_last)  # fmt: skip
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-2)
    for _ in range(30):
        rows = network(torch.randn(32, 1, 32, 32))
        loss = torch.cdist(rows, rows).square().mean().log() + (rows @ rows.T).exp().log1p().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return b"".join(p.detach().contiguous().numpy().tobytes() for p in network.parameters())


def weights_digest(state: dict[str, torch.Tensor]) -> str:
    """SHA-256 of a state dict, in the order of its names."""
    digest = hashlib.sha256()
    for name in sorted(state):
        digest.update(name.encode())
        digest.update(state[name].contiguous().numpy().tobytes())
    return digest.hexdigest()
