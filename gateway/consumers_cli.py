"""The door to the consumers there are: `amber consumers`. Lists, sets back, removes them; never reads by them."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from gateway.replay_cli import checked
from storage.cli import DEFAULT_STORE, Format, FormatOption, StoreOption, write

if TYPE_CHECKING:
    from storage.consumers import Known, Start
    from storage.cursors import Cursor
    from storage.filters import Filters
    from storage.render import View

SubcommandStore = Annotated[
    str | None, typer.Option("--store", metavar="PATH|URL", help="The store's file, or sqlite:///FILE.")
]
NameArgument = Annotated[str, typer.Argument(metavar="NAME", show_default=False, help="The consumer.")]


def register(app: typer.Typer) -> None:
    """Add the commands to `app`."""
    group = typer.Typer(invoke_without_command=True)
    group.callback()(consumers)
    group.command("reset")(reset)
    group.command("remove")(remove)
    app.add_typer(group, name="consumers")


def consumers(
    context: typer.Context, *, format: FormatOption = Format.table, store: StoreOption = DEFAULT_STORE
) -> None:
    """Show the consumers of the store, where they are and how far behind; set one back, or remove it.

    Amber's own cursors, and those of replays that can be taken up again, are listed with them.
    """
    if context.invoked_subcommand is not None:
        context.obj = store
        return
    from storage.consumers import known
    from storage.engine import store_path

    write(view(), format, [known(store_path(store))])


def reset(
    context: typer.Context,
    name: NameArgument,
    *,
    to: Annotated[
        str,
        typer.Option(
            metavar="beginning|now|POSITION|TIME", show_default=False, help="Where it is to go on when it is started."
        ),
    ],
    store: SubcommandStore = None,
) -> None:
    """Set a consumer that does not run to another place in the log."""
    from storage.consumers import reset
    from storage.engine import store_path

    start = parse_start(to, "--to")
    path = store_path(store or context.obj)
    try:
        cursor, position = reset(path, chosen(name), start)
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="--to") from error
    print(f"{cursor.kind} {name} was at {cursor.position}, and is at {position}")


def remove(context: typer.Context, name: NameArgument, *, store: SubcommandStore = None) -> None:
    """Forget a consumer that does not run, and what it was to read."""
    from storage.consumers import remove
    from storage.engine import store_path

    cursor = remove(store_path(store or context.obj), chosen(name))
    print(f"{cursor.kind} {name} is removed")


def chosen(name: str) -> str:
    """The name of a cursor that people may change. Raises BadParameter."""
    from storage.cursors import RESERVED

    if name.startswith(RESERVED):
        raise typer.BadParameter(f"{name} is Amber's own: it cannot be reset or removed", param_hint="NAME")
    return checked(name, "NAME")


def view() -> View[Known]:
    """How a cursor looks."""
    from storage.render import View, age, shown
    from storage.times import iso

    def record(known: Known) -> Sequence[object]:
        cursor = known.cursor
        place = cursor.position, known.lag.events, known.lag.messages, iso(cursor.moved_at)
        return cursor.name, cursor.kind, *place, known.reader, asks_json(cursor)

    def cells(known: Known) -> Sequence[str]:
        cursor = known.cursor
        lag = known.lag
        behind = counted(lag.messages, "message") if lag.events is None else counted(lag.events, "event")
        return (
            cursor.name,
            cursor.kind,
            str(cursor.position),
            behind,
            f"{age(time.time_ns() // 1_000 - cursor.moved_at)} ago",
            "-" if known.reader is None else f"process {shown(known.reader)}",
            shown(asks(cursor)),
        )

    fields = "name", "kind", "position", "events_behind", "messages_behind", "moved_at", "process", "filters"
    columns = "name", "kind", "position", "behind", "moved", "runs", "filters"
    return View(lambda page: [json_of(fields, record(known)) for known in page], fields, record, columns, cells)


def json_of(fields: Sequence[str], values: Sequence[object]) -> str:
    """One object; what is JSON already goes in as it is."""
    import msgspec

    found = dict(zip(fields, values, strict=True))
    filters, process = found["filters"], found["process"]
    found["filters"] = None if filters is None else msgspec.Raw(str(filters).encode())
    found["process"] = int(process) if isinstance(process, str) and process.isdecimal() else process
    return msgspec.json.encode(found).decode()


def counted(number: int, thing: str) -> str:
    return f"{number} {thing}{'s' * (number != 1)}"


def asks(cursor: Cursor) -> str:
    """What a cursor asks for, on one line."""
    if cursor.filters is None:
        return "-"
    from storage.consumers import asked_for, described

    filters = filters_of(cursor)
    return described(filters) if asked_for(filters) else "-"


def asks_json(cursor: Cursor) -> str | None:
    """What a cursor asks for as JSON, with times as people read them."""
    if cursor.filters is None:
        return None
    import msgspec

    from storage.consumers import asked_for
    from storage.times import iso

    asked = asked_for(filters_of(cursor))
    asked |= {name: iso(asked[name]) for name in ("since", "until") if name in asked}
    return msgspec.json.encode(asked).decode() if asked else None


def filters_of(cursor: Cursor) -> Filters:
    from storage.consumers import remembered
    from storage.replay.bookmark import asked_by

    return asked_by(cursor).filters if cursor.kind == "replay" else remembered(cursor)


def parse_start(text: str, option: str) -> Start:
    """Where to begin. Raises BadParameter."""
    if text == "beginning":
        return "beginning"
    if text == "now":
        return "now"
    if text.isdecimal() and text.isascii():
        if int(text) >= 2**63:
            raise typer.BadParameter(f"{text} is no position: it does not fit 64 bits", param_hint=option)
        return int(text)
    from datetime import UTC, datetime, timedelta

    from storage.times import parse_time

    try:
        return datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=parse_time(text))
    except (ValueError, OverflowError):
        raise typer.BadParameter(
            f"{text!r} is no place in the log: write beginning, now, a position, or a time as 2h or"
            " 2026-11-22T09:00:00Z",
            param_hint=option,
        ) from None
