"""Archives, images, files, locks and the frame around commands."""

from __future__ import annotations

import errno
import io
import multiprocessing
import tarfile
import threading
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from pipeline.core.archives import Archive, ShardWriter, ZipWriter, open_archive, open_shards
from pipeline.core.checkpoint import load_checkpoint, save_checkpoint
from pipeline.core.errors import UserError
from pipeline.core.files import output_folder, write_bytes
from pipeline.core.images import (
    DAVIS_PALETTE,
    decode_depth,
    decode_mask,
    decode_rgb,
    encode_depth,
    encode_jpeg,
    encode_mask,
    encode_png,
)
from pipeline.core.runtime import fingerprint, run_main, scratch_lock

FILES = {"a/one.txt": b"1" * 1000, "a/two.txt": b"22", "b.bin": bytes(range(256))}


def read_or_fail(archive: Archive) -> None:
    for _ in range(50):
        assert all(archive.read(name) == data for name, data in FILES.items())


def as_folder(path: Path) -> Path:
    for name, data in FILES.items():
        write_bytes(path / name, data)
    return path


def as_zip(path: Path, method: int = zipfile.ZIP_STORED) -> Path:
    with zipfile.ZipFile(path, "w", method) as archive:
        archive.mkdir("a")
        for name, data in FILES.items():
            archive.writestr(name, data)
    return path


