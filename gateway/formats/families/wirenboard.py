"""Wiren Board."""

from __future__ import annotations

from gateway.formats.format import Format

FORMATS: tuple[Format, ...] = ()
