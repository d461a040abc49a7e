"""One error line for a result that cannot be written."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import av

from pipeline.core.errors import UserError


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turn an error of the file system inside the block into one line.

    Args:
        path: of the file.

    Raises:
        UserError: it cannot be written.
    """
    try:
        yield
    except (av.FFmpegError, OSError) as error:
        raise UserError(
            f"{path} cannot be written ({error.strerror or error}); expected space and permission for the results; the "
            "masks so far are complete; free some space or give another --out"
        ) from None