def as_tar(path: Path) -> Path:
    with tarfile.open(path, "w") as archive:
        for name, data in FILES.items():
            info = tarfile.TarInfo("./" + name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return path


@pytest.mark.parametrize(
    "make",
    [
        lambda p: as_folder(p / "f"),
        lambda p: as_zip(p / "f.zip"),
        lambda p: as_zip(p / "f.zip", zipfile.ZIP_DEFLATED),
        lambda p: as_zip(p / "f.zip", zipfile.ZIP_BZIP2),
        lambda p: as_tar(p / "f.tar"),
    ],
    ids=["folder", "stored", "deflated", "bzip2", "tar"],
)
def test_archives_read_alike(make: Callable[[Path], Path], tmp_path: Path) -> None:
    archive = open_archive(make(tmp_path))
    assert archive.names() == sorted(FILES) and not archive.has("a") and archive.has("b.bin")
    results: list[bool] = []

    def read_all() -> None:
        results.extend(archive.read(name) == data for _ in range(20) for name, data in FILES.items())

    threads = [threading.Thread(target=read_all) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(results) == 240 and all(results)
    context = multiprocessing.get_context("fork")
    children = [context.Process(target=read_or_fail, args=(archive,)) for _ in range(2)]
    for child in children:
        child.start()
    read_or_fail(archive)  # at the same time as the children, whose file position must be their own
    for child in children:
        child.join()
    assert [child.exitcode for child in children] == [0, 0]
    with pytest.raises(UserError, match="no file c"):
        archive.read("c")


def test_a_folder_is_read_through_links(tmp_path: Path) -> None:
    as_folder(tmp_path / "elsewhere")
    (tmp_path / "f").mkdir()
    (tmp_path / "f" / "a").symlink_to(tmp_path / "elsewhere" / "a")
    (tmp_path / "f" / "b.bin").symlink_to(tmp_path / "elsewhere" / "b.bin")
    (tmp_path / "f" / "gone").symlink_to(tmp_path / "nowhere")
    archive = open_archive(tmp_path / "f")
    assert archive.names() == sorted(FILES)
    read_or_fail(archive)


def test_damaged_archives(tmp_path: Path) -> None:
    whole = as_zip(tmp_path / "f.zip").read_bytes()
    (tmp_path / "cut.zip").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "flip.zip").write_bytes(whole.replace(b"111", b"110", 1))
    (tmp_path / "cut.tar").write_bytes(as_tar(tmp_path / "f.tar").read_bytes()[:700])
    with pytest.raises(UserError, match="not a readable zip"):
        open_archive(tmp_path / "cut.zip")
    with pytest.raises(UserError, match="wrong checksum"):
        open_archive(tmp_path / "flip.zip").read("a/one.txt")
    with pytest.raises(UserError):
        open_archive(tmp_path / "cut.tar").read("a/one.txt")
    with pytest.raises(UserError, match="does not exist"):
        open_archive(tmp_path / "none.zip")


def test_written_zips_are_equal_byte_for_byte_and_whole_or_absent(tmp_path: Path) -> None:
    for name in ("x", "y"):
        with ZipWriter(tmp_path / f"{name}.zip") as writer:
            for file, data in FILES.items():
                writer.write(file, data)
    assert (tmp_path / "x.zip").read_bytes() == (tmp_path / "y.zip").read_bytes()
    with pytest.raises(RuntimeError), ZipWriter(tmp_path / "z.zip") as writer:
        writer.write("a", b"1")
        raise RuntimeError
    assert sorted(p.name for p in tmp_path.iterdir()) == ["x.zip", "y.zip"]


def test_shards_keep_groups_together(tmp_path: Path) -> None:
    with ShardWriter(tmp_path, limit_bytes=100) as writer:
        for video in range(5):
            writer.write_group([(f"v{video}/{i}", bytes(30)) for i in range(2)])
    shards = sorted(tmp_path.glob("shard-*.zip"))
    assert [len(open_archive(s).names()) for s in shards] == [4, 4, 2]
    assert len(open_shards(tmp_path).names()) == 10 and open_shards(tmp_path).read("v4/1") == bytes(30)


def test_output_folder_is_whole_or_as_before(tmp_path: Path) -> None:
    target = tmp_path / "out"
    with output_folder(target) as folder:
        (folder / "old").write_text("1")
    with pytest.raises(RuntimeError), output_folder(target) as folder:
        (folder / "new").write_text("2")
        raise RuntimeError
    assert [p.name for p in target.iterdir()] == ["old"] and len(list(tmp_path.iterdir())) == 1
    with output_folder(target) as folder:
        (folder / "new").write_text("2")
    assert [p.name for p in target.iterdir()] == ["new"]


def test_palette_is_the_one_of_voc_and_davis() -> None:
    """The published colours of the first ids, and of void."""
    assert DAVIS_PALETTE[:5].tolist() == [[0, 0, 0], [128, 0, 0], [0, 128, 0], [128, 128, 0], [0, 0, 128]]
    assert DAVIS_PALETTE[21].tolist() == [128, 64, 128] and DAVIS_PALETTE[255].tolist() == [224, 224, 192]


def test_masks_and_depth_survive_their_files() -> None:
    rng = np.random.default_rng(0)
    mask = rng.integers(0, 256, (33, 47), dtype=np.uint8)
    data = encode_mask(mask)
    assert Image.open(io.BytesIO(data)).mode == "P" and (decode_mask(data, "m") == mask).all()
    depth = rng.random((33, 47), dtype=np.float32)
    assert np.abs(decode_depth(encode_depth(depth), "d") - depth).max() <= 0.5 / 65535 + 1e-7
    for bits in (8, 10, 12, 16):
        found = decode_depth(encode_depth(depth, bits), "d")
        assert np.abs(found - depth).max() <= 0.5 * 2 ** (16 - bits) / 65535 + 1e-7
        assert (decode_depth(encode_depth(np.array([[0, 1]], np.float32), bits), "d") == [[0, 1]]).all()
    with pytest.raises(UserError, match="mode RGB"):
        decode_mask(encode_png(np.zeros((4, 4, 3), np.uint8)), "m")
    with pytest.raises(UserError, match="16-bit"):
        decode_depth(encode_mask(mask), "d")


def saved(image: Image.Image, kind: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def test_frames_of_every_mode() -> None:
    ramp = np.tile(np.arange(0, 240, 4, dtype=np.uint8), (40, 1))
    grey = decode_rgb(saved(Image.fromarray(ramp), "JPEG", quality=95), "g")
    assert grey.shape == (40, 60, 3) and np.abs(grey.astype(int) - ramp[..., None]).max() < 8
    colour = np.stack([ramp, ramp // 2, 255 - ramp], axis=2)
    cmyk = decode_rgb(saved(Image.fromarray(colour).convert("CMYK"), "JPEG", quality=95), "c")
    assert np.abs(cmyk.astype(int) - colour).mean() < 8
    assert np.abs(decode_rgb(encode_jpeg(colour), "j").astype(int) - colour).mean() < 4
    assert (decode_rgb(encode_png(colour), "p") == colour).all()
    exif = Image.Exif()
    exif[0x0112] = 6  # turned by 90 degrees
    for kind in ("JPEG", "PNG"):
        assert decode_rgb(saved(Image.fromarray(colour), kind, exif=exif), "r").shape == (60, 40, 3)
    with pytest.raises(UserError, match="cannot be decoded"):
        decode_rgb(b"\xff\xd8 no jpeg", "bad")


def test_checkpoints(tmp_path: Path) -> None:
    path = tmp_path / "c.pt"
    save_checkpoint(path, "toy", {"a": 1}, {"w": torch.ones(2)}, step=3)
    assert load_checkpoint(path, "toy")["step"] == 3
    with pytest.raises(UserError, match="of kind toy; expected dstm"):
        load_checkpoint(path, "dstm")
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(UserError, match="is damaged"):
        load_checkpoint(path, "toy")
    with pytest.raises(UserError, match="does not exist"):
        load_checkpoint(tmp_path / "none.pt", "toy")


def test_scratch_is_for_one_run_at_a_time(tmp_path: Path) -> None:
    with (
        scratch_lock(tmp_path / "s"),
        pytest.raises(UserError, match="locked by another run"),
        scratch_lock(tmp_path / "s"),
    ):
        pass
    with scratch_lock(tmp_path / "s"):
        pass


def test_fingerprint_sees_content_and_names(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"1" * 5_000_000)
    first = fingerprint(tmp_path)
    assert fingerprint(tmp_path) == first
    (tmp_path / "a").write_bytes(b"1" * 4_999_999 + b"2")
    second = fingerprint(tmp_path)
    (tmp_path / "a").rename(tmp_path / "b")
    assert len({first, second, fingerprint(tmp_path)}) == 3


def test_exit_codes(capsys: pytest.CaptureFixture[str]) -> None:
    def fail(error: BaseException) -> Callable[[], None]:
        def main() -> None:
            raise error

        return main

    assert run_main(lambda: None) == 0
    assert run_main(fail(UserError("found x; expected y"))) == 1
    assert capsys.readouterr().err == "error: found x; expected y\n"
    assert run_main(fail(OSError(errno.ENOSPC, "full", "f"))) == 1
    assert "no space left" in capsys.readouterr().err
    assert run_main(fail(KeyboardInterrupt())) == 130
    with pytest.raises(ZeroDivisionError):
        run_main(fail(ZeroDivisionError()))
