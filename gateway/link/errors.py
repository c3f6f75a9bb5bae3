"""What can go wrong with a link, each in words that tell a person what to do."""

from __future__ import annotations


class LinkError(Exception):
    """The link cannot do what was asked; its text is one sentence that says what to do."""
