"""The readable part of a video: first its frames, then the error that ends it."""

from __future__ import annotations

from collections.abc import Iterator

from pipeline.core.errors import UserError
from pipeline.footage.footage import Footage, Shot


class ReadablePart:
    """Frames up to the first unreadable one, so that all of them get masks before the run fails.

    Args:
        footage: the video.
    """

    def __init__(self, footage: Footage) -> None:
        self._footage = footage
        self._error: UserError | None = None
        self._ended = False

    def shots(self, start: int = 0) -> Iterator[Shot]:
        """The frames from `start` on, in order, without an error at their end."""
        try:
            yield from self._footage.shots(start)
        except UserError as error:
            self._error = error
        self._ended = True

    def fault(self, count: int) -> UserError | None:
        """What is wrong with the video, once all its shots have been read; None if nothing is, or before that.

        Args:
            count: number of masks that were written.
        """
        if self._error is not None:
            return self._error
        if self._footage.broken_off is None or not self._ended:
            return None
        return UserError(
            f"the video breaks off after frame {count - 1} ({self._footage.broken_off}); expected a complete file; the "
            f"masks of these {count} frames are complete; copy or download the file again for the rest"
        )
