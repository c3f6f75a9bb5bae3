"""The formats room: turns a message into events, or says why not; it knows nothing of transport or SQL."""

from gateway.formats.format import Format, Lesson, Reader, Unreadable
from gateway.formats.options import Options
from gateway.formats.registry import IGNORED, Formats, Trial
from gateway.formats.rules import Rule, rule

__all__ = ["IGNORED", "Format", "Formats", "Lesson", "Options", "Reader", "Rule", "Trial", "Unreadable", "rule"]
