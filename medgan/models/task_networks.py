"""Networks that read a volume, one of each task: what a study trains and what judges siblings."""

from __future__ import annotations

from typing import Literal

from torch import nn


def task_network(kind: Literal["segmentation", "classification"], channels: int, outputs: int, width: int) -> nn.Module:
    """Return a MONAI network, its weights drawn from torch's stream.

    For segmentation a residual U-Net of three levels (``width``, 2 ``width``, 4 ``width`` channels, instance norm):
    ``(B, channels, D, H, W)`` to ``(B, outputs, D, H, W)``. For classification a DenseNet of three blocks of two layers
    (growth ``width``, batch norm): to ``(B, outputs)``.
    """
    from monai.networks.nets import DenseNet, UNet

    if kind == "segmentation":
        return UNet(  # type: ignore[no-any-return]
            spatial_dims=3,
            in_channels=channels,
            out_channels=outputs,
            channels=(width, 2 * width, 4 * width),
            strides=(2, 2),
            num_res_units=2,
            norm="INSTANCE",
        )
    return DenseNet(  # type: ignore[no-any-return]
        spatial_dims=3,
        in_channels=channels,
        out_channels=outputs,
        init_features=2 * width,
        growth_rate=width,
        block_config=(2, 2, 2),
    )
