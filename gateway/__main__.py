"""The `amber` command: joins the doors of the rooms, and turns what goes wrong into one line and an exit status."""

from __future__ import annotations

import sys
from collections.abc import Sequence

import typer
from typer.exceptions import Abort, TyperException

import devices.cli
import devices.load_cli
import gateway.cli
import gateway.consume_cli
import gateway.consumers_cli
import gateway.demo_cli
import gateway.formats_cli
import gateway.import_cli
import gateway.learn_cli
import gateway.proving.torture_cli
import gateway.proving.verify_cli
import gateway.prune_cli
import gateway.replay_cli
import gateway.reprocess_cli
import storage.backup_cli
import storage.chart_cli
import storage.cli
import storage.export_cli
import storage.gaps_cli
import storage.latest_cli
from devices.errors import DeviceError
from gateway import streams
from gateway.commands import Overview
from gateway.link.errors import LinkError
from gateway.streams import OutputFailed
from gateway.usage import in_words
from storage.errors import AmberError

KNOWN = AmberError, DeviceError, LinkError
"""What a person can do something about; anything else is a fault of ours, and its traceback is wanted."""

app = typer.Typer(
    name="amber",
    cls=Overview,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="An MQTT gateway that keeps every message before it acknowledges it, and plays history back.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)
for door in (
    gateway.demo_cli,
    gateway.cli,
    devices.cli,
    devices.load_cli,
    storage.cli,
    storage.latest_cli,
    storage.chart_cli,
    storage.gaps_cli,
    gateway.replay_cli,
    gateway.consume_cli,
    gateway.consumers_cli,
    storage.export_cli,
    gateway.import_cli,
    storage.backup_cli,
    gateway.prune_cli,
    gateway.formats_cli,
    gateway.reprocess_cli,
    gateway.learn_cli,
    gateway.proving.torture_cli,
    gateway.proving.verify_cli,
):
    door.register(app)


def main() -> None:
    """Run `amber` with the arguments of the process."""
    streams.take_over()
    sys.exit(run(sys.argv[1:]))


def run(arguments: Sequence[str]) -> int:
    """The exit status: 2 after wrong usage, 1 after a failure, each with one line on standard error."""
    try:
        status = app(list(arguments), prog_name="amber", standalone_mode=False) or 0
        sys.stdout.flush()
    except OutputFailed as error:
        streams.silence()
        return _tell(str(error), error.exit_status)
    except TyperException as error:
        if hasattr(error, "possibilities"):  # Typer's guesses at an unknown option: for --bogus it names --qos
            error.possibilities = None
        return _tell(in_words(error), error.exit_code)
    except KNOWN as error:
        return _tell(str(error), getattr(error, "exit_status", 1))
    except ExceptionGroup as group:
        known, other = group.split(KNOWN)
        if other or not known:
            raise
        return _tell("; ".join(dict.fromkeys(map(str, _leaves(known)))), 1)
    except BrokenPipeError:  # whoever read us has seen enough
        streams.silence()
        return 0
    except (Abort, KeyboardInterrupt):
        streams.silence()
        return 130
    else:
        return status


def _tell(text: str, status: int) -> int:
    print(f"amber: {' '.join(text.split())}", file=sys.stderr)
    return status


def _leaves(group: ExceptionGroup[Exception]) -> list[Exception]:
    return [
        leaf
        for error in group.exceptions
        for leaf in (_leaves(error) if isinstance(error, ExceptionGroup) else [error])
    ]


if __name__ == "__main__":
    main()
