"""What `amber --help` says: the commands by what they are for, each in a line. Never knows what they do."""

from __future__ import annotations

from typing import TYPE_CHECKING

from typer.core import TyperGroup

if TYPE_CHECKING:
    from typer._click import Context, HelpFormatter

COMMANDS = {
    "Begin": {
        "run": "Run the gateway",
        "demo": "See all of it at once: devices, a broker, a gateway, a replay",
        "simulate": "Simulate devices that publish to a broker",
    },
    "Look": {
        "events": "Show events, and those that come",
        "latest": "Show the newest value of every reading",
        "chart": "Draw readings over time",
        "devices": "Show every device, and whether it is online",
        "series": "Show every reading of every device, and its unit",
        "status": "Show how much the store holds, from when to when",
        "rejections": "Show the messages that no format could read, and why",
    },
    "Play back, and hand on": {
        "replay": "Play a stretch of the log again, at any pace",
        "consume": "Hand on every event: to a command, a server, a broker",
        "consumers": "Show who reads the log, and how far they are",
        "export": "Write events to JSON lines, CSV or Parquet",
        "import": "Bring recordings into the store",
    },
    "Keep": {
        "backup": "Copy the store while it is written",
        "check": "See whether the store is sound",
        "prune": "Drop old history",
    },
    "Read messages": {
        "explain": "Tell how a message is read, and why",
        "normalize": "Read messages into events without broker or store",
        "reprocess": "Read stored messages again, with today's rules",
    },
    "Prove": {
        "verify": "See whether everything that was promised is stored, once",
        "gaps": "Show what each device's numbers say is missing",
        "torture": "Kill everything at random, and see that nothing is lost",
        "learn": "Make a fleet of recorded history",
        "load": "Publish at a rate, and tell how long each message took",
    },
}


class Overview(TyperGroup):
    """The commands under their headings."""

    def format_commands(self, ctx: Context, formatter: HelpFormatter) -> None:  # noqa: ARG002
        for heading, commands in COMMANDS.items():
            with formatter.section(heading):
                formatter.write_dl([(f"{name:<10}", text) for name, text in commands.items()])
        formatter.write_paragraph()
        formatter.write_text("`amber COMMAND --help` tells all about one of them.")
