"""Says how a message is read: who was asked and by which sign, what each field is from, which rule would change it."""

from __future__ import annotations

import json
from collections.abc import Iterator

import msgspec

from gateway import outcomes
from gateway.formats import IGNORED, Formats, Trial
from gateway.formats.rules import NAME, RAW, Rule
from storage.event import Event, Message, Outcome, Rejection
from storage.times import iso

SHOWN_EVENTS = 20
SHOWN_CHARS = 72

_UNIT_SOURCES = {
    "message": "the message states it",
    "format": "by the format's documentation",
    "learned": "from an earlier message",
    "rule": "by your rule",
}


class Explanation(msgspec.Struct, frozen=True):
    """What became of a message, and on the way to it."""

    message: Message
    outcome: Outcome
    trials: list[Trial]
    rule: Rule | None
    others: int
    """How many formats were not asked: nothing in the message speaks for them."""


def explain(formats: Formats, message: Message) -> Explanation:
    """Read a message and note every step; nothing is learned from it."""
    outcome, trials = formats.trials(message)
    asked = {trial.format for trial in trials}
    return Explanation(message, outcome, trials, formats.rule_for(message.topic), len(set(formats.names) - asked))


def lines(found: Explanation) -> Iterator[str]:
    """The explanation for a person."""
    message, outcome = found.message, found.outcome
    yield f"message   {message.topic or '(no topic)'} · {len(message.payload)} bytes · {_preview(message.payload)}"
    yield f"rule      {'none of yours takes this topic' if found.rule is None else _rule_text(found.rule)}"
    for trial in found.trials:
        yield f"asked     {trial.format} ({trial.sign}): {_said(trial.outcome)}"
    yield f"          {found.others} other formats were not asked: nothing in the message speaks for them"
    if outcome is IGNORED:
        yield "result    ignored: acknowledged and not kept, because the rule says so"
    elif isinstance(outcome, Rejection):
        yield f"result    rejected: {outcome.reason} (the message is kept, and can be read again later)"
    elif not outcome:
        yield "result    no events: the message is kept as it is"
    else:
        yield from _events(found, list(outcome))
    yield from ("", "A rule in amber.toml that would change it:", "", *suggestion(found).splitlines())


def json_lines(found: Explanation) -> Iterator[str]:
    """The explanation for a program."""
    document = {
        "topic": found.message.topic,
        "bytes": len(found.message.payload),
        "rule": None if found.rule is None else found.rule.topic,
        "asked": [
            {"format": trial.format, "sign": trial.sign, "result": _said(trial.outcome)} for trial in found.trials
        ],
        "not_asked": found.others,
        **outcomes.outcome(found.outcome),
        "unit_sources": [
            {name: _source(event, name) for name in event.units or {}}
            for event in ([] if isinstance(found.outcome, Rejection) else found.outcome)
        ],
        "suggestion": suggestion(found),
    }
    yield msgspec.json.encode(document).decode()


def suggestion(found: Explanation) -> str:
    """A rule for messages like this one, in TOML, with what it may say."""
    events = [] if isinstance(found.outcome, Rejection) else list(found.outcome)
    levels = found.message.topic.split("/")
    device = events[0].device if events else None
    topic = "/".join("{device}" if level == device else level for level in levels)
    read = sorted({event.format for event in events} - {NAME}) or ["json"]
    bare = [name for event in events for name in event.readings if name not in (event.units or {})]
    numbers = [n for event in events for n, value in event.readings.items() if type(value) in (int, float)]
    unit = next((name for name in bare if name in numbers), next(iter(numbers), "temperature"))
    above = "" if found.rule is None else f"  # above the rule for {found.rule.topic}: the first that fits counts"
    known = dict(pair for event in events for pair in (event.units or {}).items())
    parts = [
        f"[[rules]]{above}",
        f"topic = {json.dumps(topic, ensure_ascii=False)}",
        f'# format = "{read[0]}"            # or "{RAW}": keep and do not read, "ignore": do not keep',
    ]
    if "{device}" not in topic:
        parts.append(f"# device = {json.dumps(device or 'name', ensure_ascii=False)}")
    parts += [
        f'# kind = "{events[0].kind if events else "measurement"}"',
        f'# units = {{ {_key(unit)} = "{known.get(unit, "Cel")}" }}   # scale = {{ {_key(unit)} = 0.1 }}',
    ]
    if not any(event.from_device for event in events):
        parts.append('# time_zone = "Europe/Berlin"   # if the device gives its local time')
    if found.message.payload[:1] == b"{":
        parts.append(f'# readings = {{ {_key(unit)} = "path.in.the.json" }}   # device_path, time_path: likewise')
    return "\n".join(parts)


