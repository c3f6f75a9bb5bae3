"""The maps of Amber's own JSON in CBOR (RFC 8949), which costs a radio or a meter fewer bytes."""

from __future__ import annotations

from devices.dialects.json import Json


class Cbor(Json):
    """To the same topics, with the content type `application/cbor` (RFC 8949, section 9.5)."""

    _content_type = "application/cbor"

    def _encoded(self, payload: object) -> bytes:
        import cbor2

        return cbor2.dumps(payload)
