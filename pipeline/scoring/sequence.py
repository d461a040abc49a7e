"""A sequence as scoring uses it, and the scores of its objects."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from pipeline.core.errors import UserError
from pipeline.core.images import VOID
from pipeline.scoring.boundary import boundary_f_of_bits, boundary_radius
from pipeline.scoring.jaccard import jaccard_of_bits
from pipeline.scoring.packed_masks import pack_object, pad_to_words
from pipeline.scoring.results import Results
from pipeline.scoring.statistics import Statistics, frame_statistics

Ids = NDArray[np.uint8]


class AnnotatedVideo(Protocol):
    """The part of a data set's video that scoring needs."""

    @property
    def name(self) -> str:
        """Name of the sequence."""
        ...

    @property
    def annotated(self) -> tuple[str, ...]:
        """Ids of the frames that have a mask, in temporal order."""
        ...

    @property
    def frames(self) -> tuple[str, ...]:
        """Ids of all frames."""
        ...

    @property
    def first_seen(self) -> Mapping[int, str]:
        """Object id -> frame id of its first mask."""
        ...

    @property
    def kind(self) -> str:
        """Kind of video; scores are also averaged by kind."""
        ...


class Annotations(Protocol):
    """A data set of annotated videos."""

    @property
    def name(self) -> str:
        """Name of the data set, for messages."""
        ...

    @property
    def videos(self) -> Sequence[Any]:
        """Its videos (`AnnotatedVideo`)."""
        ...

    def mask(self, video: Any, frame_id: str) -> Ids:
        """An annotation, uint8 H,W ids, 255 void."""
        ...


@dataclass(frozen=True)
class ObjectScore:
    """Scores of one object.

    Attributes:
        sequence: name of its sequence.
        object_id: its id in the masks.
        kind: kind of the sequence.
        j: region similarity.
        f: boundary accuracy.
        copy_first: J&F of the result that copies the first mask to every frame; None if it was not requested.
    """

    sequence: str
    object_id: int
    kind: str
    j: Statistics
    f: Statistics
    copy_first: float | None

    @property
    def jf(self) -> float:
        """Mean of the means of J and F."""
        return (self.j.mean + self.f.mean) / 2


@dataclass(frozen=True)
class FrameValues:
    """J and F of one object, frame by frame; `copied_*` are those of the copy-first baseline."""

    j: list[float]
    f: list[float]
    copied_j: list[float]
    copied_f: list[float]

    def score(self, sequence: str, object_id: int, kind: str) -> ObjectScore:
        """The object's scores over its frames."""
        copied = (float(np.mean(self.copied_j)) + float(np.mean(self.copied_f))) / 2 if self.copied_j else None
        return ObjectScore(sequence, object_id, kind, frame_statistics(self.j), frame_statistics(self.f), copied)


@dataclass(frozen=True)
class SequencePair:
    """The annotation and the result of a sequence.

    Attributes:
        name: name of the sequence.
        kind: kind of the sequence.
        frames: ids of its annotated frames, in temporal order.
        first_seen: object id -> frame id of its first mask.
        annotation: frame id -> uint8 H,W ids.
        result: frame id -> uint8 H,W ids.
        label: frame id -> path of the result's mask, for messages.
        merge: all objects count as one (DAVIS-2016).
    """

    name: str
    kind: str
    frames: tuple[str, ...]
    first_seen: Mapping[int, str]
    annotation: Callable[[str], Ids]
    result: Callable[[str], Ids]
    label: Callable[[str], str]
    merge: bool = False

    def annotated(self, frame_id: str) -> Ids:
        """An annotation with void as background; a single object if objects are merged."""
        ids = self.annotation(frame_id)
        if ids.max() == VOID:
            ids = np.where(ids == VOID, np.uint8(0), ids)
        return np.minimum(ids, 1) if self.merge else ids

    def predicted(self, frame_id: str, like: Ids, highest: int) -> Ids:
        """A result, checked against its annotation.

        Raises:
            UserError: it is missing or unreadable, its size is not that of `like`, or it has an id above `highest`.
        """
        ids = self.result(frame_id)
        if ids.shape != like.shape:
            raise UserError(
                f"{self.label(frame_id)} is {ids.shape[1]}x{ids.shape[0]}; expected {like.shape[1]}x{like.shape[0]} as "
                "its annotation; write results at the size of the frames"
            )
        if self.merge:
            return np.minimum(ids, 1)
        if ids.max() > highest:
            raise UserError(
                f"{self.label(frame_id)} has the id {ids.max()}; expected ids 0 to {highest}, those of the "
                "annotation; remove the additional object"
            )
        return ids


def pair_up(source: Annotations, results: Results, merge: bool = False) -> list[SequencePair]:
    """One pair for each video of a data set.

    Args:
        source: the annotations.
        results: the masks to score.
        merge: all objects count as one.

    Raises:
        UserError: only first masks are published, so there is nothing to compare with.
    """
    pairs = [_pair(source, results, video, merge) for video in source.videos]
    if pairs and not scorable(source):
        raise UserError(
            f"{source.name} has no annotation beyond the first masks; expected one for every scored frame; write a "
            "submission for its server instead (--submission OUT.zip)"
        )
    return pairs


def scorable(source: Annotations) -> bool:
    """Whether any frame is annotated in which no object first appears; false for the servers' test sets."""
    return any(set(video.annotated) - set(video.first_seen.values()) for video in source.videos)


def _pair(source: Annotations, results: Results, video: AnnotatedVideo, merge: bool) -> SequencePair:
    return SequencePair(
        name=video.name,
        kind=video.kind,
        frames=tuple(video.annotated),
        first_seen=video.first_seen,
        annotation=lambda frame_id: source.mask(video, frame_id),
        result=lambda frame_id: results.mask(video.name, frame_id),
        label=lambda frame_id: results.label(video.name, frame_id),
        merge=merge,
    )


class ScoredFrame(NamedTuple):
    """The masks of one frame, uint8 H,W ids.

    Attributes:
        annotation: the ground truth, void as background.
        result: the mask to score.
        copied: the copy-first baseline; None if it is not scored.
        objects: ids of the objects the frame counts for.
    """

    annotation: Ids
    result: Ids
    copied: Ids | None
    objects: Sequence[int]


def compare(frames: Iterable[ScoredFrame]) -> dict[int, FrameValues]:
    """J and F of the objects, frame by frame: object id -> values, in the order in which objects first occur."""
    values: dict[int, FrameValues] = {}
    for annotation, result, copied, objects in frames:
        height, width = annotation.shape
        radius = boundary_radius(height, width)
        truth, found = pad_to_words(annotation), pad_to_words(result)
        trivial = None if copied is None else pad_to_words(copied)
        for object_id in objects:
            into = values.setdefault(object_id, FrameValues([], [], [], []))
            true_bits, found_bits = pack_object(truth, object_id), pack_object(found, object_id)
            into.j.append(jaccard_of_bits(true_bits, found_bits))
            into.f.append(boundary_f_of_bits(true_bits, found_bits, width, radius))
            if trivial is not None:
                copied_bits = pack_object(trivial, object_id)
                into.copied_j.append(jaccard_of_bits(true_bits, copied_bits))
                into.copied_f.append(boundary_f_of_bits(true_bits, copied_bits, width, radius))
    return values
