import hashlib

import pytest
import torch

from hpsearch import config
from hpsearch.errors import UserError
from hpsearch.models import build_denoiser
from hpsearch.models.denoisers import MAX_GRAY

SMALL = config.DnCNN(depth=4, channels=6)


def gray(n, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(n, 1, 32, 32, generator=generator) * 255


def trained(seed=0):
    """A network whose weights and statistics are not those of a new one."""
    network = build_denoiser(SMALL, seed=seed)
    with torch.no_grad():
        network.last.weight.normal_(generator=torch.Generator().manual_seed(seed))
    network(gray(4, seed=seed))
    return network


@pytest.fixture
def weights(tmp_path):
    path = tmp_path / "front.pt"
    torch.save(trained().state_dict(), path)
    return path


def transfer(path, **changes):
    return config.DnCNNTransfer(
        front=SMALL, weights=str(path), head=config.DnCNN(depth=3, channels=4), **changes
    )


@pytest.mark.parametrize(("depth", "count"), [(17, 556_096), (5, 112_192)])
def test_dncnn_has_the_published_parameter_count(depth, count):
    network = build_denoiser(config.DnCNN(depth=depth), seed=0)
    assert sum(p.numel() for p in network.parameters()) == count


def test_dncnn_subtracts_what_its_layers_give():
    network = trained().double().eval()
    x = gray(2).double()
    y = network.body[0](x / MAX_GRAY).relu()
    for number in (0, 1):
        conv, norm = network.body[2 + 3 * number], network.body[3 + 3 * number]
        z = torch.nn.functional.conv2d(y, conv.weight, padding=1)
        mean, var = (v[None, :, None, None] for v in (norm.running_mean, norm.running_var))
        y = ((z - mean) / (var + 1e-4).sqrt()).relu()
    torch.testing.assert_close(network(x), x - 255 * network.last(y))


def test_a_new_dncnn_is_the_identity_and_still_learns():
    network, x = build_denoiser(SMALL, seed=0), gray(4)
    assert torch.equal(network(x), x)
    (network(x) - x / 2).abs().mean().backward()
    assert torch.count_nonzero(network.last.weight.grad) > 0


def test_the_front_is_the_stored_network_and_the_head_starts_as_the_identity(weights):
    network = build_denoiser(transfer(weights), seed=9)
    x = gray(3)
    torch.testing.assert_close(network(x), trained().eval()(x))


def test_training_moves_the_head_and_nothing_of_the_front(weights):
    network = build_denoiser(transfer(weights), seed=9).train()
    before = {k: v.clone() for k, v in network.state_dict().items()}
    optimizer = torch.optim.Adam(network.parameters(), lr=0.1, weight_decay=0.1)
    for _ in range(2):
        optimizer.zero_grad()
        network(gray(4)).square().mean().backward()
        optimizer.step()
    moved = {k for k, v in network.state_dict().items() if not torch.equal(v, before[k])}
    assert all(name.startswith("head.") for name in moved)
    assert {name for name in network.state_dict() if name.startswith("head.")} == moved


def test_the_front_stays_in_evaluation_mode(weights):
    network = build_denoiser(transfer(weights), seed=0)
    network.train()
    assert network.head.training
    assert not any(module.training for module in network.front.modules())


def test_the_digest_of_the_weights_is_checked(weights):
    digest = hashlib.sha256(weights.read_bytes()).hexdigest()
    build_denoiser(transfer(weights, sha256=digest), seed=0)
    with pytest.raises(UserError, match=digest):
        build_denoiser(transfer(weights, sha256="0" * 64), seed=0)


def test_weights_with_a_digest_behind_them_are_read(weights):
    """As the shared artifacts of trained denoisers are stored."""
    stored = weights.read_bytes()
    weights.write_bytes(stored + hashlib.sha256(stored).digest())
    build_denoiser(transfer(weights), seed=0)


def test_missing_weights_are_the_user_s_to_fix(tmp_path):
    with pytest.raises(UserError, match="cannot be read"):
        build_denoiser(transfer(tmp_path / "nowhere.pt"), seed=0)


@pytest.mark.parametrize("content", [b"", b"not weights", b"PK\x03\x04" + b"0" * 100])
def test_damaged_weights_are_the_user_s_to_fix(tmp_path, content):
    (tmp_path / "front.pt").write_bytes(content)
    with pytest.raises(UserError, match="not a state dict"):
        build_denoiser(transfer(tmp_path / "front.pt"), seed=0)


def test_weights_of_another_shape_are_the_user_s_to_fix(tmp_path):
    torch.save(build_denoiser(config.DnCNN(depth=5), seed=0).state_dict(), tmp_path / "front.pt")
    with pytest.raises(UserError, match="depth and channels"):
        build_denoiser(transfer(tmp_path / "front.pt"), seed=0)


def test_a_file_that_is_no_state_dict_at_all_is_refused(tmp_path):
    torch.save([1, 2, 3], tmp_path / "front.pt")
    with pytest.raises(UserError, match="not a state dict"):
        build_denoiser(transfer(tmp_path / "front.pt"), seed=0)
