"""Writes the events of one message: readings with units and qualities first, then whose they are and when."""

from __future__ import annotations

from gateway.formats import plain, texts, times, values
from gateway.formats.body import Body
from gateway.formats.format import Unreadable
from gateway.formats.tree import Tree
from storage.event import Detail, Event, Kind, Location, Message, UnitSource, Value

_ALTITUDES = ("altitude", "alt", "elevation")
_ACCURACIES = ("accuracy", "acc", "hdop_m", "gps_accuracy")


class Draft(Tree):
    """One event after the other: fill in with `put`, `put_value` and `put_missing`, then take it with `event`.

    The bounds of `Options` hold over all the events of the message; over one of them, Unreadable is raised.
    """

    def __init__(self, format: str, message: Message, body: Body) -> None:
        super().__init__(body.options)
        self._format = format
        self._received_at = message.received_at
        self._name_chars = body.options.name_chars

    def believed(self, stamp: object) -> int | None:
        """A device's stamp in microseconds; None where it is no time, or not within the plausible window."""
        return times.believed(stamp, self._received_at, self.options)

    def put_scalar(self, name: str, text: str, unit: str | None = None, *, source: UnitSource = "message") -> None:
        """Add what a whole text says, as `plain` reads it: a number, true or false, nothing (NaN is bad), or itself."""
        value = plain.scalar(text) if text else None
        bad = value is None and text.lower() not in plain.NOTHING and text != ""
        self.put_value(name, value, unit, source=source, quality="bad" if bad else None)

    def event(
        self,
        device: str,
        kind: Kind | None = None,
        *,
        stamp: object = None,
        seq: int | None = None,
        via: str | None = None,
        vendor_type: str | None = None,
        boot: str | None = None,
        source_id: str | None = None,
        historical: bool = False,
        provisional: bool = False,
        location: Location | None = None,
        placed: bool = True,
    ) -> Event:
        """The event of what was put in since the last one.

        Without a kind the readings decide; a `stamp` (number, text, see `times`) that cannot be believed leaves the
        time of arrival; a position among the readings is the location, where none is given, and unless `placed` says
        that it is another's: a fence, the gateway.
        """
        name = texts.storable(device.strip())
        if not 0 < len(name) <= self._name_chars:
            raise Unreadable(f"the name of the device has {len(name)} characters, and may have 1 to {self._name_chars}")
        observed_at = None if stamp is None else self.believed(stamp)
        detail = Detail(
            via=_word(via),
            vendor_type=_word(vendor_type),
            boot=_word(boot),
            source_id=_word(source_id),
            historical=historical,
            provisional=provisional,
            quality=self.quality,
            location=location or (located(self.readings) if placed else None),
        )
        event = Event(
            name,
            kind or values.kind_of(self.readings),
            self._format,
            self._received_at if observed_at is None else observed_at,
            self.readings,
            observed_at is not None,
            seq if seq is not None and 0 <= seq < 2**63 else None,
            self.units or None,
            None if detail == _PLAIN else detail,
            self.unit_sources or None,
        )
        self.start()
        return event


_PLAIN = Detail()


def located(readings: dict[str, Value]) -> Location | None:
    """The position among readings, with the altitude and the accuracy beside it."""
    found = values.position(readings)
    if found is None:
        return None
    latitude, longitude = (readings[name] for name in found)
    path = found[0].rpartition(".")[0]
    beside = {name.rpartition(".")[2].lower(): value for name, value in readings.items() if _under(name, path)}
    return Location(
        float(latitude),  # type: ignore[arg-type]  # `position` has seen coordinates, quoted or not
        float(longitude),  # type: ignore[arg-type]
        _number(beside, _ALTITUDES),
        _number(beside, _ACCURACIES),
    )


def _under(name: str, path: str) -> bool:
    return name.rpartition(".")[0] == path


def _number(beside: dict[str, Value], names: tuple[str, ...]) -> float | None:
    for name in names:
        value = beside.get(name)
        if type(value) is int or type(value) is float:
            return float(value)
    return None


def _word(text: str | None) -> str | None:
    return texts.shortened(text) if text else None
