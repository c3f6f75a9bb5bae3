"""What can go wrong with a store, each in words that tell a person what to do."""

from __future__ import annotations


class AmberError(Exception):
    """Something a person has to know of; its text is one sentence that says what to do."""

    exit_status = 1
    """What a command ends with because of it: 2 where it was called wrongly."""


class StoreError(AmberError):
    """The store cannot do what was asked."""


class StoreBusy(StoreError):
    """Another process holds the store's lock or its write lock."""


class StoreFull(StoreError):
    """The disk under the store has no room, or less than the configured floor."""


class StoreDamaged(StoreError):
    """The file is not an Amber store, is corrupt, or is of a newer version."""


class StoreGone(StoreError):
    """The file at the store's path is no longer the one that was opened."""


class StoreFailing(StoreError):
    """The disk answered with an input/output error; what was being committed may or may not be there."""


class StoreReopened(AmberError):
    """The file had to be opened anew, and may be another: what was read from it before may not be written to it."""
