"""The golden cases: a folder for each format, a file for each message, with all that must come of it."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from zoneinfo import ZoneInfo

import msgspec
import pytest

from gateway.formats import Formats, Options
from storage.event import Detail, Event, Kind, Message, Properties, Rejection, UnitSource, Value
from tests.formats.messages import NOW, message, written

CASES = Path(__file__).with_name("cases")


class ExpectedEvent(msgspec.Struct, forbid_unknown_fields=True):
    """An event in full; without `observed_at` it has the time of arrival, without `format` that of its folder.

    Where the folder is that of a family, it holds cases of several formats, and each event names its own.
    """

    device: str
    kind: Kind
    readings: dict[str, Value]
    observed_at: str | None = None
    seq: int | None = None
    units: dict[str, str] | None = None
    format: str = ""
    detail: Detail | None = None
    unit_sources: dict[str, UnitSource] | None = None


class ExpectedRejection(msgspec.Struct, forbid_unknown_fields=True):
    """`reason` is a part of the reason."""

    format: str
    reason: str


class Expected(msgspec.Struct, forbid_unknown_fields=True):
    events: list[ExpectedEvent] = []
    rejection: ExpectedRejection | None = None


class Sent(msgspec.Struct, forbid_unknown_fields=True):
    """A message of a case; a text in parts is each part so many times."""

    topic: str | list[tuple[str, int]]
    payload: str | list[tuple[str, int]] = ""
    payload_hex: str = ""
    properties: Properties | None = None

    def message(self) -> Message:
        payload = bytes.fromhex(self.payload_hex) or whole(self.payload).encode()
        return message(payload, whole(self.topic), self.properties)


class Case(Sent, kw_only=True):
    """A message, what it must become, and what came `before` it for the formats to learn from."""

    expect: Expected
    before: list[Sent] = []
    says: str = ""
    options: dict[str, str] = {}


@pytest.mark.parametrize("path", sorted(CASES.rglob("*.json")), ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_a_message_becomes_what_its_case_expects(path: Path) -> None:
    check(msgspec.json.decode(path.read_bytes(), type=Case), path.parent.name)


def check(case: Case, format_name: str) -> None:
    options = Options(zone=ZoneInfo(case.options["zone"])) if "zone" in case.options else Options()
    formats = Formats(options)
    for earlier in case.before:
        formats.read(earlier.message())
    outcome = formats.read(case.message())
    if case.expect.rejection is not None:
        assert isinstance(outcome, Rejection), case.says
        assert outcome.format == case.expect.rejection.format
        assert case.expect.rejection.reason in outcome.reason
    else:
        assert written(outcome) == written([event(wanted, format_name) for wanted in case.expect.events]), case.says


def event(wanted: ExpectedEvent, format_name: str) -> Event:
    return Event(
        wanted.device,
        wanted.kind,
        wanted.format or format_name,
        NOW if wanted.observed_at is None else microseconds(wanted.observed_at),
        wanted.readings,
        wanted.observed_at is not None,
        wanted.seq,
        wanted.units,
        wanted.detail,
        wanted.unit_sources,
    )


def whole(text: str | list[tuple[str, int]]) -> str:
    return text if isinstance(text, str) else "".join(part * times for part, times in text)


def microseconds(iso: str) -> int:
    return round(datetime.fromisoformat(iso).timestamp() * 1_000_000)
