"""Valetudo: a vacuum robot, a property a topic, as Homie has them; the handles and their units are documented.

https://valetudo.cloud/pages/integrations/mqtt.html
"""

from __future__ import annotations

from collections.abc import Sequence

from gateway.formats.body import Body, Json
from gateway.formats.draft import Draft
from gateway.formats.format import Format, Unreadable
from gateway.formats.plain import scalar
from storage.event import Event, Message, Value

_NAME = "valetudo"

_CAPABILITIES = """
AutoEmptyDockManualTrigger BasicControl CarpetModeControl CarpetSensorModeControl ConsumableMonitoring CurrentStatistics
FanSpeedControl GoToLocation KeyLock Locate MapSegmentation ObstacleAvoidanceControl OperationModeControl
PetObstacleAvoidanceControl SpeakerVolumeControl TotalStatistics WaterUsageControl WifiConfiguration ZoneCleaning
"""
_ATTRIBUTES = "AttachmentState BatteryState DockComponentState DockStatusState StatusState"
_NODES = (
    *(f"{name}Capability" for name in _CAPABILITIES.split()),
    *(f"{name}Attribute" for name in _ATTRIBUTES.split()),
    "MapData",
    "ValetudoEvents",
)
_KNOWN = frozenset(_NODES)

# Handles that only take commands; Valetudo answers on the same topic without `/set`.
_COMMANDS = frozenset(
    {
        "AutoEmptyDockManualTriggerCapability/trigger",
        "BasicControlCapability/operation",
        "ConsumableMonitoringCapability/refresh",
        "GoToLocationCapability/go",
        "LocateCapability/locate",
        "MapSegmentationCapability/clean",
        "MopDockCleanManualTriggerCapability/trigger",
        "MopDockDryManualTriggerCapability/trigger",
        "ValetudoEvents/valetudo_events/interact",
        "ZoneCleaningCapability/start",
    }
)
_NUMBERS = {
    "BatteryStateAttribute/level": "%",
    "CurrentStatisticsCapability/area": "cm2",
    "CurrentStatisticsCapability/time": "s",
    "SpeakerVolumeControlCapability/value": "",
    "TotalStatisticsCapability/area": "cm2",
    "TotalStatisticsCapability/count": "1",
    "TotalStatisticsCapability/time": "s",
    "WifiConfigurationCapability/signal": "dBm",
}
_NUMBER_NODES = frozenset({"ConsumableMonitoringCapability"})
_BOOLEAN_NODES = frozenset({"AttachmentStateAttribute"})
_WHOLE = 100
_DOCUMENTS = frozenset(
    {
        "GoToLocationCapability/go",
        "MapData/segments",
        "MapSegmentationCapability/clean",
        "StatusStateAttribute/error",
        "ValetudoEvents/valetudo_events/interact",
        "ZoneCleaningCapability/start",
    }
)
_MAPS = frozenset({"MapData/map-data", "MapData/map-data-hass"})


def read(message: Message, body: Body) -> Sequence[Event] | None:
    """`prefix/robot/node/property`; a map, which is a picture or packed, gives an event without readings."""
    levels = message.topic.split("/")
    command = levels[-1] == "set"
    if command:
        levels.pop()
    at = _node_at(levels)
    if at is None or at + 1 >= len(levels):
        return None
    device, handle = levels[at - 1], "/".join(levels[at:])
    draft = Draft(_NAME, message, body)
    if handle in _MAPS:
        return [draft.event(device, "other", vendor_type="MapData")]
    if body.text is None:
        return None
    if handle == "ValetudoEvents/valetudo_events" and not command:
        return _pending(draft, device, body)
    _put(draft, handle, message.topic.removesuffix("/set"), body)
    command = command or handle in _COMMANDS or handle.endswith("/reset")
    return [draft.event(device, "command" if command else None)]


def _node_at(levels: list[str]) -> int | None:
    """Where the handle begins; the prefix is the user's, the names of the nodes are not."""
    for at in range(2, len(levels)):
        if levels[at] in _KNOWN:
            return at
    # Handles of later versions, and what is published for Home Assistant only.
    return 2 if levels[0] == _NAME and len(levels) > 3 and not levels[2].startswith("$") else None


def _pending(draft: Draft, device: str, body: Body) -> Sequence[Event]:
    """The events that nobody has dealt with; retained, so that their stamps are not this message's.

    By class, not by id: an id is new for each event, and would make a series of its own.
    """
    document = body.document
    if body.text and not isinstance(document, dict):
        raise Unreadable(body.json_fault or "the events are no JSON object")
    for raised in document.values() if isinstance(document, dict) else ():
        sort = raised.get("__class") if isinstance(raised, dict) else None
        if isinstance(raised, dict) and isinstance(sort, str):
            for key in ("timestamp", "processed", "message"):
                if key in raised:
                    draft.put(f"{sort}.{key}", raised[key])
    return [draft.event(device, "event", vendor_type="ValetudoEvents")]


def _put(draft: Draft, handle: str, topic: str, body: Body) -> None:
    name, text, node = handle.replace("/", "."), body.text or "", handle.partition("/")[0]
    if body.document is not None:
        draft.put(name, body.document)
    elif handle in _DOCUMENTS and body.json_fault:
        raise Unreadable(body.json_fault)
    elif handle in _NUMBERS:
        draft.put_scalar(name, text, _NUMBERS[handle], source="format")
    elif node in _NUMBER_NODES:
        _put_consumable(draft, name, text, body.learned.get("homie4", f"{topic}/$unit"))
    elif node in _BOOLEAN_NODES:
        draft.put_scalar(name, text)
    else:  # enumerations and texts; a network may be called 12345
        draft.put_value(name, text or None)


def _put_consumable(draft: Draft, name: str, text: str, unit: Json) -> None:
    """Percent or seconds, as the robot has it: its Homie attribute tells, or the size of the number."""
    if isinstance(unit, str):
        draft.put_scalar(name, text, unit, source="learned")
    else:
        draft.put_scalar(name, text, _measure(scalar(text)) if text else None, source="format")


def _measure(left: Value) -> str | None:
    """Robots count at least by the minute: of the times that are left, 0 and 60 alone might be percentages as well."""
    if type(left) is not int or left == 0:
        return None
    return "s" if left > _WHOLE else "%"


FORMATS: tuple[Format, ...] = (
    Format(
        name=_NAME,
        read=read,
        topics=("valetudo/#", *(f"#/{node}/{end}" for node in _NODES for end in ("+", "+/set"))),
    ),
)
