"""What the doctor says of data sets with one fault each."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pipeline import doctor
from pipeline.core.errors import UserError
from pipeline.core.images import encode_jpeg, encode_mask
from pipeline.core.layout import Layout
from pipeline.diagnosis.examine import examine
from pipeline.diagnosis.findings import Diagnosis, table
from pipeline.diagnosis.videos import spread
from tests.support.tiny_archives import davis_files, make_toy, write_zip, youtubevos_files

TOYS = {"bear": make_toy(3, 1), "dogs": make_toy(3, 2)}
Files = dict[str, bytes]


def grey(values: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(values).save(buffer, "PNG")
    return buffer.getvalue()


def davis() -> Files:
    return davis_files(TOYS, {"2017/train": ["bear"], "2017/val": ["dogs"]})


def found(dataset: str, raw: Path, limit: int | None = None) -> dict[str, tuple[str, int]]:
    return {f.what: (f.level, f.n) for f in examine(dataset, raw, limit).findings.values()}


def write(tmp_path: Path, files: Files, name: str = "DAVIS-2017-trainval-480p.zip") -> Path:
    return write_zip(tmp_path / "raw" / name, files).parent


def test_a_good_set_differs_only_in_its_number(tmp_path: Path) -> None:
    diagnosis = examine("davis", write(tmp_path, davis()), None)
    assert list(diagnosis.findings) == ["not as many as published"]
    assert diagnosis.findings["not as many as published"].n == 4
    assert diagnosis.counts == {
        "videos of train": 1, "frames of train": 3, "masks of train": 3, "videos looked at": 2,
        "videos of val": 1, "frames of val": 3, "masks of val": 3,
    }  # fmt: skip
    assert diagnosis.as_metrics()["errors"] == 0


MASK = "DAVIS/Annotations/480p/dogs/00001.png"
FAULTS: dict[str, tuple[Callable[[Files], object], str, tuple[str, int]]] = {
    "torn frame": (
        lambda files: files.update({"DAVIS/JPEGImages/480p/dogs/00001.jpg": b"\xff\xd8 torn"}),
        "unreadable frame",
        ("error", 1),
    ),
    "orphan": (lambda files: files.pop("DAVIS/JPEGImages/480p/dogs/00001.jpg"), "stages will refuse it", ("error", 1)),
    "another size": (
        lambda files: files.update({MASK: encode_mask(np.ones((9, 9), np.uint8))}),
        "unusable mask",
        ("error", 1),
    ),
    "empty": (
        lambda files: files.update({MASK: encode_mask(np.zeros((48, 64), np.uint8))}),
        "mask without an object",
        ("warning", 1),
    ),
    "grey": (
        lambda files: files.update({MASK: grey(TOYS["dogs"].masks[1])}),
        "mask without a palette (mode L)",
        ("warning", 1),
    ),
    "gap": (
        lambda files: files.update({MASK: encode_mask(TOYS["dogs"].masks[1] * 3)}),
        "object ids with gaps",
        ("warning", 1),
    ),
}


@pytest.mark.parametrize("fault", sorted(FAULTS))
def test_a_fault_of_davis_is_found(tmp_path: Path, fault: str) -> None:
    spoil, what, expected = FAULTS[fault]
    files = davis()
    spoil(files)
    assert found("davis", write(tmp_path, files))[what] == expected


def test_objects_and_meta_json_of_youtubevos(tmp_path: Path) -> None:
    seen = ["00000", "00005", "00010"]
    objects = {"bear": {"1": seen, "2": seen}, "dogs": {"1": seen}}
    raw = write(tmp_path, youtubevos_files(TOYS, objects), "train.zip")
    faults = found("youtubevos", raw)
    assert faults["object that is not in meta.json"] == ("warning", 1)  # dogs shows 1 and 2
    assert faults["object of meta.json in no mask"] == ("warning", 1)  # bear shows 1


def test_stills(tmp_path: Path) -> None:
    disc = TOYS["bear"].masks[0] * 255
    jpeg = encode_jpeg(TOYS["bear"].frames[0])
    masks = {"1": disc, "2": disc * 0, "3": disc[:-1]}
    files = {f"MSRA10K_Imgs_GT/Imgs/{i}.png": grey(mask) for i, mask in masks.items()}
    files |= {f"MSRA10K_Imgs_GT/Imgs/{i}.jpg": jpeg for i in masks}
    faults = found("msra10k", write(tmp_path, files, "MSRA10K_Imgs_GT.zip"))
    assert faults["image without an object"] == ("warning", 1)
    assert faults["unusable image or mask"] == ("error", 1)
    only = found("msra10k", tmp_path / "raw", limit=1)  # the first image alone
    assert set(only) == {"not as many as published"}


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    layout = Layout(tmp_path, "sample")
    for name in ("davis", "voc"):
        (layout.raw(name)).mkdir(parents=True)
        (layout.raw(name) / "manifest.json").write_text(json.dumps({"files": []}))
    doctor.run(["davis", "voc"], layout, None)
    assert "voc         no data (none)" in capsys.readouterr().out
    files = davis()
    files["DAVIS/JPEGImages/480p/dogs/00001.jpg"] = b"torn"
    write_zip(layout.raw("davis") / "d.zip", files)
    with pytest.raises(UserError, match="2 errors in davis; expected usable data"):
        doctor.run(["davis", "voc"], layout, None)
    with pytest.raises(UserError, match="does not exist"):
        open_error = examine("msra10k", layout.raw("msra10k"), None).findings["stages will refuse it"]
        raise UserError(open_error.example)
    assert doctor.parse_arguments(["davis", "--limit", "3"]).limit == 3
    with pytest.raises(SystemExit):
        doctor.parse_arguments(["--limit", "0"])


def test_a_row_for_each_kind() -> None:
    diagnosis = Diagnosis("davis", {"videos": 1200})
    for i in range(3):
        diagnosis.add("warning", "odd", f"place {i}")
    diagnosis.add("error", "bad", "there")
    assert table([diagnosis]) == [
        "davis       1,200 videos",
        "  error          1 x bad: there",
        "  warning        3 x odd: place 0",
    ]
    assert diagnosis.as_metrics() == {"videos": 1200, "errors": 1, "warnings": 3}


def test_spread() -> None:
    assert spread(range(10), None) == list(range(10)) == spread(range(10), 10)
    assert spread(range(10), 4) == [0, 3, 6, 9]
    assert spread(range(10), 1) == [0]
