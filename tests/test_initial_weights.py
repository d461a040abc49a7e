"""Weights to start from: what fits is taken, everything else is listed."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from pipeline.core.checkpoint import save_checkpoint
from pipeline.core.errors import UserError
from pipeline.dstm.checkpoint import KIND
from pipeline.dstm.config import to_plain
from pipeline.dstm.network import DSTM
from pipeline.training.initial import covers_encoders, fill, read_weights
from pipeline.training.stage import weight_inputs
from pipeline.training.state import make_state
from tests.support.toy_network import ALL_ON, TINY
from tests.support.toy_training import TRAINING

CPU = torch.device("cpu")
SMALL = replace(TINY, norm="group")


def network(seed: int, aspp: bool = True, depth: bool = True, key_channels: int = 8) -> DSTM:
    torch.manual_seed(seed)
    return DSTM(replace(ALL_ON, aspp=aspp, depth=depth), replace(SMALL, key_channels=key_channels))


def test_an_equal_network_is_taken_whole(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    one, other = network(0), network(1)
    save_checkpoint(tmp_path / "a.pt", KIND, to_plain(one.switches, one.config), one.state_dict())
    weights = read_weights(tmp_path / "a.pt")
    assert covers_encoders(other, weights)
    fill(other, weights, tmp_path / "a.pt")
    assert all(torch.equal(value, other.state_dict()[name]) for name, value in one.state_dict().items())
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 1 and lines[0].endswith(f"{len(weights)} of {len(weights)} tensors taken as initial weights")


def test_what_does_not_fit_is_listed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """From a network without depth and with longer keys to one without ASPP's counterpart."""
    one, other = network(0, depth=False, key_channels=16), network(1, aspp=False)
    before = {name: value.clone() for name, value in other.state_dict().items()}
    fill(other, one.state_dict(), tmp_path / "a.pt")
    shapes = {name: value.shape for name, value in one.state_dict().items()}
    for name, value in other.state_dict().items():
        fits = shapes.get(name) == value.shape
        assert torch.equal(value, one.state_dict()[name] if fits else before[name]), name
    _, not_taken, own = capsys.readouterr().out.splitlines()
    assert not_taken.startswith("not taken from it: aspp.") and "query_heads.key (2)" in not_taken
    assert "query_encoder.depth_stem (1)" in own and "aspp.weight (1)" in own and "query_heads.key (2)" in own


def test_the_averaged_weights_of_a_resume_state_are_taken(tmp_path: Path) -> None:
    one = network(0)
    state = make_state(one, replace(TRAINING, ema_decay=0.5), CPU, torch.float32)
    first = {name: p.detach().clone() for name, p in one.named_parameters()}
    for _ in range(2):
        for p in one.parameters():
            p.grad = torch.ones_like(p)
        state.update()
    state.save(tmp_path / "state.pt")
    weights = read_weights(tmp_path / "state.pt")
    assert weights.keys() == one.state_dict().keys()
    name = "decoder.predict.weight"
    # Adam moves each weight by lr in each step; the average starts after the first one
    torch.testing.assert_close(weights[name], first[name] - 1.5 * TRAINING.lr, atol=1e-6, rtol=0)


def test_user_errors(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"does not exist; expected weights to start from \(init_from\)"):
        read_weights(tmp_path / "none.pt")
    save_checkpoint(tmp_path / "h.pt", "hourglass", {}, {"w": torch.zeros(1)})
    with pytest.raises(UserError, match="is of kind hourglass; expected dstm or dstm-training"):
        read_weights(tmp_path / "h.pt")
    with pytest.raises(UserError, match="has no weight that fits the query encoder; expected those of a resnest14d"):
        fill(network(0), {"w": torch.zeros(1)}, tmp_path / "a.pt")
    with pytest.raises(UserError, match=r"init_from is missing\.pt, which is not a file"):
        weight_inputs(replace(TRAINING, init_from="missing.pt"), SMALL)
    assert weight_inputs(TRAINING, replace(SMALL, pretrained="package")) == {}
