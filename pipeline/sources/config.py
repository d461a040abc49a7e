"""The source of each data set: `profiles.<p>.data`."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class CocoSource:
    """COCO has two archives.

    Attributes:
        images: source of `train2017.zip`.
        annotations: source of `annotations_trainval2017.zip`.
    """

    images: str
    annotations: str


@dataclass(frozen=True)
class DataConfig:
    """One source for each data set.

    A source is `embedded` (the rendered sample), `published` (the publisher's own URL), `none`, a path of an archive or
    of an extracted folder, or a URL (http, https, file). `challenge` is for videos whose masks are scored by a server:
    `none`, `test-dev` or `test-challenge` (DAVIS, as published), or the path or URL of one of these or of YouTube-VOS
    valid.
    """

    davis: str
    youtubevos: str
    msra10k: str
    coco: CocoSource
    voc: str
    mannequin: str
    challenge: str
