"""SolarAssistant: one value a topic, `solar_assistant/inverter_1/pv_power/state`; units come by discovery, if at all.

https://solar-assistant.io/help/integration/mqtt
"""

from __future__ import annotations

from collections.abc import Sequence

from gateway.formats.body import Body
from gateway.formats.draft import Draft
from gateway.formats.families.homeassistant import announced_unit
from gateway.formats.format import Format
from storage.event import Event, Kind, Message

_NAME = "solar_assistant"


def read(message: Message, body: Body) -> Sequence[Event] | None:
    """The reading is the level before `state`; before `set` it is a command, and its answer is a topic of its own."""
    *_, device, name, end = message.topic.split("/")
    text = body.text
    if text is None or text[:1] in ("{", "["):
        return None
    draft = Draft(_NAME, message, body)
    if (device, name) == ("set", "response_message"):
        draft.put_value(name, text or None)
        return [draft.event(_NAME, "event", vendor_type=name)]
    # The value of one topic is that of its command topic as well.
    topic = message.topic if end == "state" else f"{message.topic.removesuffix('set')}state"
    draft.put_scalar(name, text, announced_unit(body, topic), source="learned")
    kind: Kind | None = "command" if end == "set" else None
    return [draft.event(device, kind)]


FORMATS: tuple[Format, ...] = (
    Format(
        name=_NAME,
        read=read,
        # Under another prefix the inverters have their names.
        topics=tuple(f"#/{above}/+/{end}" for above in ("solar_assistant/+", "inverter_*") for end in ("state", "set")),
    ),
)
