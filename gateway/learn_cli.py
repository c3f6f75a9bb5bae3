"""The door of learning: `amber learn`. Parses, asks, prints; imports what is heavy when it is needed."""

from __future__ import annotations

import secrets
import sys
from typing import TYPE_CHECKING, Annotated

import typer

from storage.cli import (
    DEFAULT_STORE,
    ClockName,
    ClockOption,
    DeviceOption,
    KindOption,
    ReadingOption,
    SinceOption,
    StoreOption,
    TopicOption,
    UntilOption,
    filters_from_options,
    open_store,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gateway.learning.trial import Likeness


def register(app: typer.Typer) -> None:
    """Add the command to `app`."""
    app.command()(learn)


def learn(
    *,
    device: DeviceOption = None,
    topic: TopicOption = None,
    kind: KindOption = None,
    reading: ReadingOption = None,
    since: SinceOption = None,
    until: UntilOption = None,
    clock: ClockOption = ClockName.received,
    seed: Annotated[int | None, typer.Option(help="The seed in the file; any, if not given.")] = None,
    store: StoreOption = DEFAULT_STORE,
) -> None:
    """Make a fleet of recorded history: the same devices, paces, ranges and dialects, for `amber simulate`.

    The file goes to standard output; how alike it is, to standard error.
    """
    from gateway.learning import learn as learn_from
    from gateway.learning.trial import try_out

    filters = filters_from_options(
        device=device, topic=topic, kind=kind, reading=reading, since=since, until=until, clock=clock
    )
    with open_store(store) as reader:
        learned = learn_from(reader, filters, secrets.randbelow(2**31) if seed is None else seed)
    sys.stdout.write(learned.text)
    sys.stdout.flush()
    tell(try_out(learned))


def tell(tried: Sequence[Likeness]) -> None:
    """How alike each group is, and all of them."""
    from gateway.learning.trial import of_all
    from gateway.learning.writing import counted
    from storage.render import View, plain_table, shown

    def cells(one: Likeness) -> tuple[str, ...]:
        least = min(one.readings, key=one.readings.__getitem__)
        return (
            shown(one.group),
            str(one.devices),
            one.dialect,
            f"{one.every_s:.4g} s",
            percent(one.pace),
            percent(one.values),
            f"{percent(one.readings[least])} {shown(least)}",
        )

    columns = "group", "devices", "dialect", "every", "pace", "values", "least alike"
    view = View(lambda _: [], (), lambda _: (), columns, cells)
    sys.stderr.writelines(plain_table(view, [tried]))
    devices = counted(sum(one.devices for one in tried), "device")
    sys.stderr.write(f"{devices}, {percent(of_all(tried))} alike in pace and values\n")


def percent(share: float) -> str:
    return f"{100 * share:.0f} %"
