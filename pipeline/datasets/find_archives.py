"""Where a published data set lies: which file holds it, and under which folder inside."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from pipeline.core.archives import Archive, open_archive
from pipeline.core.errors import UserError
from pipeline.core.names import natural_key

_SUFFIXES = (".zip", ".tar", ".tar.gz", ".tgz")


def list_archives(raw: Path) -> list[Path]:
    """Archives lying directly in a folder, or the path itself where it is a file; sorted.

    Raises:
        UserError: `raw` does not exist.
    """
    if not raw.exists():
        raise UserError(
            f"{raw} does not exist; expected a data set's folder or archive; download it or correct the path"
        )
    if raw.is_file():
        return [raw]
    return sorted(p for p in raw.iterdir() if p.is_file() and p.name.endswith(_SUFFIXES))


def open_published(raw: Path, published: Sequence[str]) -> Archive:
    """Open the archive that holds a data set.

    Args:
        raw: an archive, an extracted data set, or a folder in which archives lie.
        published: names under which the set is published; the first one present wins over other archives.

    Returns:
        That archive; the only archive in `raw` whatever its name; `raw` itself where it holds no archive.

    Raises:
        UserError: `raw` does not exist, or holds several archives none of which has a published name.
    """
    archives = list_archives(raw)
    named = [a for name in published for a in archives if a.name == name]
    if named or len(archives) == 1:
        return open_archive((named or archives)[0])
    if archives:
        found = ", ".join(a.name for a in archives)
        raise UserError(
            f"{raw} holds {found}; expected {' or '.join(published)}, or a single archive; remove the others"
        )
    return open_archive(raw)


def find_root(archive: Archive, member: str) -> str:
    """Folder inside an archive ("" or "DAVIS/") under which `member` lies.

    Raises:
        UserError: no file ends in `member`, or several folders hold one.
    """
    roots = [n.removesuffix(member) for n in archive.names() if n == member or n.endswith("/" + member)]
    if not roots:
        raise UserError(f"{archive.path} has no {member}; expected the published layout; check the archive or the path")
    if len(roots) > 1:
        raise UserError(
            f"{archive.path} has {member} {len(roots)} times, under {roots[0]!r} and {roots[1]!r}; expected one"
        )
    return roots[0]


def read_names(archive: Archive, member: str) -> list[str]:
    """Lines of a split file, each name once.

    Raises:
        UserError: missing file, no UTF-8 text, or no name in it.
    """
    try:
        lines = archive.read(member).decode("utf-8-sig").split("\n")
    except UnicodeDecodeError:
        raise UserError(f"{archive.path}: {member} is no text; expected one name a line; replace the file") from None
    names = list(dict.fromkeys(line.strip() for line in lines if line.strip()))
    if not names:
        raise UserError(f"{archive.path}: {member} is empty; expected one name a line; choose another split")
    return names


def group_by_video(archive: Archive, folder: str, suffix: str) -> dict[str, tuple[str, ...]]:
    """Frame ids by video of the files `<folder>/<video>/<frame id><suffix>`, in the natural order of their names."""
    groups: dict[str, list[str]] = {}
    start = len(folder) + 1
    for name in archive.names():
        if name.endswith(suffix) and name.startswith(folder + "/"):
            video, slash, frame = name[start : -len(suffix)].partition("/")
            if slash and "/" not in frame:
                groups.setdefault(video, []).append(frame)
    return {video: tuple(sorted(frames, key=natural_key)) for video, frames in groups.items()}
