from __future__ import annotations

import io
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pipeline.core.errors import UserError
from pipeline.core.images import decode_mask, encode_mask
from pipeline.datasets.davis import open_davis
from pipeline.datasets.youtubevos import open_youtubevos
from pipeline.scoring.indexed_png import colour_type, decode_indexed
from pipeline.scoring.results import Results
from pipeline.scoring.sequence import scorable
from pipeline.scoring.submission import check, wanted_masks, write_submission
from tests.support.tiny_archives import Toy, davis_files, make_toy, write_folder, write_zip, youtubevos_files

VIDEOS = {"bear": make_toy(4, 1), "dogs": make_toy(5, 2)}


def png(image: Image.Image, **options: object) -> bytes:
    out = io.BytesIO()
    image.save(out, "PNG", **options)
    return out.getvalue()


@pytest.fixture
def davis(tmp_path: Path) -> Path:
    return write_zip(tmp_path / "test.zip", davis_files(VIDEOS, {"2017/test-dev": list(VIDEOS)}, masks=1))


@pytest.fixture
def masks(tmp_path: Path) -> Path:
    files = {f"{name}/{t:05d}.png": encode_mask(m) for name, toy in VIDEOS.items() for t, m in enumerate(toy.masks)}
    return write_folder(tmp_path / "masks", files)


def faults(davis: Path, masks: Path) -> list[str]:
    found = check(wanted_masks(open_davis(davis, "test-dev"), "davis"), Results(masks))
    return [str(fault).replace(f"{masks}/", "") for fault in found]


def test_fit_results_have_no_fault(davis: Path, masks: Path) -> None:
    assert faults(davis, masks) == []


def test_every_fault_is_named(davis: Path, masks: Path) -> None:
    small = VIDEOS["bear"].masks[1][:-2]
    rgb = Image.fromarray(VIDEOS["dogs"].frames[1])
    (masks / "bear/00000.png").unlink()
    (masks / "bear/00001.png").write_bytes(encode_mask(small))
    (masks / "bear/00002.png").write_bytes(encode_mask(VIDEOS["dogs"].masks[2]))
    (masks / "dogs/00001.png").write_bytes(png(rgb))
    (masks / "dogs/00002.png").write_bytes(png(Image.fromarray(VIDEOS["dogs"].masks[2])))
    (masks / "dogs/00003.png").write_bytes(encode_mask(VIDEOS["dogs"].masks[3])[:-30])
    (masks / "dogs/00004.png").write_bytes(b"GIF89a")
    (masks / "dogs/00005.png").write_bytes(encode_mask(VIDEOS["dogs"].masks[3]))
    (masks / "global_results-val.csv").write_text("J&F\n")
    (masks / "cat").mkdir()
    (masks / "cat/00000.png").write_bytes(b"")
    (masks / "empty").mkdir()
    found = faults(davis, masks)
    expected = [
        "cat: not expected; no sequence",
        "empty: not expected; no sequence",
        "dogs/00005.png: not expected; expected only",
        "global_results-val.csv: not expected",
        "bear/00000.png: missing",
        "bear/00001.png: 64x46; expected 64x48",
        "bear/00002.png: contains the ids 2; expected those of the first masks, 1",
        "dogs/00001.png: mode RGB; expected an indexed PNG (P)",
        "dogs/00002.png: mode grey (L)",
        "dogs/00003.png: the file cannot be decoded",
        "dogs/00004.png: the file cannot be decoded",
    ]
    assert len(found) == len(expected)
    for line, start in zip(found, expected, strict=True):
        assert line.startswith(start)


def test_a_missing_sequence_is_one_fault(davis: Path, masks: Path) -> None:
    (masks / "bear").rename(masks / "bears")
    assert [line.split(":")[0] for line in faults(davis, masks)] == ["bears", "bear"]


def test_davis_archive(davis: Path, masks: Path, tmp_path: Path) -> None:
    source = open_davis(davis, "test-dev")
    assert not scorable(source)
    write_submission(source, Results(masks), tmp_path / "out.zip", "davis")
    with zipfile.ZipFile(tmp_path / "out.zip") as archive:
        names = archive.namelist()
        assert np.array_equal(decode_mask(archive.read("dogs/00004.png"), ""), VIDEOS["dogs"].masks[4])
    assert names == [f"bear/{t:05d}.png" for t in range(4)] + [f"dogs/{t:05d}.png" for t in range(5)]
    assert faults(davis, tmp_path / "out.zip") == []


