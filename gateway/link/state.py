"""How a link is doing, for a status line and for `amber doctor`."""

from __future__ import annotations

import msgspec


class LinkState(msgspec.Struct, frozen=True):
    """One look at a link. `since` is the time of the last change of `connected`, in microseconds since the epoch.

    `subscribed` once the broker has granted every filter on the present connection; `refused` are those that it does
    not grant. `last_error` is one sentence that says what to do, and empty while all is well. `takeovers` counts the
    connections that another client with the same client id ended: those of which the broker says so, and those that
    end without a word again and again.
    """

    connected: bool
    broker: str
    since: int
    last_error: str = ""
    subscribed: bool = False
    refused: tuple[str, ...] = ()
    connections: int = 0
    takeovers: int = 0

    @property
    def reconnects(self) -> int:
        """How often it has connected again."""
        return max(0, self.connections - 1)
