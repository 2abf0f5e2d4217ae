from __future__ import annotations

import pytest
import torch
from torch import nn

from medgan.models.blocks import Convolution
from medgan.threads import torch_threads


@pytest.mark.parametrize(("kernel", "stride", "padding"), [(3, 2, 1), (3, 1, 1), (1, 1, 0)])
def test_a_single_volume_is_convolved_as_torch_does(kernel: int, stride: int, padding: int) -> None:
    torch.manual_seed(0)
    ours = Convolution(6, 5, kernel, stride=stride, padding=padding)
    torchs = nn.Conv3d(6, 5, kernel, stride=stride, padding=padding)
    torchs.load_state_dict(ours.state_dict())
    volume = torch.randn(1, 6, 9, 8, 7)
    with torch.no_grad():
        assert torch.allclose(ours(volume), torchs(volume), atol=1e-5)
        found = []
        for threads in (1, 2, 3):
            with torch_threads(threads):
                found.append(ours(volume))
    assert all(torch.equal(found[0], other) for other in found)


def test_training_and_further_types_are_left_to_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    ours = Convolution(2, 3, 3, padding=1)
    volume = torch.randn(1, 2, 8, 8, 8)
    expected = nn.functional.conv3d(volume, ours.weight, ours.bias, padding=1)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        assert ours(volume).dtype == torch.bfloat16
    monkeypatch.delattr(torch, "mkldnn_convolution")
    out = ours(volume)
    assert torch.equal(out, expected)
    out.sum().backward()
    assert ours.weight.grad is not None
    with torch.no_grad():
        ours(volume.expand(2, -1, -1, -1, -1))
        with pytest.raises(AttributeError):
            ours(volume)  # so it is used where it helps
