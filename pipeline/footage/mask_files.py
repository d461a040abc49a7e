"""Masks from the command line: files, `INDEX:file`, and folders with files named like the frames."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from pipeline.core.errors import UserError
from pipeline.core.images import object_ids
from pipeline.core.names import NaturalKey, natural_key
from pipeline.core.runtime import log
from pipeline.footage.drawn_masks import read_mask
from pipeline.footage.footage import ImageFootage, VideoFootage
from pipeline.footage.image_files import IMAGES
from pipeline.footage.palettes import KnownColours


class GivenMasks(NamedTuple):
    """Masks for frames of a video.

    Attributes:
        files: frame index -> file, including masks without an object.
        ids: frame index -> uint8 H,W ids; each has at least one object.
    """

    files: dict[int, Path]
    ids: dict[int, NDArray[np.uint8]]


def read_masks(arguments: Sequence[str], footage: VideoFootage | ImageFootage) -> GivenMasks:
    """Read the masks of the command line and log what they contain.

    Args:
        arguments: `MASK.png` (frame 0), `INDEX:MASK.png`, or a folder.
        footage: the video, whose frames the files of a folder are named after.

    Raises:
        UserError: a file is missing, belongs to no frame or has no object, there are two files for one frame, or see
            `read_mask`. For a folder, it is enough that one of its files has an object.
    """
    known, files, ids = KnownColours(), dict[int, Path](), dict[int, NDArray[np.uint8]]()
    for argument in arguments:
        found = _parse(argument, footage)
        for index, path in found.items():
            if index in files:
                raise UserError(
                    f"two masks are given for frame {index}, {files[index]} and {path}; expected one; draw all objects "
                    "of the frame in it, or give the other as INDEX:MASK.png"
                )
            files[index] = path
        masks = {index: read_mask(path, known) for index, path in sorted(found.items())}
        drawn = {index: mask for index, mask in masks.items() if object_ids(mask)}
        if not drawn:
            where = f"{argument} holds" if len(found) > 1 else f"{next(iter(found.values()))} holds"
            raise UserError(f"{where} no object; expected ids from 1 where objects are; draw them")
        _log_objects(argument, masks, drawn)
        ids |= drawn
    return GivenMasks(dict(sorted(files.items())), dict(sorted(ids.items())))


def _log_objects(argument: str, masks: dict[int, NDArray[np.uint8]], drawn: dict[int, NDArray[np.uint8]]) -> None:
    objects = sorted({i for mask in drawn.values() for i in object_ids(mask)})
    shown = f"object{'s' * (len(objects) > 1)} {', '.join(map(str, objects))}"
    if not Path(argument).is_dir():
        log(f"frame {next(iter(drawn))}: {shown}")
        return
    n_empty = len(masks) - len(drawn)
    frames = f"masks for {len(drawn)} frames, {min(drawn)} to {max(drawn)}" if len(drawn) > 1 else f"frame {min(drawn)}"
    empty = (
        f"; {n_empty} more without an object, which {'change' if n_empty > 1 else 'changes'} nothing" if n_empty else ""
    )
    log(f"{argument}: {frames}: {shown}{empty}")


def _parse(argument: str, footage: VideoFootage | ImageFootage) -> dict[int, Path]:
    """Frame index -> file of one argument."""
    if Path(argument).is_dir():
        return _in_folder(Path(argument), footage)
    indexed = None if Path(argument).is_file() else re.fullmatch(r"([0-9]+):(.+)", argument)
    index, path = (int(indexed[1]), Path(indexed[2])) if indexed else (0, Path(argument))
    if path.is_dir():
        raise UserError(
            f"{path} is a folder; expected the mask of frame {index}, a PNG; give the folder without {index}: if its "
            "files are named like the frames"
        )
    if not path.is_file():
        raise UserError(
            f"{path} does not exist; expected MASK.png, INDEX:MASK.png or a folder of masks; correct the path"
        )
    return {index: path}


def _in_folder(folder: Path, footage: VideoFootage | ImageFootage) -> dict[int, Path]:
    """The masks of a folder, by the index of the frame with the same name."""
    files = sorted((path for path in folder.iterdir() if not path.name.startswith(".")), key=_natural)
    masks = [path for path in files if path.suffix.lower() == ".png" and path.is_file()]
    if not masks:
        found = f"no PNG but {_some(files)}" if files else "nothing"
        raise UserError(f"{folder} holds {found}; expected masks named like the frames, as {footage.name_of(0)}.png")
    others = [path for path in files if path not in set(masks)]
    if others:
        log(f"{folder}: {len(others)} left out that {'is not a PNG' if len(others) == 1 else 'are not PNGs'} "
            f"({_some(others)})")  # fmt: skip
    names = {path: _frame_name(path) for path in masks}
    if isinstance(footage, VideoFootage):
        names = _numbers(names)
    places = {path: footage.index_of(name) for path, name in names.items()}
    strays = [path for path, index in places.items() if index is None]
    if strays:
        raise UserError(
            f"{folder} holds {_masks(strays)} named after no frame ({_some(strays)}); expected the names of "
            f"frames, as {footage.name_of(0)}.png; rename them or move them away"
        )
    by_frame: dict[int, Path] = {}
    for path, index in places.items():
        assert index is not None
        other = by_frame.setdefault(index, path)
        if other != path:
            raise UserError(f"{other} and {path} are both named after frame {index}; expected one; move one away")
    return by_frame


def _frame_name(path: Path) -> str:
    """The name without .png, and without the suffix of the frame, which some programs keep: 0001.jpg.png."""
    name = Path(path.stem)
    return name.stem if name.suffix.lower() in IMAGES else name.name


def _numbers(names: dict[Path, str]) -> dict[Path, str]:
    """The numbers at the end of names with a common beginning, as written by programs that annotate videos."""
    parts = {path: re.fullmatch(r"(.*?)([0-9]+)", name) for path, name in names.items()}
    if len({match[1] for match in parts.values() if match}) > 1:
        return names
    return {path: match[2] if match else names[path] for path, match in parts.items()}


def _masks(paths: Sequence[Path]) -> str:
    return "1 mask" if len(paths) == 1 else f"{len(paths)} masks"


def _natural(path: Path) -> NaturalKey:
    return natural_key(path.name)


def _some(paths: Sequence[Path]) -> str:
    return ", ".join(path.name for path in paths[:3]) + (f" and {len(paths) - 3} more" if len(paths) > 3 else "")
