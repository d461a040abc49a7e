"""Read from the command line which objects have left the video, and when."""

from __future__ import annotations

import re
from collections.abc import Sequence

from pipeline.core.errors import UserError
from pipeline.core.images import VOID


def parse_gone(arguments: Sequence[str]) -> dict[int, list[int]]:
    """Read `FRAME:ID[,ID...]` arguments of the command line.

    Returns:
        Frame index -> ids.

    Raises:
        UserError: the arguments have another form.
    """
    gone: dict[int, list[int]] = {}
    for argument in arguments:
        match = re.fullmatch(r"([0-9]+):([0-9]+(?:,[0-9]+)*)", argument)
        ids = [int(part) for part in match[2].split(",")] if match else []
        if match is None or not all(0 < one < VOID for one in ids):
            raise UserError(
                f"--gone {argument} is not FRAME:ID or FRAME:ID,ID; expected a frame counted from 0 and ids from 1 to "
                "254, such as 40:2,3; correct it"
            )
        gone.setdefault(int(match[1]), []).extend(ids)
    return gone
