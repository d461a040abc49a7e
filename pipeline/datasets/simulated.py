"""Short simulated videos, written by the synthesize stage."""

from __future__ import annotations

from pathlib import Path

from pipeline.core.archives import open_shards
from pipeline.core.errors import UserError
from pipeline.datasets.archive_videos import ArchiveVideos
from pipeline.datasets.find_archives import group_by_video
from pipeline.datasets.video import VideoSource


def open_simulated(folder: Path) -> VideoSource:
    """Open the shards of simulated clips of one data set; every frame is annotated.

    A folder with the synthesize stage's `clips.csv` but no shard has no videos: its data set is switched off.

    Args:
        folder: contains `shard-*.zip` with members `JPEGImages/<clip>/<id>.jpg` and `Annotations/<clip>/<id>.png`.

    Raises:
        UserError: neither clips nor their table, or a clip whose frames and masks do not pair up.
    """
    archive = open_shards(folder)
    frames = group_by_video(archive, "JPEGImages", ".jpg")
    masks = group_by_video(archive, "Annotations", ".png")
    if not frames and not (folder / "clips.csv").is_file():
        raise UserError(
            f"{folder} contains no simulated clip; expected shard-*.zip; run the synthesize stage of this data set"
        )
    for clip in sorted(frames.keys() | masks.keys()):
        if frames.get(clip) != masks.get(clip):
            raise UserError(
                f"{folder}: clip {clip} has {len(frames.get(clip, ()))} frames and {len(masks.get(clip, ()))} masks; "
                "expected a mask for each frame; rerun the synthesize stage"
            )
    listing = {clip: (ids, ids) for clip, ids in frames.items()}
    return ArchiveVideos(f"simulated {folder.name}", archive, "JPEGImages", "Annotations", listing)
