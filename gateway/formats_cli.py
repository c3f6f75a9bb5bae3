"""The door to the formats: `amber normalize` and `amber explain`. Parses, delegates, prints."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from storage.errors import AmberError
from storage.event import EVENTS_PER_MESSAGE

if TYPE_CHECKING:
    from gateway.config import Config
    from gateway.formats import Formats
    from storage.event import Message


class UsageError(AmberError):
    """What the command line cannot mean."""

    exit_status = 2


ConfigOption = Annotated[
    Path | None, typer.Option("--config", help="The configuration; amber.toml, if there is one.", show_default=False)
]


def register(app: typer.Typer) -> None:
    """Add the commands to `app`."""
    app.command("normalize")(normalize)
    app.command("explain")(explain)


def normalize(
    file: Annotated[
        Path | None, typer.Argument(help="Messages, one JSON object a line; standard input if left out.")
    ] = None,
    config: ConfigOption = None,
) -> None:
    """Read messages into events without broker or store: a line of JSON in, a line of JSON out."""
    from gateway.config import load
    from gateway.normalize import LineError, normalized

    formats = load(config, {}).make_formats()
    try:
        lines = sys.stdin.buffer if file is None else file.open("rb")
    except OSError as fault:
        raise LineError(f"cannot read {file}: {fault.strerror}") from None
    with lines:
        for line in normalized(lines, formats):
            sys.stdout.buffer.write(line + b"\n")
            sys.stdout.buffer.flush()


def explain(
    topic: Annotated[str | None, typer.Argument(help="The topic of the message.", show_default=False)] = None,
    payload: Annotated[str | None, typer.Argument(help="Its payload.", show_default=False)] = None,
    *,
    file: Annotated[Path | None, typer.Option(help="A file with the payload.", show_default=False)] = None,
    message: Annotated[
        int | None, typer.Option("--message", metavar="ID", help="A message of the store.", show_default=False)
    ] = None,
    content_type: Annotated[
        str | None, typer.Option(help="The MQTT 5 content type of the message.", show_default=False)
    ] = None,
    user_property: Annotated[
        list[str] | None, typer.Option(metavar="NAME=VALUE", help="An MQTT 5 user property.", show_default=False)
    ] = None,
    store: Annotated[
        str | None,
        typer.Option(help="The store: its messages, and what was learned from them.", show_default=False),
    ] = None,
    config: ConfigOption = None,
    json: Annotated[bool, typer.Option("--json", help="As a JSON object.")] = False,
) -> None:
    """Tell how a message is read: which format, why not the others, each field, and the rule that would change it."""
    from gateway import explain as explaining
    from gateway.config import load

    if (topic is None) == (message is None):
        raise UsageError("explain a TOPIC with its PAYLOAD, or a message of the store with --message ID")
    if payload is not None and (file is not None or message is not None):
        raise UsageError("the payload is given twice: leave PAYLOAD out")
    if message is None and payload is None and file is None:
        raise UsageError("what is the payload? Give it behind the topic, or --file FILE; '' for an empty one")
    settings = load(config, {} if store is None else {"store": store})
    if message is not None:
        explained = stored_message(settings, message)
    else:
        explained = given_message(topic or "", payload, file, content_type, user_property or [])
    found = explaining.explain(remembering(settings), explained)
    print("\n".join(explaining.json_lines(found) if json else explaining.lines(found)))


def remembering(settings: Config) -> Formats:
    """The formats with what the store has learned, where there is one."""
    from storage.history import Reader

    if not settings.store_path.exists():
        return settings.make_formats()
    with Reader(settings.store_path) as reader:
        return settings.make_formats(reader.facts())


def stored_message(settings: Config, message_id: int) -> Message:
    """Raises AmberError."""
    from storage.history import Reader

    with Reader(settings.store_path) as reader:
        found = reader.message(message_id)
    if found is None:
        hint = "the message_id of an event or a rejection in JSON is one"
        if message_id >= EVENTS_PER_MESSAGE:
            hint = f"the event of that id was read from message {message_id // EVENTS_PER_MESSAGE}"
        raise AmberError(f"there is no message {message_id} in {settings.store_path}: {hint}")
    return found.message


def given_message(
    topic: str, payload: str | None, file: Path | None, content_type: str | None, user_properties: list[str]
) -> Message:
    """Raises AmberError."""
    import os
    import time

    from storage.event import Message, Properties

    user = [(name, value) for name, _, value in (text.partition("=") for text in user_properties)]
    properties = Properties(content_type=content_type, user=tuple(user))
    try:
        content = os.fsencode(payload or "") if file is None else file.read_bytes()
    except OSError as fault:
        raise AmberError(f"cannot read {file}: {fault.strerror}") from None
    known = None if properties == Properties() else properties
    return Message(topic, content, 0, retain=False, received_at=time.time_ns() // 1_000, properties=known)
