"""Find a published data set: the file that holds it, and the folder inside."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from pipeline.core.archives import Archive
from pipeline.core.errors import UserError
from pipeline.core.manifest import NAME, read_manifest
from pipeline.core.names import natural_key
from pipeline.core.plain_names import open_plain
from pipeline.core.references import find_referred

_SUFFIXES = (".zip", ".tar", ".tar.gz", ".tgz")


def list_sources(raw: Path) -> dict[str, Path]:
    """What holds a data set: file name, or published name, -> archive or extracted folder.

    Args:
        raw: the download stage's folder, whose manifest may refer to the user's own archives and folders, which are
            read where they are; or a folder with archives in it; or an archive.

    Returns:
        Sorted by name; empty if there is neither an archive nor a reference.

    Raises:
        UserError: `raw` does not exist, or what it refers to has gone or changed.
    """
    if not raw.exists():
        raise UserError(
            f"{raw} does not exist; expected a data set's folder or archive; download it or correct the path"
        )
    if raw.is_file():
        return {raw.name: raw}
    found = {p.name: p for p in raw.iterdir() if p.is_file() and p.name.endswith(_SUFFIXES)}
    if (raw / NAME).is_file():
        for file in read_manifest(raw):
            if "fingerprint" in file:
                found[str(file["name"])] = find_referred(str(file["fingerprint"]), str(file["name"]), raw)
    return dict(sorted(found.items()))


def list_archives(raw: Path) -> list[Path]:
    """The paths of `list_sources`."""
    return list(list_sources(raw).values())


def identify(raw: Path) -> list[tuple[str, str]]:
    """Name of each source and what changes with it, for the name of a stage's resume state.

    Raises:
        UserError: as `list_sources`.
    """
    listed = {str(f["name"]): f for f in read_manifest(raw)} if (raw / NAME).is_file() else {}
    found = []
    for name, path in list_sources(raw).items():
        known = listed.get(name, {}).get("fingerprint")
        found.append((name, str(known) if known else f"{path.stat().st_size} {path.stat().st_mtime_ns}"))
    return found


def open_published(raw: Path, published: Sequence[str]) -> Archive:
    """Open the archive that holds a data set.

    Args:
        raw: an archive, an extracted data set, or a folder with archives in it or with a manifest that refers to them.
        published: names under which the data set is published; the first one that exists is preferred to other
            archives. The suffix does not matter.

    Returns:
        That archive; or the only archive in `raw`, whatever its name; or `raw` itself if it contains no archive.

    Raises:
        UserError: `raw` does not exist, or holds several archives none of which has a published name.
    """
    sources = list_sources(raw)
    stems = {_stem(name): path for name, path in sources.items()}
    named = [stems[stem] for name in published if (stem := _stem(name)) in stems]
    if named or len(sources) == 1:
        return open_plain((named or list(sources.values()))[0])
    if sources:
        raise UserError(
            f"{raw} holds {', '.join(sources)}; expected {' or '.join(published)}, or a single archive; remove the "
            "others"
        )
    return open_plain(raw)


def _stem(name: str) -> str:
    return next((name.removesuffix(suffix) for suffix in _SUFFIXES if name.endswith(suffix)), name)


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
    """Frame ids by video of the files `<folder>/<video>/<frame id><suffix>`, in the natural order of their names.

    Videos with the same frame ids share one tuple of them: a hundred thousand clips then take a tenth of the memory.
    """
    groups: dict[str, list[str]] = {}
    shared: dict[tuple[str, ...], tuple[str, ...]] = {}
    start = len(folder) + 1
    for name in archive.names():
        if name.endswith(suffix) and name.startswith(folder + "/"):
            video, slash, frame = name[start : -len(suffix)].partition("/")
            if slash and "/" not in frame:
                groups.setdefault(video, []).append(frame)
    for frames in groups.values():
        frames.sort(key=natural_key)
    return {video: shared.setdefault(ids := tuple(frames), ids) for video, frames in groups.items()}
