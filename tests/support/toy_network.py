"""The configuration of a network that is small enough for tests."""

from __future__ import annotations

from pipeline.dstm.config import NetworkConfig, Switches

TINY = NetworkConfig(
    resnest_backbone="resnest14d",
    resnet_backbone="resnet14t",
    width=0.125,
    pretrained=False,
    norm="batch",
    stride=16,
    key_channels=8,
    value_channels=16,
    decoder_channels=8,
    scale_keys=True,
    value_mask=False,
    shared_start=False,
    key_std=0.0,
    aspp_dilations=(1, 2),
)
ALL_ON = Switches(resnest=True, depth=True, aspp=True, depth_input="estimated")