def _events(found: Explanation, events: list[Event]) -> Iterator[str]:
    for number, event in enumerate(events[:SHOWN_EVENTS], start=1):
        yield f"event {number:<3} {event.kind} · read as {event.format}"
        yield f"  device  {event.device}  ({_device_source(found, event)})"
        yield f"  time    {iso(event.observed_at)}  ({_time_source(event)})"
        if event.seq is not None:
            yield f"  seq     {event.seq}"
        if event.detail is not None:
            for name, value in msgspec.to_builtins(event.detail).items():
                if name != "quality":
                    yield f"  {name:<7} {json.dumps(value, ensure_ascii=False)}"
        for name in event.readings:
            yield f"  {_reading(event, name)}"
        if not event.readings:
            yield "  no readings"
    if len(events) > SHOWN_EVENTS:
        yield f"… and {len(events) - SHOWN_EVENTS} more events"


def _reading(event: Event, name: str) -> str:
    value = event.readings[name]
    quality = (event.detail.quality if event.detail else {}).get(name)
    text = json.dumps(value, ensure_ascii=False) if value is not None else quality or "missing"
    if value is not None and quality:
        text += f" [{quality}]"
    code = (event.units or {}).get(name)
    if code is None:
        return f"{name} = {_cut(text)}"
    return f"{name} = {_cut(text)} {code}  (unit: {_UNIT_SOURCES[_source(event, name)]})"


def _source(event: Event, name: str) -> str:
    return (event.unit_sources or {}).get(name, "message")


def _device_source(found: Explanation, event: Event) -> str:
    if found.rule is not None and found.rule.named_device(found.message.topic) == event.device:
        return "by your rule"
    levels = found.message.topic.split("/")
    if event.device in levels or ("/" in event.device and event.device in found.message.topic):
        return "from the topic"
    return "from the message" if event.device.encode() in found.message.payload else "by the format"


def _time_source(event: Event) -> str:
    return "the device's clock" if event.from_device else "time of arrival: no time of the device that can be believed"


def _said(outcome: Outcome | None) -> str:
    if outcome is None:
        return "not of this format"
    if isinstance(outcome, Rejection):
        return f"of this format, and broken: {outcome.reason}"
    return f"read it: {len(outcome)} event{'' if len(outcome) == 1 else 's'}"


def _rule_text(rule: Rule) -> str:
    said = {
        "format": rule.format,
        "device": rule.device,
        "kind": rule.kind,
        "time_zone": rule.zone and str(rule.zone),
        "units": ", ".join(f"{name} = {code}" for name, code in rule.units.items()),
        "scale": ", ".join(f"{name} × {factor:g}" for name, factor in rule.scale.items()),
        "readings": ", ".join(name for name, _ in rule.paths.readings) if rule.paths else "",
        "device_path": rule.paths.device.expression if rule.paths and rule.paths.device else "",
        "time_path": rule.paths.time.expression if rule.paths and rule.paths.time else "",
    }
    return f"{rule.topic}: " + (" · ".join(f"{key} {text}" for key, text in said.items() if text) or "says nothing")


def _preview(payload: bytes) -> str:
    try:
        text = payload.decode()
    except UnicodeDecodeError:
        return f"0x{_cut(payload[:SHOWN_CHARS].hex())}"
    return _cut("".join(char if char.isprintable() else " " for char in text) or "(empty)")


def _cut(text: str) -> str:
    return text if len(text) <= SHOWN_CHARS else f"{text[:SHOWN_CHARS]}…"


def _key(name: str) -> str:
    return name if name.replace("_", "").replace("-", "").isalnum() and name.isascii() else json.dumps(name)
