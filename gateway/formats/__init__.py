"""The formats room: turns a message into events, or says why not; it knows nothing of transport or SQL."""

from gateway.formats.format import Format, Reader, Unreadable
from gateway.formats.options import Options
from gateway.formats.registry import Formats

__all__ = ["Format", "Formats", "Options", "Reader", "Unreadable"]
