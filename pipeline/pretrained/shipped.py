"""The weights in the repository: `weights/dstm-lite.safetensors`, described in `weights/README.md`."""

from __future__ import annotations

from pathlib import Path

from pipeline.core.errors import UserError

SHIPPED = Path(__file__).resolve().parents[2] / "weights" / "dstm-lite.safetensors"
"""The weights that are used if no others are given."""

SHA256 = "59d9892ae5b318bbe7ed956ee90fc1792dc289cf0be0d30f6bd3c0a4eb888c50"
"""SHA-256 of that file, checked by a test."""


def shipped_weights() -> Path:
    """The path of the shipped weights.

    Raises:
        UserError: the file is missing from this copy of the repository.
    """
    if not SHIPPED.is_file():
        raise UserError(
            f"{SHIPPED} does not exist; expected the weights that are in the repository; get the file with git, or "
            "name other weights"
        )
    return SHIPPED
