from __future__ import annotations

import copy
import hashlib
import json
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from pipeline.convert import convert_mannequin
from pipeline.core.errors import UserError
from pipeline.core.kernels.relu import rectify
from pipeline.hourglass.checkpoint import PUBLISHED, load_hourglass, read_any, read_published, save_hourglass
from pipeline.hourglass.config import HourglassConfig
from pipeline.hourglass.fused import FusedHourglass, fold
from pipeline.hourglass.network import KINDS, Hourglass, Inception

# What the network of google/mannequinchallenge (commit in the file) gave for the weights and frames of `noise`.
PUBLISHED_VALUES = json.loads((Path(__file__).parent / "fixtures" / "hourglass.json").read_text())
SMALL = HourglassConfig(width=0.25, stem_stride=2, input_height=64, input_width=96)


def noise(name: str, shape: tuple[int, ...]) -> NDArray[np.float64]:
    """Numbers in [-1, 1) that depend on a name and a position alone: an integer hash, the same on every machine."""
    with np.errstate(over="ignore"):
        bits = np.arange(int(np.prod(shape)), dtype=np.uint32) + np.uint32(zlib.crc32(name.encode()))
        for factor in (0x7FEB352D, 0x846CA68B):
            bits = (bits ^ (bits >> np.uint32(16))) * np.uint32(factor)
            bits ^= bits >> np.uint32(15)
    return (bits.astype(np.float64) / 2**31 - 1).reshape(shape)


def fill(model: torch.nn.Module) -> torch.nn.Module:
    """Give a network weights and statistics by `noise`, such that features neither vanish nor grow."""
    for name, tensor in model.state_dict().items():
        if not tensor.is_floating_point():
            continue
        values = noise(name, tuple(tensor.shape))
        if name.endswith("running_var"):
            values = 1 + values / 2
        elif tensor.ndim == 4:
            values = values * (6 / np.prod(tensor.shape[1:])) ** 0.5 / (4 if name.startswith("pred") else 1)
        else:
            values = values / 4 + (1 if name == "seq.1.weight" else 0)
        tensor.copy_(torch.from_numpy(values))
    return model.eval()


def frames(height: int, width: int) -> torch.Tensor:
    return torch.from_numpy((noise(f"frames {height}x{width}", (2, 3, height, width)) + 1) / 2).float()


def random_model(config: HourglassConfig = SMALL) -> Hourglass:
    model = Hourglass(config)
    fill(model)
    return model


@pytest.mark.parametrize("case", PUBLISHED_VALUES["cases"], ids=lambda c: f"{c['height']}x{c['width']}")
def test_equals_the_published_network(case: dict[str, Any]) -> None:
    with torch.inference_mode():
        outputs = random_model(PUBLISHED)(frames(case["height"], case["width"]))
    for name, output in zip(("log_depth", "confidence"), outputs):
        values, expected = output.double().flatten(), case[name]
        assert output.shape == (2, 1, case["height"], case["width"])
        assert float(values.mean()) == pytest.approx(expected["mean"], abs=1e-5)
        assert float(values.std()) == pytest.approx(expected["std"], abs=1e-5)
        at = [int(i) for i in expected["values"]]
        np.testing.assert_allclose(values[at], list(expected["values"].values()), atol=1e-5, rtol=0)


def test_published_keys_load_strictly(tmp_path: Path) -> None:
    state = random_model(PUBLISHED).state_dict()
    lines = "".join(f"{name} {list(tensor.shape)}\n" for name, tensor in state.items())
    assert hashlib.sha256(lines.encode()).hexdigest() == PUBLISHED_VALUES["keys_sha256"]
    old = {f"module.{k}": v for k, v in state.items() if "num_batches" not in k}  # of 2019, from within DataParallel
    torch.save(old, tmp_path / "net_G.pth")
    for read in (read_published, read_any):
        model = read(tmp_path / "net_G.pth")
        assert model.config == PUBLISHED and not model.training
        assert all(torch.equal(v, state[k]) for k, v in model.state_dict().items())


def test_another_network_is_refused(tmp_path: Path) -> None:
    torch.save(random_model().state_dict(), tmp_path / "other.pth")
    with pytest.raises(UserError, match="another network"):
        read_published(tmp_path / "other.pth")
    (tmp_path / "text.pth").write_text("no checkpoint")
    with pytest.raises(UserError, match="is a text file, not weights"):
        read_any(tmp_path / "text.pth")
    with pytest.raises(UserError, match="does not exist"):
        read_any(tmp_path / "none.pth")


def test_checkpoint_round_trip(tmp_path: Path) -> None:
    model = random_model()
    save_hourglass(tmp_path / "depth.pt", model)
    again = load_hourglass(tmp_path / "depth.pt")
    assert again.config == model.config and not again.training
    assert all(torch.equal(v, again.state_dict()[k]) for k, v in model.state_dict().items())


