from __future__ import annotations

from typing import Any

import pytest
import torch

from medgan.comparison.networks import NetworkSettings, build_network, require_fit
from medgan.comparison.scoring import Task
from medgan.errors import InputFault

SHAPE = (16, 16, 16)
SEGMENTATION = Task("segmentation", ("cube", "absent"), (2, 7))
CLASSIFICATION = Task("classification", class_names=("dark", "bright"))


def named(name: str, **arguments: Any) -> NetworkSettings:
    return NetworkSettings(name=name, arguments=arguments)


@pytest.mark.parametrize("task", [SEGMENTATION, CLASSIFICATION])
def test_the_built_in_weights_are_a_function_of_the_seed(task: Task) -> None:
    torch.manual_seed(0)
    expected = torch.rand(3)
    torch.manual_seed(0)
    first, again, other = (build_network(task, 1, NetworkSettings(8), seed) for seed in (0, 0, 1))
    pairs = zip(first.parameters(), again.parameters(), strict=True)
    assert all(torch.equal(a, b) for a, b in pairs)
    assert not torch.equal(next(first.parameters()), next(other.parameters()))
    assert torch.equal(torch.rand(3), expected)


@pytest.mark.parametrize("width", [4, 6, 16])
@pytest.mark.parametrize("task", [SEGMENTATION, Task("classification", class_names=("a", "b", "c"))])
def test_networks_of_any_width_take_any_channels(task: Task, width: int) -> None:
    network = build_network(task, 2, NetworkSettings(width), 0)
    require_fit(network, task, 2, SHAPE)
    out = network(torch.rand(2, 2, *SHAPE))
    assert out.shape == ((2, 3, *SHAPE) if task.kind == "segmentation" else (2, 3))


@pytest.mark.parametrize(
    ("task", "settings"),
    [
        (SEGMENTATION, named("SegResNet", init_filters=8, blocks_down=[1, 2], blocks_up=[1])),
        (SEGMENTATION, named("BasicUNet", features=[4, 4, 8, 8, 8, 4])),
        (SEGMENTATION, named("UNETR", feature_size=4, hidden_size=24, mlp_dim=24, num_heads=2)),
        (CLASSIFICATION, named("DenseNet121", init_features=8, growth_rate=4, block_config=[1, 1])),
        (CLASSIFICATION, named("EfficientNetBN", model_name="efficientnet-b0")),
        (CLASSIFICATION, named("ResNet", block="basic", layers=[1, 1, 1, 1], block_inplanes=[4, 4, 8, 8])),
    ],
    ids=lambda v: v.name if isinstance(v, NetworkSettings) else "",
)
def test_a_network_of_monai_by_its_name(task: Task, settings: NetworkSettings) -> None:
    shape = (32, 32, 32)
    network, again = (build_network(task, 2, settings, 0, shape) for _ in range(2))
    require_fit(network, task, 2, shape)
    assert all(torch.equal(a, b) for a, b in zip(network.parameters(), again.parameters(), strict=True))


def test_what_the_user_gives_is_not_overwritten() -> None:
    network = build_network(SEGMENTATION, 1, named("SegResNet", out_channels=5, init_filters=8), 0)
    with pytest.raises(InputFault, match=r"NETWORK_OUTPUT: SegResNet makes \(2, 5, 16, 16, 16\) .*not \(2, 3,"):
        require_fit(network, SEGMENTATION, 1, SHAPE)


@pytest.mark.parametrize(
    ("settings", "code", "words"),
    [
        (named("SegResnett"), "NETWORK_NAME", "did you mean SegRes"),
        (named("os.system"), "NETWORK_NAME", "no network of monai"),
        (named("nn.Linear"), "NETWORK_NAME", "no network of monai"),
        (named("__doc__"), "NETWORK_NAME", "no network of monai"),
        (named("Generator"), "NETWORK_NAME", "no number of input channels"),
        (named("SegResNet", init_filter=8), "NETWORK_ARGUMENTS", "did you mean init_filters?"),
        (named("SegResNet", init_filters="many"), "NETWORK_ARGUMENTS", "do not fit"),
        (named("SegResNet", act="$print()"), "COMPONENT_VALUE", "nothing is evaluated"),
        (named("DenseNet121", pretrained=True), "NETWORK_ARGUMENTS", "weights from elsewhere"),
        (named("Transchex"), "NETWORK_ARGUMENTS", "weights from elsewhere"),
        (NetworkSettings(arguments={"width": 4}), "NETWORK_ARGUMENTS", "set the network's name"),
    ],
    ids=lambda v: v.name if isinstance(v, NetworkSettings) else "",
)
def test_a_network_that_is_none_is_refused(settings: NetworkSettings, code: str, words: str) -> None:
    with pytest.raises(InputFault) as caught:
        build_network(SEGMENTATION, 1, settings, 0)
    assert caught.value.code == code
    assert words in str(caught.value)


def test_a_network_of_the_wrong_task_is_refused() -> None:
    network = build_network(SEGMENTATION, 1, named("DenseNet121", block_config=[1, 1]), 0)
    with pytest.raises(InputFault, match=r"NETWORK_OUTPUT: DenseNet121 makes \(2, 3\)"):
        require_fit(network, SEGMENTATION, 1, SHAPE)


def test_a_network_that_does_not_take_the_grid_is_refused() -> None:
    network = build_network(SEGMENTATION, 1, NetworkSettings(4), 0)
    with pytest.raises(InputFault, match="NETWORK_OUTPUT: UNet fails"):
        require_fit(network, SEGMENTATION, 1, (17, 16, 16))


def test_a_network_that_gives_more_than_one_thing_is_refused() -> None:
    small = {"patch_size": [8, 8, 8], "hidden_size": 12, "mlp_dim": 12, "num_layers": 1, "num_heads": 2}
    network = build_network(CLASSIFICATION, 1, named("ViT", classification=True, **small), 0, SHAPE)
    with pytest.raises(InputFault, match="NETWORK_OUTPUT: ViT makes tuple"):
        require_fit(network, CLASSIFICATION, 1, SHAPE)


def test_the_check_leaves_network_and_stream_as_they_are() -> None:
    network = build_network(CLASSIFICATION, 1, NetworkSettings(4), 0)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)
    require_fit(network, CLASSIFICATION, 1, SHAPE)
    assert torch.equal(torch.rand(2), expected)
    assert all(torch.equal(before[name], value) for name, value in network.state_dict().items())
    assert network.training
