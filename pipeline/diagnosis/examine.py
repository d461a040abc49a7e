"""Examine any data set: open it as the stages do, and look at what it holds."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from pipeline.core.errors import UserError
from pipeline.core.stills import StillSource
from pipeline.datasets.archive_videos import ArchiveVideos
from pipeline.datasets.coco import open_coco
from pipeline.datasets.davis import davis_splits, open_davis
from pipeline.datasets.find_archives import list_sources
from pipeline.datasets.msra10k import open_msra10k
from pipeline.datasets.rgbd import RgbdSource, open_rgbd
from pipeline.datasets.voc import open_voc
from pipeline.datasets.youtubevos import open_youtubevos
from pipeline.diagnosis.findings import Diagnosis
from pipeline.diagnosis.stills import examine_stills
from pipeline.diagnosis.videos import Fault, examine_videos, in_threads, spread

STILLS: dict[str, Callable[[Path], StillSource]] = {"msra10k": open_msra10k, "coco": open_coco, "voc": open_voc}
PUBLISHED = {  # what the complete data sets have
    "davis": {"videos of train": 60, "frames of train": 4209, "videos of val": 30, "frames of val": 1999},
    "youtubevos": {"videos of train": 3471},
    "msra10k": {"images": 10_000},
    "voc": {"images": 2913},
}


def examine(dataset: str, raw: Path, limit: int | None) -> Diagnosis:
    """Examine a data set.

    Args:
        dataset: its name in `profiles.<p>.data`.
        raw: the download stage's folder.
        limit: largest number of videos of each split, or of images, that are looked at; None: all.

    Returns:
        What was found; nothing for a data set that is switched off.
    """
    diagnosis = Diagnosis(dataset)
    try:
        if list_sources(raw):
            _examine(dataset, raw, limit, diagnosis)
            for what, n in PUBLISHED.get(dataset, {}).items():
                diagnosis.expect(what, n)
    except UserError as error:
        diagnosis.add("error", "stages will refuse it", str(error))
    return diagnosis


def _examine(dataset: str, raw: Path, limit: int | None, diagnosis: Diagnosis) -> None:
    if dataset in STILLS:
        examine_stills(STILLS[dataset](raw), limit, diagnosis)
    elif dataset == "mannequin":
        for split in ("train", "val"):
            _examine_rgbd(open_rgbd(raw, split), split, limit, diagnosis)
    else:
        for source, listed in _splits(dataset, raw):
            assert isinstance(source, ArchiveVideos)
            examine_videos(source, listed, limit, diagnosis)


def _splits(dataset: str, raw: Path) -> list[tuple[object, bool]]:
    """The splits of a set of videos, and whether a meta.json lists their objects."""
    stems = [Path(name).stem for name in list_sources(raw)]
    if dataset == "youtubevos" or "valid" in stems:
        return [(open_youtubevos(raw, split), True) for split in ("train", "valid") if split in stems]
    return [(open_davis(raw, split), False) for split in davis_splits(raw)]


def _examine_rgbd(source: RgbdSource, split: str, limit: int | None, diagnosis: Diagnosis) -> None:
    def look(frame: tuple[str, str]) -> Fault | None:
        try:
            known = source.read(*frame).depth.any()
        except UserError as error:
            return "error", "unusable frame", str(error)
        return None if known else ("warning", "frame without a known depth", "/".join(frame))

    frames = source.frames()
    chosen = spread(frames, limit)
    diagnosis.count(f"frames of {split}", len(frames))
    diagnosis.count("frames looked at", len(chosen))
    for fault in in_threads(look, chosen, f"frames with depth, {split}"):
        if fault is not None:
            diagnosis.add(*fault)
