"""Telegraf's JSON, single or batch: https://docs.influxdata.com/telegraf/v1/data_formats/output/json/."""

from __future__ import annotations

from collections.abc import Sequence

from gateway.formats.body import Body, Json
from gateway.formats.draft import Draft
from gateway.formats.families.influx import point
from gateway.formats.format import Format, named
from gateway.formats.values import kind_of
from storage.event import Event, Message

NAME = "telegraf_json"

_NAMES = ("name", "measurement")
_PARTS = frozenset({*_NAMES, "tags", "fields", "data", "timestamp", "time"})


def read(message: Message, body: Body) -> Sequence[Event] | None:
    """An event of each metric; None where any of them is none."""
    metrics = _metrics(body.document)
    if not metrics or not all(map(_is_metric, metrics)):
        return None
    draft = Draft(NAME, message, body)
    topic = named(body.place.device, body)
    return [_event(draft, body, topic, metric) for metric in metrics]


FORMATS: tuple[Format, ...] = (
    Format(
        name=NAME,
        read=read,
        keys=(
            frozenset({"name", "fields", "tags"}),
            frozenset({"measurement", "fields"}),
            frozenset({"name", "fields", "timestamp"}),
            frozenset({"name", "data", "tags"}),
            frozenset({"metrics"}),
        ),
    ),
)


def _metrics(document: Json) -> list[dict[str, Json]]:
    if isinstance(document, dict):
        document = document["metrics"] if document.keys() == {"metrics"} else [document]
    metrics = document if isinstance(document, list) else []
    found = [metric for metric in metrics if isinstance(metric, dict)]
    return found if len(found) == len(metrics) else []


def _is_metric(node: dict[str, Json]) -> bool:
    return (
        node.keys() <= _PARTS
        and isinstance(node.get("fields", node.get("data")), dict)
        and not ("data" in node and ("fields" in node or "tags" not in node))
        and isinstance(node.get("tags", {}), dict)
        and isinstance(node.get("name", node.get("measurement")), str)
    )


def _event(draft: Draft, body: Body, topic: str, metric: dict[str, Json]) -> Event:
    tags, values = metric.get("tags", {}), metric.get("fields", metric.get("data"))
    name = metric.get("name", metric.get("measurement"))
    assert isinstance(tags, dict)  # noqa: S101  `_is_metric` has seen it, and so the next two
    assert isinstance(values, dict)  # noqa: S101
    assert isinstance(name, str)  # noqa: S101
    device = point(draft, topic, name, tags, values.items())
    kind = body.place.kind or ("location" if kind_of(draft.readings) == "location" else "measurement")
    return draft.event(device, kind, stamp=metric.get("timestamp", metric.get("time")))