@pytest.mark.parametrize(("width", "stem_stride"), [(0.25, 1), (0.25, 2), (1.0, 1)])
def test_fused_equals_the_network(width: float, stem_stride: int) -> None:
    model = random_model(HourglassConfig(width, stem_stride, 32, 64))
    x = frames(32, 64)
    with torch.inference_mode():
        for ours, fused in zip(model(x), FusedHourglass(model)(x)):
            torch.testing.assert_close(fused, ours, atol=2e-5, rtol=1e-4)
            assert ours.std() > 1e-3  # else anything would be close


def test_bfloat16_stays_close() -> None:
    model, x = random_model(), frames(64, 96)
    with torch.inference_mode():
        exact, rounded = model(x)[0], FusedHourglass(model, torch.bfloat16)(x)[0]
    assert rounded.dtype == torch.float32
    assert (rounded - exact).abs().max() < 0.15 * exact.std()


def test_fold_is_convolution_then_norm() -> None:
    conv, norm = torch.nn.Conv2d(3, 5, 3, stride=2, padding=1), torch.nn.BatchNorm2d(5)
    fill(conv), fill(norm)
    x = frames(8, 10)
    torch.testing.assert_close(fold(conv, norm)(x), norm.eval()(conv(x)), atol=1e-5, rtol=1e-5)


def test_rectify_is_relu_also_in_bfloat16() -> None:
    values = torch.tensor([-3e38, -1.0, -1e-40, -0.0, 0.0, 1e-40, 0.5, 3e38, torch.inf, -torch.inf])
    for dtype in (torch.float32, torch.bfloat16):
        x, y = (values.to(dtype).clone().requires_grad_() for _ in range(2))
        ours, theirs = rectify(x * 1), torch.relu(y * 1)
        assert torch.equal(ours, theirs)
        gradient = torch.arange(1, 11, dtype=dtype)
        ours.backward(gradient), theirs.backward(gradient)
        assert x.grad is not None and y.grad is not None and torch.equal(x.grad, y.grad)


def test_joined_branches_train_as_separate_ones() -> None:
    """Output, gradients and running statistics of a block equal those of its branches run one by one."""
    torch.manual_seed(0)
    block = Inception(16, KINDS["C"], 0.25)
    branches = copy.deepcopy(block)
    x, y = (torch.rand(2, 16, 12, 14, generator=torch.Generator().manual_seed(1)).requires_grad_() for _ in range(2))
    ours, separate = block(x), torch.cat([branch(y) for branch in branches.convs], dim=1)
    torch.testing.assert_close(ours, separate)
    weight = torch.rand_like(ours)
    (ours * weight).sum().backward(), (separate * weight).sum().backward()
    torch.testing.assert_close(x.grad, y.grad)
    for mine, theirs in zip(block.parameters(), branches.parameters()):
        torch.testing.assert_close(mine.grad, theirs.grad, atol=1e-4, rtol=1e-4)
    for one, other in zip(block.buffers(), branches.buffers()):
        torch.testing.assert_close(one, other)


def test_a_batch_equals_its_items() -> None:
    model, x = random_model(), frames(64, 96)
    with torch.inference_mode():
        both = model(x)[0]
        torch.testing.assert_close(both[1:], model(x[1:])[0], atol=1e-5, rtol=1e-5)


def test_stem_stride_divides_the_output() -> None:
    with torch.inference_mode():
        log_depth, confidence = random_model()(frames(64, 96))
    assert log_depth.shape == confidence.shape == (2, 1, 32, 48)
    assert 0 <= float(confidence.min()) <= float(confidence.max()) <= 1


def test_sides_must_fit() -> None:
    with pytest.raises(ValueError, match="multiples of 32"):
        random_model()(frames(48, 96))


@pytest.mark.parametrize(
    ("key", "value"), [("width", 0.0), ("stem_stride", 4), ("input_height", 100), ("input_width", 0)]
)
def test_config_is_checked(key: str, value: float) -> None:
    good: dict[str, Any] = {"width": 0.5, "stem_stride": 2, "input_height": 64, "input_width": 96}
    with pytest.raises(UserError, match=f"hourglass.{key}"):
        HourglassConfig(**good | {key: value})


def test_convert_writes_a_checkpoint_of_ours(tmp_path: Path) -> None:
    published = random_model(PUBLISHED)
    torch.save(published.state_dict(), tmp_path / "net_G.pth")
    convert_mannequin(tmp_path / "net_G.pth", tmp_path / "models" / "depth.pt")
    again = load_hourglass(tmp_path / "models" / "depth.pt")
    assert all(torch.equal(v, again.state_dict()[k]) for k, v in published.state_dict().items())
