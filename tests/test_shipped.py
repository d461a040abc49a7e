"""The form in which weights ship, and the file that does."""

from __future__ import annotations

import hashlib
import sys
from pathlib import Path

import pytest
import safetensors.torch
import torch

from pipeline import convert
from pipeline.core.checkpoint import save_checkpoint
from pipeline.core.errors import UserError
from pipeline.core.runtime import run_main
from pipeline.dstm.checkpoint import KIND, load_dstm
from pipeline.dstm.config import to_plain
from pipeline.dstm.safetensors_file import read_safetensors, save_safetensors
from pipeline.pretrained import shipped
from tests.support.toy_inference import labels as segment
from tests.support.toy_inference import make_network, video

MAX_BYTES = 12_000_000
CPU = torch.device("cpu")


def test_the_file_in_the_repository() -> None:
    """Its digest is that of the code and of the model card."""
    card = (shipped.SHIPPED.parent / "README.md").read_text()
    data = shipped.shipped_weights().read_bytes()
    assert hashlib.sha256(data).hexdigest() == shipped.SHA256
    assert shipped.SHA256 in card and len(data) <= MAX_BYTES
    network = load_dstm(shipped.SHIPPED, CPU)
    assert not network.switches.depth and all(torch.isfinite(p).all() for p in network.parameters())


def test_a_copy_without_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shipped, "SHIPPED", tmp_path / "dstm-lite.safetensors")
    with pytest.raises(UserError, match=r"dstm-lite.safetensors does not exist; .* name other weights"):
        shipped.shipped_weights()


def test_ship_and_load(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    network = make_network(depth=False)
    save_checkpoint(tmp_path / "dstm.pt", KIND, to_plain(network.switches, network.config), network.state_dict())
    monkeypatch.setattr(sys, "argv", ["convert", "ship", str(tmp_path / "dstm.pt"), str(tmp_path / "a.safetensors")])
    assert run_main(convert.main) == 0
    data = (tmp_path / "a.safetensors").read_bytes()
    assert hashlib.sha256(data).hexdigest() in capsys.readouterr().out
    assert len(data) < 0.6 * (tmp_path / "dstm.pt").stat().st_size
    loaded = load_dstm(tmp_path / "a.safetensors", CPU)
    assert (loaded.switches, loaded.config) == (network.switches, network.config) and not loaded.training
    for name, value in loaded.state_dict().items():
        original = network.state_dict()[name]
        torch.testing.assert_close(value, original, rtol=2**-11 if original.ndim > 1 else 0, atol=6e-8)
    frames, first = video(4)
    agreement = (segment(loaded, frames, {0: first}) == segment(network, frames, {0: first})).mean()
    assert agreement > 0.99
    save_safetensors(tmp_path / "b.safetensors", network)
    assert (tmp_path / "b.safetensors").read_bytes() == data, "the same bytes again"


def test_files_that_cannot_be_loaded(tmp_path: Path) -> None:
    network = make_network(depth=False)
    path = tmp_path / "x.safetensors"
    with pytest.raises(UserError, match=r"x.safetensors does not exist"):
        read_safetensors(path)
    path.write_text("<html>" * 10)
    with pytest.raises(UserError, match=r"cannot be read .* expected weights written by pipeline.convert ship"):
        load_dstm(path, CPU)
    path.write_bytes(safetensors.torch.save({"a": torch.zeros(1)}))
    with pytest.raises(UserError, match=r"cannot be read \(no metadata 'dstm'\)"):
        load_dstm(path, CPU)
    save_safetensors(path, network)
    metadata = {"dstm": safetensors.safe_open(path, "pt").metadata()["dstm"]}
    tensors = safetensors.torch.load(path.read_bytes())
    del tensors["decoder.predict.bias"]
    path.write_bytes(safetensors.torch.save(tensors, metadata))
    with pytest.raises(UserError, match=r"another architecture .*decoder.predict.bias"):
        load_dstm(path, CPU)


def test_what_does_not_ship(tmp_path: Path) -> None:
    network = make_network(depth=False)
    with pytest.raises(UserError, match=r"ends in .safetensors"):
        convert.convert_ship(tmp_path / "a.pt", tmp_path / "b.pt")
    torch.nn.init.constant_(network.decoder.predict.weight, 1e6)
    with pytest.raises(UserError, match=r"decoder.predict.weight reaches 1e\+06; expected at most 65504"):
        save_safetensors(tmp_path / "b.safetensors", network)