def test_no_archive_of_faulty_results(
    davis: Path, masks: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (masks / "dogs/00003.png").unlink()
    (masks / "bear/00001.png").write_bytes(b"")
    with pytest.raises(UserError, match="has 2 faults"):
        write_submission(open_davis(davis, "test-dev"), Results(masks), tmp_path / "out.zip", "davis")
    assert not (tmp_path / "out.zip").exists()
    printed = capsys.readouterr().out
    assert "dogs/00003.png: missing" in printed
    assert "bear/00001.png: the file cannot be decoded" in printed


def youtubevos(folder: Path, every: int) -> Path:
    """A valid split of two videos: masks only where objects first appear, object 2 of `b` late."""
    toys: dict[str, Toy] = {"a": make_toy(11 if every == 1 else 3, 1), "b": make_toy(16 if every == 1 else 4, 2)}
    late = "00005"
    files = youtubevos_files(toys, {"a": {"1": ["00000"]}, "b": {"1": ["00005"], "2": ["00010"]}}, "valid/", every)
    first = {"valid/Annotations/a/00000.png", f"valid/Annotations/b/{late}.png", "valid/Annotations/b/00010.png"}
    files = {name: data for name, data in files.items() if "Annotations" not in name or name in first}
    return write_zip(folder / "valid.zip", files)


@pytest.mark.parametrize("every", [1, 5])
def test_youtubevos_archive(tmp_path: Path, every: int) -> None:
    source = open_youtubevos(youtubevos(tmp_path, every), "valid")
    assert not scorable(source)
    wanted = wanted_masks(source, "youtubevos")
    assert [w.required for w in wanted] == [("00000", "00005", "00010"), ("00005", "00010", "00015")]
    assert [sorted(w.ids) for w in wanted] == [[1], [1, 2]]
    between = [f"{t:05d}" for t in range(16) if t % 5] if every == 1 else []
    assert wanted[1].optional == tuple(sorted(["00000", *between]))
    blank = encode_mask(np.zeros((48, 64), np.uint8))
    files = {f"{w.name}/{frame}.png": blank for w in wanted for frame in w.required}
    results = Results(write_folder(tmp_path / "masks", files | {"b/00000.png": blank}))
    write_submission(source, results, tmp_path / "out.zip", "youtubevos")
    with zipfile.ZipFile(tmp_path / "out.zip") as archive:
        assert archive.namelist() == [f"Annotations/{name}" for name in sorted(files)]
        archive.extractall(tmp_path / "unpacked")
    for packed in (tmp_path / "out.zip", tmp_path / "unpacked"):  # what is sent can itself be checked
        assert check(wanted, Results(packed)) == []
    (tmp_path / "unpacked/Annotations/a/00005.png").unlink()
    (tmp_path / "unpacked/Annotations/c").mkdir()
    found = [str(fault) for fault in check(wanted, Results(tmp_path / "unpacked"))]
    assert [fault.partition(": ")[0].removeprefix(f"{tmp_path}/") for fault in found] == [
        "unpacked/c",
        "unpacked/Annotations/a/00005.png",
    ]


def test_indexed_png_equals_the_general_decoder() -> None:
    rng = np.random.default_rng(0)
    ids = rng.integers(0, 256, (37, 53)).astype(np.uint8)
    grey = Image.fromarray(ids)
    few = Image.fromarray(ids // 128, mode="P")
    few.putpalette([0, 0, 0, 255, 0, 0])
    files = [encode_mask(ids), png(grey), png(grey, compress_level=0), png(few, bits=1), encode_mask(ids[:1, :1])]
    for data in files:
        assert np.array_equal(decode_indexed(data, "a"), decode_mask(data, "a"))
    assert [colour_type(data) for data in files] == [3, 0, 0, 3, 3]
    assert colour_type(b"") is None


def test_damaged_png_is_refused() -> None:
    data = encode_mask(np.arange(600, dtype=np.uint8).reshape(20, 30))
    for broken in (b"", data[:40], data[:-20], data.replace(b"IDAT", b"IDAX"), data[:60] + b"\0\0" + data[62:]):
        try:
            found = decode_indexed(broken, "a.png")
        except UserError as error:
            assert "a.png" in str(error)
        else:  # then the general decoder takes it too
            assert np.array_equal(found, decode_mask(broken, "a.png"))
