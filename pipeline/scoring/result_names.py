"""Check by name, before anything is scored, which masks a result must have and which it may have."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from pipeline.core.errors import UserError
from pipeline.core.names import natural_key
from pipeline.core.runtime import log
from pipeline.scoring.results import Results
from pipeline.scoring.sequence import AnnotatedVideo, Annotations

Required = Callable[[AnnotatedVideo], Sequence[str]]


def every_frame(video: AnnotatedVideo) -> Sequence[str]:
    """All frames, as in DAVIS' layout, including the first and the last, which are not scored."""
    return video.frames


def every_annotated(video: AnnotatedVideo) -> Sequence[str]:
    """All frames that have an annotation."""
    return video.annotated


def from_first_mask(video: AnnotatedVideo) -> Sequence[str]:
    """The annotated frames from the first object's first one on."""
    return video.annotated[_first(video) :]


def after_first_mask(video: AnnotatedVideo) -> Sequence[str]:
    """The annotated frames after the first object's first one: all that YouTube-VOS' rules use."""
    return video.annotated[_first(video) + 1 :]


def _first(video: AnnotatedVideo) -> int:
    return min(map(video.annotated.index, video.first_seen.values()), default=0)


def check_names(source: Annotations, results: Results, required: Required, knows_frames: bool) -> None:
    """Compare the names of results with those of the frames.

    Args:
        source: the annotations.
        results: the masks.
        required: frames that must have a result.
        knows_frames: whether `frames` of the videos are all of their frames. If not, masks of other frames are not
            scored, and a log line gives their number.

    Raises:
        UserError: a frame without a result, or a result that belongs to no frame.
    """
    unscored = 0
    for video in source.videos:
        found = results.frames(video.name)
        missing = sorted(set(required(video)) - set(found), key=natural_key)
        known = set(video.frames)
        strays = [name for name in found if name not in known]
        if found and strays and knows_frames:
            raise _wrong_names(video, results, missing, strays)
        if missing:
            results.data(video.name, missing[0])  # raises the error that says what is missing
        unscored += len(strays)
    if unscored:
        log(f"{results.path}: {unscored} masks are of frames without annotation and are not scored")


def _wrong_names(video: AnnotatedVideo, results: Results, missing: Sequence[str], strays: Sequence[str]) -> UserError:
    more = f" ({len(strays)} such masks)" if len(strays) > 1 else ""
    found = f"{results.label(video.name, strays[0])} belongs to no frame of {video.name}{more}"
    if missing:
        found += f", and frame {missing[0]} has no mask (numbered from another first frame?)"
    first, last = video.frames[0], video.frames[-1]
    return UserError(f"{found}; expected masks named like the frames, {first} to {last}; rename or remove them")
