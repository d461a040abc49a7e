"""Find a published data set: the file that holds it, and the folder inside."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from pipeline.core.archives import Archive, open_archive
from pipeline.core.errors import UserError
from pipeline.core.names import natural_key

_SUFFIXES = (".zip", ".tar", ".tar.gz", ".tgz")


def list_archives(raw: Path) -> list[Path]:
    """Archives directly in a folder, sorted; or the path itself if it is a file.

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
        raw: an archive, an extracted data set, or a folder with archives in it.
        published: names under which the data set is published; the first one that exists is preferred to other
            archives.

    Returns:
        That archive; or the only archive in `raw`, whatever its name; or `raw` itself if it contains no archive.

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
    """Folder inside an archive ("" or "DAVIS/") that contains `member`.

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
        UserError: the file is missing, not UTF-8 text, or empty.
    """
    try:
        lines = archive.read(member).decode("utf-8-sig").split("\n")
    except UnicodeDecodeError:
        raise UserError(
            f"{archive.path}: {member} is not a text file; expected one name per line; replace the file"
        ) from None
    names = list(dict.fromkeys(line.strip() for line in lines if line.strip()))
    if not names:
        raise UserError(f"{archive.path}: {member} is empty; expected one name per line; choose another split")
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
