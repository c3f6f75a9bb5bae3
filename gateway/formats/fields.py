"""Which keys of a JSON object name the device, its clock and its sequence, and which ones only wrap the readings."""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache
from typing import NamedTuple

# Best first. Keys are compared in lower case without `_`, `-` and spaces: device_id and deviceId are one name.
DEVICE = (
    "device deviceid devicename deviceuid deveui devid sensorid sensorname nodeid thingid assetid machineid "
    "controllerid stationid meterid trackerid id hostname"
)
TIME = (
    "observedat time timestamp ts datetime when measuredat sampledat recordedat eventtime devicetime timeutc utctime "
    "utc tst timems timestampms tsms epoch unixtime createdat date t dt lastupdate lastupdated updatedat"
)
# `n` and `counter` count pulses as often as messages: taken for a sequence, a water meter would lose its readings.
SEQ = "seq sequence seqno seqnum seqnr sequenceno sequencenumber fcnt framecounter messageid msgid packetid"
BOOT = "boot bootid"
UNITS = "units"
WRAPPERS = frozenset({"readings", "values", "fields", "measurements", "telemetry", "data", "payload", "body"})
"""Objects under these keys are read as if their keys stood beside the others."""
BATCHES = WRAPPERS | {"metrics", "events", "samples", "records", "points", "entries", "history", "batch"}
"""Arrays of objects under these keys may be a batch."""
DEVICES = frozenset({"devices", "nodes", "sensors", "things", "assets", "machines"})
"""Arrays under these keys are a batch where each object names its device."""
SOURCES = ("source", "host")
"""In a batch, of which the topic cannot name every device, these do so as well."""

VALUE = frozenset({"value", "val"})
UNIT = frozenset({"unit", "units", "uom", "unitofmeasurement"})
DESCRIPTION = frozenset({"cat", "category", "desc", "description", "label", "datatype"})
_NAME = "name n key parameter metric field quantity channel type variable property measurement signal"
NAME = frozenset(_NAME.split())
UNIT_ENDINGS = ("unit", "units", "uom")

_RANKS = {
    key: (role, rank)
    for role, keys in enumerate((DEVICE, TIME, SEQ, BOOT, UNITS))
    for rank, key in enumerate(keys.split())
}
_DROPPED = str.maketrans("", "", "_- ")


class Roles(NamedTuple):
    """The keys of one object that may have a role, best first."""

    device: tuple[str, ...]
    time: tuple[str, ...]
    seq: tuple[str, ...]
    boot: tuple[str, ...]
    units: tuple[str, ...]


_NO_ROLES = Roles((), (), (), (), ())


def roles(keys: Iterable[str]) -> Roles:
    ranked = [(*found, key) for key in keys if (found := _RANKS.get(squeezed(key)))]
    if not ranked:
        return _NO_ROLES
    if len(ranked) > 1:
        ranked.sort(key=_rank)  # two spellings of one key stay in their order
    return Roles(*(tuple([key for role, _, key in ranked if role == wanted]) for wanted in range(5)))


def squeezed(key: str) -> str:
    """The form in which keys are compared; none of the words above is as long as 32 characters."""
    return _squeezed(key) if len(key) <= 32 else ""


def tells_unit(key: str) -> bool:
    """Whether a text under this key may be the unit of something beside it."""
    short = squeezed(key)
    return short in UNIT or short.endswith(UNIT_ENDINGS)


@lru_cache(maxsize=4_096)
def _squeezed(key: str) -> str:
    return key.translate(_DROPPED).lower()


def _rank(entry: tuple[int, int, str]) -> int:
    return entry[1]
