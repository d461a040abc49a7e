"""Objects cut out: what a player or an editing program decodes of them, colours and opacity."""

from __future__ import annotations

from pathlib import Path

import av
import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from pipeline import segment
from pipeline.core.errors import UserError
from pipeline.footage.drawings import DrawingOptions, Drawings
from pipeline.footage.footage import Shot, open_footage
from pipeline.footage.input_checks import check_output
from pipeline.footage.matte import MatteForm, cut_out, opacity_of, parse_objects
from tests.support.tiny_archives import make_toy
from tests.support.tiny_footage import counted, save_network, write_frames, write_mask, write_video
from tests.support.toy_inference import make_network

TOY = make_toy(5, 2, 97, 161)
TIMES = [0.0, 0.04, 0.4, 0.41, 1.0]


def draw(out: Path, options: DrawingOptions, opacity: NDArray[np.uint8] | None = None) -> None:
    out.mkdir(exist_ok=True)
    with Drawings(out, options) as drawings:
        for t, (rgb, mask, seconds) in enumerate(zip(TOY.frames, TOY.masks, TIMES)):
            drawings.add(Shot(f"img_{t}", seconds, rgb), mask, opacity)


def decoded(path: Path) -> tuple[list[NDArray[np.uint8]], list[float]]:
    """RGBA frames and their times; FFmpeg's own decoder of VP9 drops the alpha that libvpx reads."""
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        if path.suffix == ".webm":
            decoder = av.codec.CodecContext.create("libvpx-vp9", "r")
            assert isinstance(decoder, av.VideoCodecContext)
            frames = [f for packet in container.demux(stream) if packet.size for f in decoder.decode(packet)]
        else:
            frames = list(container.decode(stream))
        pictures = [np.asarray(frame.to_ndarray(format="rgba", threads=1), np.uint8) for frame in frames]
        return pictures, [float(frame.time or 0) for frame in frames]


@pytest.mark.parametrize(("form", "loss"), [("mov", 2), ("webm", 10)])
@pytest.mark.parametrize("objects", [None, [2]])
def test_videos(tmp_path: Path, form: MatteForm, loss: int, objects: list[int] | None) -> None:
    """Opacity is the mask, colours are the frame's where it is seen, at the times of the frames, odd sides as well."""
    draw(tmp_path, DrawingOptions(matte=form, objects=objects))
    assert [path.name for path in tmp_path.iterdir()] == [f"matte.{form}"]
    pictures, times = decoded(tmp_path / f"matte.{form}")
    np.testing.assert_allclose(times, TIMES, atol=2e-3)
    assert len(pictures) == 5
    for picture, rgb, mask in zip(pictures, TOY.frames, TOY.masks):
        assert picture.shape == (97, 161, 4)
        inside = mask == 2 if objects else mask > 0
        assert ((picture[..., 3] > 127) == inside).mean() > 0.998
        core = cv2.erode(inside.astype(np.uint8), np.ones((5, 5), np.uint8)) > 0
        far = cv2.dilate(inside.astype(np.uint8), np.ones((5, 5), np.uint8)) == 0
        assert picture[..., 3][core].min() > 245 and picture[..., 3][far].max() < 10
        assert np.abs(picture[..., :3][core].astype(int) - rgb[core]).mean() < loss


def test_what_editing_programs_and_browsers_need(tmp_path: Path) -> None:
    for form in ("mov", "webm"):
        draw(tmp_path, DrawingOptions(matte=form))
    with av.open(str(tmp_path / "matte.mov")) as container:
        stream = container.streams.video[0]
        assert (stream.codec_context.name, stream.codec_context.codec_tag) == ("prores", "ap4h")
        assert "yuva444p" in str(stream.codec_context.pix_fmt)
    data = (tmp_path / "matte.mov").read_bytes()
    assert data.index(b"moov") < data.index(b"mdat")
    with av.open(str(tmp_path / "matte.webm")) as container:
        stream = container.streams.video[0]
        assert stream.codec_context.name == "vp9" and stream.metadata["ALPHA_MODE"] == "1"


def test_images(tmp_path: Path) -> None:
    draw(tmp_path, DrawingOptions(matte="png", objects=[1]))
    assert sorted(path.name for path in (tmp_path / "matte").iterdir()) == [f"img_{t}.png" for t in range(5)]
    for t in range(5):
        with Image.open(tmp_path / "matte" / f"img_{t}.png") as image:
            assert image.mode == "RGBA"
            found = np.asarray(image)
        inside = TOY.masks[t] == 1
        np.testing.assert_array_equal(found[..., 3], np.where(inside, 255, 0))
        np.testing.assert_array_equal(found[..., :3][inside], TOY.frames[t][inside])


