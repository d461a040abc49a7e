"""Scoring of any two folders of masks, and the names that results must have."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from pipeline.core.errors import UserError
from pipeline.core.images import encode_jpeg, encode_mask
from pipeline.evaluate import parse_arguments, run
from tests.support.tiny_archives import davis_files, make_toy, write_folder, write_zip

TOYS = {"bear": make_toy(6, 1), "dogs": make_toy(5, 2)}


def mask_files(masks: dict[str, NDArray[np.uint8]], every: int = 1, start: int = 0) -> dict[str, bytes]:
    """Files of masks; `every` th frame, numbered from `start`."""
    return {
        f"{name}/{t + start:05d}.png".lstrip("/"): encode_mask(mask)
        for name, frames in masks.items()
        for t, mask in enumerate(frames)
        if t % every == 0
    }


def moved(masks: NDArray[np.uint8]) -> NDArray[np.uint8]:
    return np.roll(masks, 2, axis=2)


TRUTH = {name: toy.masks for name, toy in TOYS.items()}
GUESS = {name: moved(masks) for name, masks in TRUTH.items()}


def evaluate(tmp_path: Path, *arguments: object) -> dict[str, float]:
    out = tmp_path / "scores.json"
    run(parse_arguments([*map(str, arguments), "--output", str(out), "--jobs", "1"]))
    scores: dict[str, float] = json.loads(out.read_text())
    return scores


def refused(tmp_path: Path, *arguments: object) -> str:
    with pytest.raises(UserError) as error:
        evaluate(tmp_path, *arguments)
    assert "\n" not in str(error.value)
    return str(error.value)


def test_any_layout_gives_the_same(tmp_path: Path) -> None:
    """With the protocol of DAVIS, the scores of a DAVIS with the same masks, wherever the masks are."""
    davis = write_zip(tmp_path / "DAVIS.zip", davis_files(TOYS, {"2017/val": list(TOYS)}))
    plain = write_folder(tmp_path / "masks", mask_files(GUESS))
    expected = evaluate(tmp_path, "--davis", davis, "--results", plain)
    truth = mask_files(TRUTH)
    below = {f"Annotations/1080p/{name}": data for name, data in truth.items()}
    beside = {f"x/JPEGImages/Full-Resolution/{name[:-4]}.jpg": encode_jpeg(TOYS["bear"].frames[0]) for name in truth}
    layouts = [
        write_folder(tmp_path / "plain", truth | {".DS_Store": b"", "readme.txt": b""}),
        write_zip(tmp_path / "below.zip", below),
        write_folder(tmp_path / "x", {f"x/Annotations/Full-Resolution/{n}": d for n, d in truth.items()} | beside),
        davis,
    ]
    nested = write_zip(tmp_path / "nested.zip", {f"Annotations/480p/{n}": d for n, d in mask_files(GUESS).items()})
    for layout in layouts:
        for results in (plain, nested):
            assert evaluate(tmp_path, "--truth", layout, "--protocol", "davis", "--results", results) == expected


def test_sparse_truth_and_late_objects_by_hand(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Object 1 from frame 0, object 2 from frame 4; annotated are frames 0, 4 and 8; each is scored after its first."""
    box = np.zeros((9, 20, 30), np.uint8)
    box[:, 2:12, 2:12] = 1
    box[4:, 2:12, 16:26] = 2
    guess = box.copy()
    guess[4, 2:7, 2:12] = 0  # half of object 1 in a scored frame
    guess[4, 2:12, 16:26] = 0  # nothing of object 2, in its first frame, which is not scored
    guess[8, 2:12, 21:26] = 0  # half of object 2 in its only scored frame
    guess[5] = 0  # a frame without annotation
    truth = write_folder(tmp_path / "truth", mask_files({"a": box}, every=4))
    results = write_folder(tmp_path / "masks", mask_files({"a": guess}))
    scores = evaluate(tmp_path, "--truth", truth, "--results", results)
    assert scores["J"]["mean"] == pytest.approx((0.75 + 0.5) / 2)  # type: ignore[index]
    assert "6 masks are of frames without annotation and are not scored" in capsys.readouterr().out


def test_a_single_sequence_may_lie_in_the_folders_themselves(tmp_path: Path) -> None:
    flat = write_folder(tmp_path / "first", mask_files({"": TRUTH["dogs"]}))
    deep = write_folder(tmp_path / "second", mask_files({"dogs": TRUTH["dogs"]}))
    guesses = [
        write_folder(tmp_path / "third", mask_files({"": GUESS["dogs"]})),
        write_folder(tmp_path / "fourth", mask_files({"run7": GUESS["dogs"]})),
    ]
    found = [evaluate(tmp_path, "--truth", truth, "--results", g)["J&F"] for truth in (flat, deep) for g in guesses]
    assert len(set(found)) == 1 and 0.5 < found[0] < 1


def test_black_and_white_masks_are_one_object(tmp_path: Path) -> None:
    """If 255 is the only id, it is the object, and so is any id in results; together with other ids it is void."""
    white = {"a": np.where(TRUTH["bear"] > 0, np.uint8(255), np.uint8(0))}
    truth = write_folder(tmp_path / "truth", mask_files(white))
    for number, ids in enumerate((white["a"], TRUTH["bear"])):
        results = write_folder(tmp_path / f"masks{number}", mask_files({"a": ids}))
        assert evaluate(tmp_path, "--truth", truth, "--results", results)["J&F"] == 1
    with_void = {"a": TRUTH["bear"].copy()}
    with_void["a"][:, :5] = 255
    truth = write_folder(tmp_path / "void", mask_files(with_void))
    results = write_folder(tmp_path / "ids", mask_files({"a": np.where(with_void["a"] == 255, 0, with_void["a"])}))
    assert evaluate(tmp_path, "--truth", truth, "--results", results)["J&F"] == 1


