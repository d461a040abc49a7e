"""Videos read frame by frame from an archive; used for DAVIS, YouTube-VOS and the simulated clips."""

from __future__ import annotations

import io
from collections.abc import Mapping
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image, UnidentifiedImageError

from pipeline.core.archives import Archive
from pipeline.core.errors import UserError
from pipeline.core.images import VOID, decode_mask, decode_rgb, object_ids
from pipeline.datasets.video import FirstSeen, Video

Objects = Literal["ids", "merged", "binary"]
_HALF = 127


class ArchiveVideos:
    """A `VideoSource` over files `<frames>/<video>/<id>.jpg` and `<masks>/<video>/<id>.png` of an archive.

    Args:
        name: name of the set.
        archive: that holds the files.
        frames: folder of the frames inside the archive.
        masks: folder of the masks inside the archive.
        listing: video name -> (frame ids, annotated frame ids), in the order of the split.
        first_seen: video name -> (object id -> frame id), if the data set lists them; otherwise the objects are those
            of the first mask, which is decoded when they are first needed.
        objects: what the values of a mask mean: `ids` of objects; `merged`: all ids become object 1; or `binary`:
            values from 128 are object 1 (also 255, which is void otherwise).
    """

    def __init__(
        self,
        name: str,
        archive: Archive,
        frames: str,
        masks: str,
        listing: Mapping[str, tuple[tuple[str, ...], tuple[str, ...]]],
        first_seen: Mapping[str, Mapping[int, str]] | None = None,
        objects: Objects = "ids",
    ) -> None:
        self.name = name
        self._archive, self._frames, self._masks, self._objects = archive, frames, masks, objects
        self._checked: set[tuple[str, str]] = set()  # masks whose size has been compared with their frame's
        self.videos = tuple(
            Video(video, ids, annotated, first_seen[video] if first_seen else self._in_first_mask(video, annotated[0]))
            for video, (ids, annotated) in listing.items()
        )

    def frame(self, video: Video, frame_id: str) -> NDArray[np.uint8]:
        """A frame, uint8 H,W,3 RGB.

        Raises:
            UserError: missing or unreadable.
        """
        member = f"{self._frames}/{video.name}/{frame_id}.jpg"
        return decode_rgb(self._archive.read(member), f"{self._archive.path}: {member}")

    def mask(self, video: Video, frame_id: str) -> NDArray[np.uint8]:
        """An id mask, uint8 H,W: 0 background, 1.. objects, 255 void.

        Raises:
            UserError: missing, unreadable, or of another size than its frame.
        """
        return self._read_mask(video.name, frame_id)

    def encoded_mask(self, video: Video, frame_id: str) -> bytes:
        """The file of a mask, as it is.

        Raises:
            UserError: missing.
        """
        return self._archive.read(f"{self._masks}/{video.name}/{frame_id}.png")

    def _read_mask(self, video: str, frame_id: str) -> NDArray[np.uint8]:
        member = f"{self._masks}/{video}/{frame_id}.png"
        mask = decode_mask(self._archive.read(member), f"{self._archive.path}: {member}")
        if (video, frame_id) not in self._checked:
            self._check_size(video, frame_id, mask.shape[0], mask.shape[1])
            self._checked.add((video, frame_id))
        if self._objects == "merged":
            mask[(mask > 0) & (mask < VOID)] = 1
        elif self._objects == "binary":
            mask = (mask > (_HALF if mask.max() > 1 else 0)).astype(np.uint8)
        return mask

    def _check_size(self, video: str, frame_id: str, height: int, width: int) -> None:
        member = f"{self._frames}/{video}/{frame_id}.jpg"
        found = _image_size(self._archive.read(member), f"{self._archive.path}: {member}")
        if found != (height, width):
            raise UserError(
                f"{self._archive.path}: the mask {self._masks}/{video}/{frame_id}.png is {width}x{height}, its frame "
                f"{found[1]}x{found[0]}; expected the same size; replace one of them"
            )

    def _in_first_mask(self, video: str, frame_id: str) -> FirstSeen:
        def load() -> dict[int, str]:
            ids = object_ids(self._read_mask(video, frame_id))
            if not ids:
                raise UserError(
                    f"{self._archive.path}: {self._masks}/{video}/{frame_id}.png has no object; expected the objects "
                    "in the first mask; replace it or leave the sequence out"
                )
            return dict.fromkeys(ids, frame_id)

        return FirstSeen(load)


def _image_size(data: bytes, name: str) -> tuple[int, int]:
    """Height and width of a frame as displayed (EXIF orientation applied), from its header."""
    try:
        with Image.open(io.BytesIO(data)) as opened:
            width, height = opened.size
            turned = opened.getexif().get(ExifTags.Base.Orientation, 1) >= 5  # 5 to 8 swap the axes
    except (UnidentifiedImageError, OSError, SyntaxError, ValueError) as error:
        raise UserError(f"{name} cannot be decoded ({error}); expected a JPEG image; replace the file") from None
    return (width, height) if turned else (height, width)
