"""A user's own frames: which files they are, in which order, and what is refused or said about them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from pipeline.core.errors import UserError
from pipeline.core.images import encode_jpeg, encode_png
from pipeline.footage.footage import ImageFootage, VideoFootage, open_footage
from tests.support.tiny_archives import make_toy
from tests.support.tiny_footage import counted, number_of, write_frames, write_video

RGB = make_toy(1, 2, 40, 56).frames[0]


def test_images_of_all_kinds(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Grey is repeated, alpha dropped and said, an EXIF orientation applied; the upper 8 bits of 16 count."""
    deep = np.arange(40 * 56, dtype=np.uint16).reshape(40, 56) * 29
    alpha = np.random.default_rng(0).integers(0, 256, (40, 56)).astype(np.uint8)
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90 degrees clockwise
    (tmp_path / "a0.png").write_bytes(encode_png(RGB[..., 0]))
    Image.fromarray(np.dstack([RGB, alpha])).save(tmp_path / "a1.PNG")
    Image.fromarray(np.ascontiguousarray(np.rot90(RGB))).save(tmp_path / "a2.JPG", exif=exif, quality=95)
    Image.fromarray(np.ascontiguousarray(np.rot90(RGB))).save(tmp_path / "a3.png", exif=exif)
    cv2.imwrite(str(tmp_path / "a4.png"), deep)
    cv2.imwrite(str(tmp_path / "a5.tiff"), np.dstack([deep, deep, deep]))
    Image.fromarray(RGB).convert("CMYK").save(tmp_path / "a6.jpeg", quality=95)
    Image.fromarray(RGB).quantize(128).save(tmp_path / "a7.bmp")
    Image.fromarray(RGB).save(tmp_path / "a8.webp", lossless=True)
    shots = {shot.name: shot.rgb for shot in open_footage(str(tmp_path)).shots()}
    assert list(shots) == [f"a{i}" for i in range(9)] and all(rgb.dtype == np.uint8 for rgb in shots.values())
    np.testing.assert_array_equal(shots["a0"], np.repeat(RGB[..., :1], 3, axis=2))
    np.testing.assert_array_equal(shots["a4"], np.repeat((deep // 256)[..., None], 3, axis=2))
    np.testing.assert_array_equal(shots["a5"], np.repeat((deep // 256)[..., None], 3, axis=2))
    for name in ("a1", "a3", "a8"):
        np.testing.assert_array_equal(shots[name], RGB)
    for name in ("a2", "a6", "a7"):
        assert np.abs(shots[name].astype(int) - RGB).mean() < 6, name
    assert "1 image with transparency (a1.PNG)" in capsys.readouterr().out


@pytest.mark.parametrize("form", ["PNG", "WEBP", "JPEG", "TIFF"])
def test_every_exif_orientation(tmp_path: Path, form: str) -> None:
    """Against the definition of the tag: which side of what is seen the first row and the first column are."""
    rows, columns = np.mgrid[:40, :56]
    seen = np.dstack([rows * 6, columns * 4, 0 * rows]).astype(np.uint8)
    flip_rows, flip_columns, turn = seen[::-1], seen[:, ::-1], seen.transpose(1, 0, 2)
    stored = {
        1: seen,
        2: flip_columns,  # first row at the top, first column on the right
        3: seen[::-1, ::-1],  # bottom, right
        4: flip_rows,  # bottom, left
        5: turn,  # left, top
        6: flip_columns.transpose(1, 0, 2),  # right, top
        7: seen[::-1, ::-1].transpose(1, 0, 2),  # right, bottom
        8: flip_rows.transpose(1, 0, 2),  # left, bottom
        9: seen,  # not defined
    }
    for orientation, rgb in stored.items():
        exif = Image.Exif()
        exif[0x0112] = orientation
        options = {"lossless": True} if form == "WEBP" else {"quality": 98} if form == "JPEG" else {}
        Image.fromarray(np.ascontiguousarray(rgb)).save(tmp_path / f"{orientation}", form, exif=exif, **options)
        (tmp_path / f"{orientation}").rename(tmp_path / f"{orientation}.{form.lower()}")
    shots = list(open_footage(str(tmp_path)).shots())
    assert [shot.name for shot in shots] == [str(i) for i in stored]
    for shot in shots:
        np.testing.assert_allclose(shot.rgb.astype(int), seen, atol=12 if form == "JPEG" else 0)


@pytest.mark.filterwarnings("ignore::UserWarning:PIL")
@pytest.mark.parametrize("form", ["PNG", "WEBP", "JPEG"])
def test_damaged_exif_is_no_fault_of_the_pixels(tmp_path: Path, form: str) -> None:
    rng = np.random.default_rng(0)
    exif = Image.Exif()
    exif[0x0112] = 1
    whole = exif.tobytes()
    for i in range(30):
        data = bytearray(whole[: rng.integers(8, len(whole) + 1)])
        data[6 + rng.integers(len(data) - 6)] = 251
        options = {"lossless": True} if form == "WEBP" else {}
        Image.fromarray(RGB).save(tmp_path / f"{i}.{form.lower()}", form, exif=bytes(data), **options)
    shots = list(open_footage(str(tmp_path)).shots())
    assert len(shots) == 30 and {shot.rgb.shape for shot in shots} == {RGB.shape}


def test_order_and_what_is_left_out(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Numbers count by value, whatever their zeros. Hidden files, films and texts are no images; others are named."""
    for name in ("f10.jpg", "f9.JPEG", "f010b.jpg", "f011.jpg", "f8 (2).jpg", "f8.jpg", "._f10.jpg"):
        (tmp_path / name).write_bytes(encode_jpeg(RGB))
    for name in ("notes.txt", "f10.mov", "Thumbs.db", "f12.heic", "f13.gif"):
        (tmp_path / name).write_bytes(b"?")
    (tmp_path / "folder.png").mkdir()
    (tmp_path / "gone.jpg").symlink_to(tmp_path / "nowhere.jpg")
    names = [shot.name for shot in open_footage(str(tmp_path)).shots()]
    assert names == ["f8", "f8 (2)", "f9", "f10", "f010b", "f011"]
    assert "4 images left out (f12.heic, f13.gif, folder.png and 1 more)" in capsys.readouterr().out
    assert [shot.name for shot in open_footage(str(tmp_path / "f*1*.jpg")).shots()] == ["f10", "f010b", "f011"]
    assert not capsys.readouterr().out


@pytest.mark.parametrize("name", ["[a] 100%", "b %05d ü", "c*?"])
def test_names(tmp_path: Path, name: str) -> None:
    """What exists is a path, whatever signs it has; a glob beside it would find other files."""
    folder = write_frames(tmp_path / name, make_toy(2), name + "{}.jpg")
    write_frames(tmp_path / "a 100%", make_toy(1))
    assert [shot.name for shot in open_footage(str(folder)).shots()] == [f"{name}0", f"{name}1"]
    assert isinstance(open_footage(str(folder / f"{name}1.jpg")), ImageFootage)
    film = write_video(tmp_path / f"{name}.mp4", counted(3))
    assert isinstance(open_footage(str(film)), VideoFootage)


def test_globs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_frames(tmp_path / "x" / "first", make_toy(2), "a{}.jpg")
    write_frames(tmp_path / "x" / "second", make_toy(2), "b{}.jpg")
    found = [shot.name for shot in open_footage(str(tmp_path / "**" / "*.jpg")).shots()]
    assert found == ["a0", "a1", "b0", "b1"]
    monkeypatch.setenv("HOME", str(tmp_path))
    assert open_footage("~/x/*/a[01].jpg").length == open_footage("~/x/first").length == 2


def test_unfit_footage(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "film").mkdir()
    write_video(tmp_path / "film" / "clip.mp4", counted(2))
    (tmp_path / "text.mp4").write_text("no video")
    for name, second in (("twice", "0.png"), ("case", "0.JPG"), ("accent", "e\u0301.png")):
        folder = write_frames(tmp_path / name, make_toy(1), "\u00e9.jpg" if name == "accent" else "{}.jpg")
        (folder / second).write_bytes(encode_png(make_toy(1).frames[0]))
    sizes = write_frames(tmp_path / "sizes", make_toy(3))
    (sizes / "1.jpg").write_bytes(encode_jpeg(RGB))
    for source, message in (
        ("nowhere", "nowhere does not exist"),
        ("empty", "empty holds no image; "),
        ("none*.jpg", "holds no image; "),
        ("film", r"holds no image but clip\.mp4"),
        ("film/*", r"holds no image but clip\.mp4"),
        ("text.mp4", "cannot be opened as a video"),
        ("twice", r"several images named 0 \(.*0\.jpg and .*0\.png\)"),
        ("case", "several images named 0 "),
        ("accent", "several images named"),
        ("sizes", r"1\.jpg is 56x40, but .*0\.jpg is 64x48"),
    ):
        with pytest.raises(UserError, match=message):
            open_footage(str(tmp_path / source))


def _cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-300])


def _animate(path: Path) -> None:
    pictures = [Image.fromarray(np.roll(RGB, i, axis=1)) for i in range(3)]
    pictures[0].save(path, save_all=True, append_images=pictures[1:])


def _widen(path: Path) -> None:
    Image.fromarray(RGB[..., 0].astype(np.float32)).save(path)


@pytest.mark.parametrize(
    ("name", "spoil", "message"),
    [
        ("1.jpg", _cut, "cannot be decoded .*truncated"),
        ("1.png", _cut, "cannot be decoded .*truncated"),
        ("1.jpg", lambda path: path.write_bytes(b""), r"cannot be decoded \(unknown image format"),
        ("1.jpg", lambda path: path.unlink(), "cannot be read"),
        ("1.png", _animate, "animated"),
        ("1.webp", _animate, "animated"),
        ("1.tif", _animate, "several pages"),
        ("1.tif", _widen, "32 bits per pixel"),
    ],
)
def test_unfit_images(tmp_path: Path, name: str, spoil: Callable[[Path], object], message: str) -> None:
    """The line names the file, whether its head tells already or its turn has to come."""
    noise = np.random.default_rng(0).integers(0, 256, RGB.shape).astype(np.uint8)
    for i in (0, 2):
        (tmp_path / f"{i}.png").write_bytes(encode_png(RGB))
    Image.fromarray(noise).save(tmp_path / name)
    if message == "cannot be read":
        footage = open_footage(str(tmp_path))
        spoil(tmp_path / name)
        with pytest.raises(UserError, match=rf"{name} {message}"):
            list(footage.shots())
        return
    spoil(tmp_path / name)
    with pytest.raises(UserError, match=rf"{name} .*{message}"):
        list(open_footage(str(tmp_path)).shots())


def test_a_phone_picture_with_a_second_one_behind(tmp_path: Path) -> None:
    """Phones store maps of depth or brightness there; such a file is not an animation."""
    image = Image.fromarray(RGB)
    image.save(tmp_path / "0.jpg", format="MPO", save_all=True, append_images=[image.resize((8, 8))], quality=95)
    with Image.open(tmp_path / "0.jpg") as opened:
        assert getattr(opened, "n_frames", 1) == 2
    (shot,) = open_footage(str(tmp_path)).shots()
    assert np.abs(shot.rgb.astype(int) - RGB).mean() < 6


def test_spread_reads_only_what_it_gives(tmp_path: Path) -> None:
    for i, rgb in enumerate(counted(11)):
        (tmp_path / f"{i}.png").write_bytes(encode_png(rgb))
    footage = open_footage(str(tmp_path))
    for i in set(range(11)) - {0, 5, 10}:
        (tmp_path / f"{i}.png").unlink()
    assert [number_of(rgb) for rgb in footage.spread(3)] == [0, 5, 10]


def test_times_and_names(tmp_path: Path) -> None:
    images = open_footage(str(write_frames(tmp_path / "frames", make_toy(3), "a.b_{}.jpg")))
    assert [(shot.name, shot.seconds) for shot in images.shots()] == [(f"a.b_{i}", i / 24) for i in range(3)]
    assert images.names("a.b_1") and images.names("A.B_1") and not images.names("a.b_3")
    film = open_footage(str(write_video(tmp_path / "clip.mp4", counted(3))))
    assert [shot.name for shot in film.shots()] == ["00000", "00001", "00002"]
    assert film.names("00002") and not film.names("2") and not film.names("first")
