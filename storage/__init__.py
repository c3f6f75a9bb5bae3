"""The log: what was received, kept in the order in which it was committed. Knows nothing of MQTT.

`from storage import open_log` is the way in for Python programs; nothing is imported before it is named.
"""

from __future__ import annotations

TYPE_CHECKING = False  # typing's own costs 2 ms
if TYPE_CHECKING:
    from storage.api import Answers as Answers
    from storage.api import Batches as Batches
    from storage.api import Bucket as Bucket
    from storage.api import Device as Device
    from storage.api import Event as Event
    from storage.api import Events as Events
    from storage.api import Gaps as Gaps
    from storage.api import Latest as Latest
    from storage.api import Log as Log
    from storage.api import Query as Query
    from storage.api import Series as Series
    from storage.api import open_log as open_log
    from storage.api.consumer import Consumer as Consumer
    from storage.api.player import Player as Player
    from storage.errors import AmberError as AmberError
    from storage.errors import StoreBusy as StoreBusy
    from storage.errors import StoreDamaged as StoreDamaged
    from storage.errors import StoreError as StoreError
    from storage.errors import StoreGone as StoreGone

_PLACES = {
    "Answers": "api",
    "Batches": "api",
    "Bucket": "api",
    "Consumer": "api.consumer",
    "Device": "api",
    "Event": "api",
    "Events": "api",
    "Gaps": "api",
    "Latest": "api",
    "Log": "api",
    "Player": "api.player",
    "Query": "api",
    "Series": "api",
    "open_log": "api",
    "AmberError": "errors",
    "StoreBusy": "errors",
    "StoreDamaged": "errors",
    "StoreError": "errors",
    "StoreGone": "errors",
}

if not TYPE_CHECKING:  # or a type checker would take any name for one that is there

    def __getattr__(name: str) -> object:
        if name not in _PLACES:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        from importlib import import_module

        found = globals()[name] = getattr(import_module(f"storage.{_PLACES[name]}"), name)
        return found


def __dir__() -> list[str]:
    return sorted({*globals(), *_PLACES})
