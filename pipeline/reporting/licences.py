"""Terms of the data sets, as far as their publishers state them; for the model card."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Terms:
    """What a data set may be used for.

    Attributes:
        called: its name.
        words: its publisher's terms in short.
        free: whether they clearly allow any use, also a commercial one.
    """

    called: str
    words: str
    free: bool


RENDERED = Terms("rendered sample", "made by this project (MIT)", True)
TERMS = {
    "davis": Terms("DAVIS 2017", "for research; the publisher names no licence for commercial use", False),
    "youtubevos": Terms("YouTube-VOS", "annotations CC BY 4.0; the data for non-commercial research only", False),
    "msra10k": Terms("MSRA10K", "no licence stated", False),
    "coco": Terms("COCO 2017", "annotations CC BY 4.0; images under their owners' Flickr licences, some NC", False),
    "voc": Terms("PASCAL VOC 2012", "images under the terms of Flickr", False),
    "mannequin": Terms("RGB with depth", "those of the data set that you named", False),
}
"""Data set of `profiles.<p>.data` -> terms of what is published under that name; check them at the source."""


def terms_of(dataset: str, source: str) -> Terms:
    """The terms of a data set.

    Args:
        dataset: key of `profiles.<p>.data`.
        source: its value: `embedded`, `published`, a path or a URL.
    """
    if source == "embedded":
        return RENDERED
    terms = TERMS[dataset]
    if source == "published":
        return terms
    return Terms(f"{terms.called} or your own", f"if it is the published data: {terms.words}", False)