def test_unfit_truth_is_refused(tmp_path: Path) -> None:
    results = write_folder(tmp_path / "masks", mask_files(GUESS))

    def fault(files: dict[str, bytes], *arguments: object) -> str:
        shutil.rmtree(tmp_path / "truth", ignore_errors=True)
        write_folder(tmp_path / "truth", files)
        return refused(tmp_path, "--truth", tmp_path / "truth", "--results", results, *arguments)

    truth = mask_files(TRUTH)
    sizes = {f"Annotations/{size}/{n}": d for size in ("480p", "1080p") for n, d in truth.items()}
    assert "contains no PNG" in fault({"notes.txt": b""})
    assert "contains masks in 1080p and 480p; expected them in one folder; choose with --resolution" in fault(sizes)
    assert "no mask in Annotations/720p/; expected some; correct --resolution" in fault(sizes, "--resolution", "720p")
    two = {f"{top}/Annotations/{n}": d for top in ("train", "val") for n, d in truth.items()}
    assert "contains masks in train/Annotations/ and val/Annotations/" in fault(two)
    empty = mask_files({"bear": TRUTH["bear"], "dogs": TRUTH["dogs"] * 0})
    assert "no mask of dogs has an object" in fault(empty)
    assert "bear/00002.png cannot be decoded" in fault(truth | {"bear/00002.png": b"no image"})
    assert "has no annotation beyond the first masks" in fault(mask_files({n: m[:1] for n, m in TRUTH.items()}))
    shutil.rmtree(tmp_path / "truth")
    assert "does not exist" in refused(tmp_path, "--truth", tmp_path / "truth", "--results", results)
    good = write_folder(tmp_path / "sizes", sizes)
    assert evaluate(tmp_path, "--truth", good, "--resolution", "1080p", "--results", results)["J&F"] > 0.5


@pytest.mark.parametrize("kind", ["davis", "truth"])
def test_names_that_belong_to_no_frame(kind: str, tmp_path: Path) -> None:
    """Results numbered from another first frame, an additional mask, and frames without one, at both ends."""
    files = davis_files(TOYS, {"2017/val": list(TOYS)})
    root = write_folder(tmp_path / "data", files) / "DAVIS"

    def fault(results: dict[str, bytes]) -> str:
        shutil.rmtree(tmp_path / "masks", ignore_errors=True)
        write_folder(tmp_path / "masks", results)
        return refused(tmp_path, f"--{kind}", root, "--results", tmp_path / "masks")

    right = mask_files(GUESS)
    from_one = fault(mask_files(GUESS, start=1))
    assert "masks/bear/00006.png belongs to no frame of bear, and frame 00000 has no mask" in from_one
    assert "expected masks named like the frames, 00000 to 00005; rename or remove them" in from_one
    assert "dogs/frame7.png belongs to no frame of dogs" in fault(right | {"dogs/frame7.png": right["dogs/00001.png"]})
    for name in ("bear/00000.png", "bear/00003.png", "dogs/00004.png"):
        assert f"masks/{name} is missing" in fault({n: d for n, d in right.items() if n != name})


def test_without_frames_a_shifted_result_lacks_a_mask(tmp_path: Path) -> None:
    truth = write_folder(tmp_path / "truth", mask_files(TRUTH))
    results = write_folder(tmp_path / "masks", mask_files(GUESS, start=1))
    assert "bear/00000.png is missing" in refused(tmp_path, "--truth", truth, "--results", results)


def test_full_resolution_davis(tmp_path: Path) -> None:
    files = {n.replace("480p", "Full-Resolution"): d for n, d in davis_files(TOYS, {"2017/val": list(TOYS)}).items()}
    root = write_folder(tmp_path / "data", files)
    results = write_folder(tmp_path / "masks", mask_files(TRUTH))
    assert evaluate(tmp_path, "--davis", root, "--results", results)["J&F"] == 1
    write_folder(tmp_path / "data", {n.replace("Full-Resolution", "1080p"): d for n, d in files.items()})
    assert "in 1080p, Full-Resolution; expected 480p or only one" in refused(
        tmp_path, "--davis", root, "--results", results
    )
    assert evaluate(tmp_path, "--davis", root, "--resolution", "1080p", "--results", results)["J&F"] == 1


@pytest.mark.parametrize("option", ["--output", "--per-object", "--submission"])
def test_places_to_write_are_checked_before_the_work(option: str, tmp_path: Path) -> None:
    """The data do not even exist, and still it is the place that is complained of."""
    data = ("--davis", tmp_path / "none", "--results", tmp_path / "none")
    (tmp_path / "file").write_text("")
    for place, message in ((tmp_path, "is a folder; expected a file"), (tmp_path / "file/x.json", "cannot be written")):
        with pytest.raises(UserError, match=message) as error:
            run(parse_arguments([str(a) for a in (*data, option, place)]))
        assert f"{option} {place} " in str(error.value) and "\n" not in str(error.value)
