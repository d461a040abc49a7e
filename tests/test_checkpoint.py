"""Files that are not weights are refused in one line that says what they are."""

from __future__ import annotations

import io
import pickle
import random
import zipfile
from pathlib import Path

import pytest
import torch

from pipeline.core.checkpoint import load_checkpoint, read_torch
from pipeline.core.errors import UserError


def saved(content: object) -> bytes:
    buffer = io.BytesIO()
    torch.save(content, buffer)
    return buffer.getvalue()


def zipped() -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("a.txt", "x")
    return buffer.getvalue()


SAFETENSORS = (2).to_bytes(8, "little") + b"{}" + bytes(20)
CASES = {
    "hello": (b"hello\n", "is a text file, not weights"),
    "json": (b'{"a": 1}\n', "is a text file, not weights"),
    "utf8": ("Grüße\n".encode(), "is a text file, not weights"),
    "html": (b"\n<!DOCTYPE html>\n<html><body>Log in</body></html>", "is a web page, not weights"),
    "empty": (b"", "is empty"),
    "lfs": (b"version https://git-lfs.github.com/spec/v1\noid sha256:ab\n", "is a Git LFS pointer"),
    "safetensors": (SAFETENSORS, "is a safetensors file"),
    "zip": (zipped(), "is damaged, or was not written by torch.save"),
    "pickle": (pickle.dumps({"path": Path("x")}), "is damaged, or was not written by torch.save"),
    "module": (saved({"m": torch.nn.Linear(2, 2)}), "holds Python objects (torch.nn.modules.linear.Linear)"),
    "half": (saved({"m": torch.zeros(1000)})[:2000], "is damaged, or was not written by torch.save"),
    "list": (saved([1]), "is of kind list; expected toy"),
    "bare": (saved({"kind": "toy"}), "lacks a config and a state_dict"),
    "numbers": (saved({"kind": "toy", "config": {}, "state_dict": {"w": 1}}), "lacks a config and a state_dict"),
}


@pytest.mark.parametrize("name", CASES)
def test_what_is_not_a_checkpoint_is_named(name: str, tmp_path: Path, recwarn: pytest.WarningsRecorder) -> None:
    data, message = CASES[name]
    path = tmp_path / f"{name}.pt"
    path.write_bytes(data)
    with pytest.raises(UserError) as error:
        load_checkpoint(path, "toy")
    assert f"{path} {message}" in str(error.value) and "\n" not in str(error.value)
    assert not recwarn.list


def test_a_missing_file_and_a_folder(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"none\.pt does not exist; expected weights; look elsewhere"):
        read_torch(tmp_path / "none.pt", "weights", "look elsewhere")
    with pytest.raises(UserError, match="is a folder"):
        read_torch(tmp_path, "weights", "look elsewhere")


def test_damaged_bytes_anywhere_are_one_line(tmp_path: Path) -> None:
    """Random damage never ends in another exception; what it hits may also be of no consequence."""
    whole, draw = saved({"kind": "toy", "config": {}, "state_dict": {"w": torch.ones(9)}}), random.Random(0)
    for trial in range(60):
        data = bytearray(whole)
        for _ in range(draw.choice([1, 20])):
            data[draw.randrange(len(data))] = draw.randrange(256)
        path = tmp_path / f"{trial}.pt"
        path.write_bytes(data)
        try:
            load_checkpoint(path, "toy")
        except UserError as error:
            assert "\n" not in str(error)
