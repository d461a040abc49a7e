"""The exception whose message is shown to the user."""

from __future__ import annotations


class UserError(Exception):
    """An error that the user can fix: one line that says what was found, what was expected and what to do."""