def test_soft_edges(tmp_path: Path) -> None:
    ramp = np.broadcast_to(np.linspace(0, 255, 161).round().astype(np.uint8), (97, 161)).copy()
    for form, loss in (("png", 0), ("mov", 2), ("webm", 6)):
        draw(tmp_path, DrawingOptions(matte=form), ramp)  # type: ignore[arg-type]
        if form == "png":
            found = np.asarray(Image.open(tmp_path / "matte" / "img_2.png"))
        else:
            found = decoded(tmp_path / f"matte.{form}")[0][2]
        assert np.abs(found[..., 3].astype(int) - ramp).max() <= loss


def test_colours_away_from_the_objects_are_gone() -> None:
    """What was cut away is not in the file, apart from a margin that scaling needs."""
    rgb = np.full((40, 60, 3), 200, np.uint8)
    mask = np.zeros((40, 60), np.uint8)
    mask[20, 30] = 1
    mask[0, 0] = 255  # void is not an object
    found = cut_out(rgb, opacity_of(mask, None))
    expected = np.zeros((40, 60), np.uint8)
    expected[12:29, 22:39] = 200
    np.testing.assert_array_equal(found[..., :3], np.dstack([expected] * 3))
    assert found[..., 3].sum() == 255


def test_objects_of_the_command_line() -> None:
    masks = {0: np.array([[0, 1, 3]], np.uint8), 4: np.array([[0, 7, 255]], np.uint8)}
    assert parse_objects("3, 1,7,1", masks) == [1, 3, 7]
    for text, wrong in (("2", "2"), ("1,255", "255"), ("1;3", "1;3"), ("1,", "nothing"), ("-1", "-1"), ("one", "one")):
        with pytest.raises(UserError, match=rf"--matte-objects {text} names {wrong}; .*\(1, 3, 7\)"):
            parse_objects(text, masks)


def test_from_the_command_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    toy = make_toy(4, 2)
    net = save_network(tmp_path / "net.pt", make_network(depth=False))
    mask = write_mask(tmp_path / "mask.png", toy.masks[0])
    arguments = ["segment", write_frames(tmp_path / "frames", toy), "--mask", mask, "--out", tmp_path / "out"]

    def call(*more: str) -> None:
        monkeypatch.setattr("sys.argv", [*map(str, arguments), "--weights", str(net), *more])
        segment.main()

    call("--matte", "--overlay")
    assert "overlay.mp4 and matte.mov next to them" in capsys.readouterr().out
    assert len(decoded(tmp_path / "out" / "matte.mov")[0]) == 4
    call("--matte", "png", "--matte-objects", "2")
    assert sorted(path.name for path in (tmp_path / "out" / "matte").iterdir()) == [f"{t}.png" for t in range(4)]
    with pytest.raises(UserError, match="names 3; expected objects of the given masks"):
        call("--matte", "webm", "--matte-objects", "3")
    with pytest.raises(SystemExit):
        call("--matte-objects", "1")


def test_soft_borders_from_probabilities(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With --probabilities the opacity is that of the pictures written for the chosen objects, also before the mask."""
    toy = make_toy(6, 2)
    net = save_network(tmp_path / "net.pt", make_network(depth=False))
    mask, out = write_mask(tmp_path / "mask.png", toy.masks[3]), tmp_path / "out"
    arguments = [write_frames(tmp_path / "frames", toy), "--mask", f"3:{mask}", "--out", out, "--weights", net]
    more = ["--probabilities", "--matte", "png", "--matte-objects", "2"]
    monkeypatch.setattr("sys.argv", ["segment", *map(str, arguments), *more])
    segment.main()
    between = 0
    for t in range(6):
        probability = np.asarray(Image.open(out / "probabilities" / "2" / f"{t}.png")) / 255
        found = np.asarray(Image.open(out / "matte" / f"{t}.png"))[..., 3]
        np.testing.assert_allclose(found, np.clip(2 * probability - 0.5, 0, 1) * 255, atol=1)
        between += int(((found > 0) & (found < 255)).sum())
    assert between > 50


def test_inputs_are_not_overwritten(tmp_path: Path) -> None:
    film = open_footage(str(write_video(tmp_path / "matte.mov", counted(3))))
    images = open_footage(str(write_frames(tmp_path / "matte", make_toy(2))))
    for footage in (film, images):
        with pytest.raises(UserError, match="contains the input"):
            check_output(footage, {}, tmp_path)
        check_output(footage, {}, tmp_path / "out")
