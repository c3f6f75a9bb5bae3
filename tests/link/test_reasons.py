"""Reasons: every code that MQTT 5 has makes a sentence of its own."""

from __future__ import annotations

import errno
import os
import socket
import ssl

import pytest
from mqtt5 import ConnAckReasonCode, DisconnectReasonCode, SubAckReasonCode

from gateway.link import reasons
from gateway.link.address import parse_address

ADDRESS = parse_address("mqtt://me:secret@host")


def codes_of(kind: type[ConnAckReasonCode | DisconnectReasonCode | SubAckReasonCode]) -> list[int]:
    return [int(getattr(kind, name)) for name in vars(kind) if name.isupper()]


def test_every_failure_has_its_own_words() -> None:
    """Codes 0 to 4 are no failures: granted, or an end in good order."""
    sentences = [reasons.connect_refused(ADDRESS, code) for code in codes_of(ConnAckReasonCode) if code]
    sentences += [reasons.filter_refused("a/#", code) for code in codes_of(SubAckReasonCode) if code > 4]
    sentences += [reasons.disconnected(ADDRESS, "amber", code) for code in codes_of(DisconnectReasonCode) if code != 4]
    assert len(sentences) > 50
    assert [sentence for sentence in sentences if "look it up" in sentence] == []
    assert [sentence for sentence in sentences if "secret" in sentence] == []


@pytest.mark.parametrize("code", [77, 255])
def test_an_unknown_code_says_where_to_look_it_up(code: int) -> None:
    assert f"reason code {code}: look it up in MQTT 5.0" in reasons.connect_refused(ADDRESS, code)


@pytest.mark.parametrize(
    ("error", "remedy"),
    [
        (socket.gaierror(socket.EAI_NONAME, "Name or service not known"), "the host name is unknown"),
        (ConnectionRefusedError(errno.ECONNREFUSED, "Connection refused"), "nothing listens there: start the broker"),
        (ConnectionResetError(errno.ECONNRESET, "Connection reset"), "if that port speaks TLS, write mqtts://"),
        (
            OSError(errno.ENETUNREACH, os.strerror(errno.ENETUNREACH)),
            "unreachable: check the broker's address",
        ),
        (OSError("Multiple exceptions: [Errno 111] a, [Errno 111] b"), "Errno 111] b: check the broker's address"),
        (PermissionError(errno.EACCES, "Permission denied", "key.pem"), "key.pem cannot be read (Permission denied)"),
        (ssl.SSLCertVerificationError("somehow bad"), "its certificate was not accepted"),
        (ssl.SSLError(1, "[SSL] something new"), "check ca_file, cert_file and key_file"),
    ],
)
def test_a_socket_error_says_what_to_check(error: OSError, remedy: str) -> None:
    sentence = reasons.unreachable(ADDRESS, error)
    assert sentence.startswith("mqtt://host:1883 cannot be reached: ")
    assert remedy in sentence
