"""The architecture of a D-STM network; stored in every checkpoint, so that the network can be rebuilt from it."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Annotated, Any, Literal

from pipeline.core.errors import UserError
from pipeline.core.params import Count, NonNegative, Range, build


@dataclass(frozen=True)
class Switches:
    """The three columns of Table 2 that change the network (`model.*` in params.yaml).

    Attributes:
        resnest: ResNeSt instead of ResNet in both encoders: `network.resnest_backbone` instead of
            `network.resnet_backbone`. If both name the same network, the column does not exist, and false is refused.
        depth: both encoders take a depth map in addition to the frame.
        aspp: atrous spatial pyramid pooling on the memory readout.
        depth_input: content of the depth channel: the estimate, or one of the controls that show whether depth
            helps as depth (`pipeline/datasets/depth_input.py`); not in the paper.
    """

    resnest: bool
    depth: bool
    aspp: bool
    depth_input: Literal["estimated", "constant", "shuffled", "other_video", "luminance"]


@dataclass(frozen=True)
class NetworkConfig:
    """Sizes and the choices the paper leaves open (`shared.network` and `profiles.*.network` in params.yaml).

    Attributes:
        resnest_backbone: timm name of the ResNeSt, or of any network with features at strides 4, 8 and 16.
        resnet_backbone: timm name of the network used instead if `model.resnest` is false; the same name in a profile
            that has one backbone.
        width: factor on the channels of a ResNet or ResNeSt; 1 for published weights.
        pretrained: source of the backbone's ImageNet weights: `true` from timm, `package` from an installed
            package (`dstm/imagenet_weights.py:PACKAGES`), any other string from that file; `false`: random weights.
        norm: `frozen` BatchNorm (statistics and affine; needs pretrained weights), `batch` in training mode or `group`.
        stride: stride of the last encoder stage that is used, 16 as in STM or 8 for small frames.
        key_channels: Ck.
        value_channels: Cv.
        decoder_channels: channels of the decoder and of ASPP's output.
        scale_keys: divide k·k by sqrt(Ck) before the softmax, as STM's released model does; Eq. (3) has no such factor.
        value_mask: append the down-sampled object masks to the memory value (not in the paper).
        shared_start: both encoders and key heads start from the same weights (not in the paper).
        key_std: standard deviation to which keys are scaled on the first batch; 0: not scaled (not in the paper).
        aspp_dilations: dilations of ASPP's 3x3 branches.
    """

    resnest_backbone: str
    resnet_backbone: str
    width: Annotated[float, Range(0, 16, above=True)]
    pretrained: bool | str
    norm: Literal["frozen", "batch", "group"]
    stride: Literal[8, 16]
    key_channels: Annotated[int, Range(1, 65536)]
    value_channels: Annotated[int, Range(1, 65536)]
    decoder_channels: Annotated[int, Range(1, 65536)]
    scale_keys: bool
    value_mask: bool
    shared_start: bool
    key_std: NonNegative
    aspp_dilations: tuple[Count, ...]

    def backbone(self, switches: Switches) -> str:
        """The timm name of the backbone of both encoders.

        Raises:
            UserError: `model.resnest` is off where that changes nothing.
        """
        if not switches.resnest and self.resnet_backbone == self.resnest_backbone:
            raise UserError(
                f"model.resnest is false, but network.resnest_backbone and network.resnet_backbone are both "
                f"{self.resnet_backbone}, so that the switch changes nothing; expected true; leave it on, or name "
                "another network.resnet_backbone"
            )
        return self.resnest_backbone if switches.resnest else self.resnet_backbone


def to_plain(switches: Switches, network: NetworkConfig) -> dict[str, Any]:
    """The configuration as plain values for a checkpoint."""
    return {
        "model": asdict(switches),
        "network": {**asdict(network), "aspp_dilations": list(network.aspp_dilations)},
    }


def from_plain(config: dict[str, Any]) -> tuple[Switches, NetworkConfig]:
    """The inverse of `to_plain`, strict."""
    return (
        build(Switches, config.get("model"), "checkpoint.model"),
        build(NetworkConfig, config.get("network"), "checkpoint.network"),
    )
