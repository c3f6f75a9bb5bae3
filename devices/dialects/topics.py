"""Where a device's telemetry goes in the dialects that leave this to the user. Knows no payload."""

from __future__ import annotations

from devices.fleet import Device


def chosen(device: Device, default: str) -> str:
    """The group's topic, else the dialect's own, for this device: `{device}` and `{group}` stand for the names."""
    topic = device.group.topic or default
    return topic.replace("{device}", device.name).replace("{group}", device.group.name)


def fault(topic: str) -> str | None:
    """Why nothing can be published to such a topic, None where it can."""
    if not topic or "\0" in topic:
        return "a topic cannot be empty or hold a NUL"
    return "a topic to publish to cannot hold + or #" if {"+", "#"} & set(topic) else None
