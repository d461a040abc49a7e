"""Archives as they come: bombs, links, cut tars, an operating system's own files, and few file descriptors."""

from __future__ import annotations

import multiprocessing
import os
import tarfile
import threading
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from pipeline.core import archive_index, members
from pipeline.core.archives import open_archive, open_shards
from pipeline.core.errors import UserError
from pipeline.core.members import Names
from pipeline.core.plain_names import open_plain
from tests.support.tiny_archives import write_folder, write_tar, write_zip

FILES = {f"v/{i:05d}.jpg": bytes([i]) * (100 + i) for i in range(6)}


def add_link(tar: tarfile.TarFile, name: str, target: str, kind: bytes) -> None:
    member = tarfile.TarInfo(name)
    member.type, member.linkname = kind, target
    tar.addfile(member)


def test_a_zip_bomb_is_refused_before_it_is_unpacked(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "b.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        with archive.open("big.json", "w") as file:
            for _ in range(100):
                file.write(bytes(1 << 20))
        archive.writestr("small.txt", bytes(1 << 20))  # shrinks as much, and fits in memory
    opened = open_archive(tmp_path / "b.zip")
    assert opened.read("small.txt") == bytes(1 << 20)
    with pytest.raises(UserError, match=r"b\.zip: big\.json unpacks from 0\.1 MB to 105 MB; expected"):
        opened.read("big.json")


def test_a_member_longer_than_it_says_is_not_unpacked(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "b.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("x", bytes(1 << 20))
    data = (tmp_path / "b.zip").read_bytes().replace((1 << 20).to_bytes(4, "little"), (10).to_bytes(4, "little"))
    (tmp_path / "b.zip").write_bytes(data)
    with pytest.raises(UserError, match="damaged"):
        open_archive(tmp_path / "b.zip").read("x")


def test_an_encrypted_member_is_one_line(tmp_path: Path) -> None:
    write_zip(tmp_path / "e.zip", {"x": b"secret"})
    data = bytearray((tmp_path / "e.zip").read_bytes())
    central = data.rindex(b"PK\x01\x02")
    data[central + 10] = 99  # the method of WinZip's encryption
    (tmp_path / "e.zip").write_bytes(bytes(data))
    with pytest.raises(UserError, match="damaged or encrypted"):
        open_archive(tmp_path / "e.zip").read("x")


def test_links_in_a_tar_are_further_names(tmp_path: Path) -> None:
    write_tar(tmp_path / "t.tar", FILES)
    with tarfile.open(tmp_path / "t.tar", "a") as tar:
        add_link(tar, "v/00006.jpg", "v/00002.jpg", tarfile.LNKTYPE)
        add_link(tar, "v/00007.jpg", "00003.jpg", tarfile.SYMTYPE)
        add_link(tar, "w/00000.jpg", "../v/00007.jpg", tarfile.SYMTYPE)  # a link to a link
        add_link(tar, "u", "./v", tarfile.SYMTYPE)
    archive = open_archive(tmp_path / "t.tar")
    assert archive.read("v/00006.jpg") == FILES["v/00002.jpg"]
    assert archive.read("v/00007.jpg") == archive.read("w/00000.jpg") == FILES["v/00003.jpg"]
    assert archive.read("u/00005.jpg") == FILES["v/00005.jpg"]
    assert len(archive.names()) == 6 + 3 + 6


def test_links_in_a_zip_are_further_names(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "z.zip", "w") as archive:
        for name, data in FILES.items():
            archive.writestr(name, data)
        link = zipfile.ZipInfo("w/first.jpg")
        link.create_system, link.external_attr = 3, 0o120777 << 16
        archive.writestr(link, "../v/00000.jpg")
    assert open_archive(tmp_path / "z.zip").read("w/first.jpg") == FILES["v/00000.jpg"]


@pytest.mark.parametrize("target", ["/etc/passwd", "../../etc/passwd", "gone.jpg", "self.jpg"])
def test_a_link_out_of_an_archive_is_refused(tmp_path: Path, target: str) -> None:
    write_tar(tmp_path / "t.tar", FILES)
    with tarfile.open(tmp_path / "t.tar", "a") as tar:
        add_link(tar, "v/self.jpg", target, tarfile.SYMTYPE)
    with pytest.raises(UserError, match=r"t\.tar has the link v/self\.jpg to .*, which is not in the archive \(1 such"):
        open_archive(tmp_path / "t.tar")


def test_a_folder_with_a_link_to_its_parent_has_each_file_once(tmp_path: Path) -> None:
    write_folder(tmp_path / "f", FILES)
    (tmp_path / "f/v/up").symlink_to("..")
    (tmp_path / "f/self").symlink_to(".")
    (tmp_path / "f/copy").symlink_to("v")
    names = open_archive(tmp_path / "f").names()
    assert names == sorted([*FILES, *(name.replace("v/", "copy/", 1) for name in FILES)])


@pytest.mark.parametrize("n_kept", [3, 5])
def test_a_tar_cut_between_members_is_refused(tmp_path: Path, n_kept: int) -> None:
    data = write_tar(tmp_path / "t.tar", FILES).read_bytes()
    (tmp_path / "cut.tar").write_bytes(data[: 1024 * n_kept])
    with pytest.raises(UserError, match=rf"cut\.tar has no more readable files after {n_kept}, .* cut off"):
        open_archive(tmp_path / "cut.tar")
    damaged = data[: 1024 * 3] + b"?" * 512 + data[1024 * 3 + 512 :]  # a header in the middle
    for spoilt in (data[: 1024 * 4 - 1], data[: 1024 * 4 - 500], data[: 1024 * 4 - 513], damaged):
        (tmp_path / "cut.tar").write_bytes(spoilt)
        with pytest.raises(UserError):
            open_archive(tmp_path / "cut.tar")


def test_a_sparse_file_in_a_tar(tmp_path: Path) -> None:
    with open(tmp_path / "holes.bin", "wb") as file:
        file.truncate(1 << 20)
        file.seek(1 << 19)
        file.write(b"middle")
    if os.system(f"tar -C {tmp_path} -Scf {tmp_path}/s.tar holes.bin 2>/dev/null"):
        pytest.skip("no GNU tar")
    assert open_archive(tmp_path / "s.tar").read("holes.bin") == (tmp_path / "holes.bin").read_bytes()


def test_files_of_an_operating_system_are_not_of_the_data(tmp_path: Path) -> None:
    junk = {"v/._00000.jpg": b"x", "__MACOSX/v/._00001.jpg": b"x", "v/.DS_Store": b"x", "Thumbs.db": b"x"}
    for path in (write_tar(tmp_path / "t.tar", FILES | junk), write_folder(tmp_path / "f", FILES | junk)):
        assert open_plain(path).names() == sorted(FILES)


def test_a_plain_name_has_precedence(tmp_path: Path) -> None:
    archive = open_plain(write_zip(tmp_path / "z.zip", {"a.jpg": b"1", "a.JPG": b"2", "b.JPEG": b"3", "c.Png": b"4"}))
    assert archive.names() == ["a.jpg", "b.jpg", "c.png"]
    assert [archive.read(name) for name in archive.names()] == [b"1", b"3", b"4"]
    assert not archive.has("b.JPEG")
    with pytest.raises(UserError, match=r"no file b\.JPEG"):
        archive.read("b.JPEG")


def test_names_are_a_sequence() -> None:
    words = sorted(["", "a", "b\udc80c", "grün", "z" * 300])
    names = Names.of(words)
    assert list(names) == words and names[-1] == words[-1] and names[1:3] == words[1:3] and len(names) == 5
    with pytest.raises(IndexError):
        names[5]


def n_open() -> int:
    return len(os.listdir("/proc/self/fd"))  # noqa: PTH208 - no list is needed


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="counts open files through /proc")
def test_many_shards_and_threads_need_few_descriptors(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """16 threads over 235 shards once needed 3,760 of the 1,024 that a process may have."""
    monkeypatch.setattr(members, "_MOST_OPEN", 20)
    for i in range(60):
        write_zip(tmp_path / f"shard-{i:05d}.zip", {f"v{i}/{j}": bytes([i, j]) * 50 for j in range(3)})
    before = n_open()
    archive = open_shards(tmp_path)
    most: list[int] = []
    wrong: list[str] = []

    def read_all(seed: int) -> None:
        for i in np.random.default_rng(seed).permutation(180):
            name = f"v{i // 3}/{i % 3}"
            if archive.read(name) != bytes([i // 3, i % 3]) * 50:
                wrong.append(name)
        most.append(n_open())

    threads = [threading.Thread(target=read_all, args=(seed,)) for seed in range(16)]
    for thread in threads:
        thread.start()
    context = multiprocessing.get_context("fork")
    child = context.Process(target=read_all, args=(99,))
    child.start()  # while the threads read: its locks and descriptors must be usable
    for thread in threads:
        thread.join()
    child.join()
    assert not wrong and child.exitcode == 0
    assert max(most) <= before + 20 + 16  # one for each thread that is reading at the moment


def test_a_large_archive_is_indexed_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archive_index, "_FROM_BYTES", 1)
    monkeypatch.setenv("DSTM_STORE", str(tmp_path / "store"))
    path = write_tar(tmp_path / "t.tar", FILES)
    made: list[Path] = []

    def counted(index: Callable[[Path], members.Table]) -> Callable[[Path], members.Table]:
        def run(path: Path) -> members.Table:
            made.append(path)
            return index(path)

        return run

    monkeypatch.setattr("pipeline.core.archives._index_tar", counted(members_of_tar))
    for _ in range(2):
        assert {name: open_archive(path).read(name) for name in FILES} == FILES
    assert made == [path]
    (kept,) = (tmp_path / "store/index").iterdir()
    kept.write_bytes(kept.read_bytes()[:50])  # damaged: made anew
    assert open_archive(path).names() == sorted(FILES)
    os.utime(path, (5, 5))
    assert open_archive(path).names() == sorted(FILES)
    assert len(made) == 3


def members_of_tar(path: Path) -> members.Table:
    """Written anew, as an independent reading."""
    with tarfile.open(path, "r:") as tar:
        return members.Table.of(
            {m.name: members.Member(m.offset_data, m.size, m.size, 0, members.STORED) for m in tar.getmembers()}
        )


def test_no_index_is_left_outside_a_checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archive_index, "_FROM_BYTES", 1)
    monkeypatch.delenv("DSTM_STORE")
    monkeypatch.delenv("DVC_ROOT", raising=False)
    monkeypatch.chdir(tmp_path)
    open_archive(write_tar(tmp_path / "t.tar", FILES))
    assert [p.name for p in tmp_path.iterdir()] == ["t.tar"]
    assert archive_index.store_folder() is None
