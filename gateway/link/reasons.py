"""Why a broker refused or closed something: MQTT 5 reason codes and socket errors, as sentences that say what to do."""

from __future__ import annotations

import socket
import ssl

from gateway.link.address import Address

_WHY = {  # MQTT 5.0, sections 2.4, 3.2.2.2, 3.9.3 and 3.14.2.1
    128: "without saying why: look at the broker's log",
    129: "because it could not read what we sent: look at the broker's log, and report this",
    130: "because it saw a protocol error: look at the broker's log, and report this",
    131: "for a reason of its own: look at the broker's log",
    132: "because it does not speak MQTT 5: use a broker that does, as Mosquitto 1.6 or later",
    133: "because it does not accept the client id: choose another client_id",
    134: "because of a bad user name or password: check username and password",
    135: "as not authorized: check username and password, and what the broker's ACL allows this user",
    136: "because its server is unavailable: look at the broker's log",
    137: "because it is busy: wait, or give the broker more room",
    138: "because this client is banned: ask who runs the broker",
    139: "because it is shutting down: start it again if that was not intended",
    140: "because it wants another way of authentication than user name and password",
    141: "because it had heard nothing from us for too long: look at the network and this machine's load",
    142: "because another client connected with the same client id",
    143: "because it does not accept the topic filter: write another one",
    144: "because it does not accept a topic name: look at the broker's log",
    145: "because a packet id is in use: look at the broker's log, and report this",
    147: "because we had more on the way than it allows: look at the broker's log, and report this",
    148: "because of a topic alias: look at the broker's log, and report this",
    149: "because a packet is too large for it: raise its limit (max_packet_size in mosquitto.conf)",
    150: "because messages come too fast for it: raise its rate limit",
    151: "because a quota is exceeded: raise the broker's quota",
    152: "because an administrator asked it to: ask who runs the broker",
    153: "because a payload is not of the announced format: look at the broker's log",
    154: "because it keeps no retained messages",
    155: "because it does not support the QoS: subscribe at a lower one, as in FILTER:1",
    156: "because another server should be used for now: change the broker's address",
    157: "because it has moved for good: change the broker's address",
    158: "because it has no shared subscriptions: write the filter without $share/GROUP/",
    159: "because connections come too fast: wait, or raise its connection rate",
    160: "because it allows no longer connections: raise its limit",
    161: "because it has no subscription identifiers",
    162: "because it has no wildcards: name each topic",
}


def connect_refused(address: Address, code: int, said: str | None = None, server: str | None = None) -> str:
    """CONNACK with a reason code of failure."""
    return f"{address} refused the connection {_why(code)}{_heard(said, server)}"


def filter_refused(pattern: str, code: int, said: str | None = None) -> str:
    """SUBACK with a reason code of failure for one filter."""
    why = "as not authorized: allow it in the broker's ACL" if code == 135 else _why(code)
    return f"the broker refused the subscription to {pattern!r} {why}{_heard(said)}"


def filter_lowered(pattern: str, asked: int, granted: int) -> str:
    """SUBACK with less than was asked for."""
    return f"the broker delivers {pattern!r} at QoS {granted} at most, though QoS {asked} was asked for"


def disconnected(
    address: Address, client_id: str, code: int, said: str | None = None, server: str | None = None
) -> str:
    """DISCONNECT sent by the broker."""
    if code == 142:
        return f"{address} closed the connection {_WHY[142]}, {client_id!r}: {_one_of_two()}"
    why = "in good order: start it again if that was not intended" if code == 0 else _why(code)
    return f"{address} closed the connection {why}{_heard(said, server)}"


def closed(address: Address, error: OSError | None = None) -> str:
    """The connection ended without a word, or with a socket error."""
    how = f"broke the connection off ({error.strerror or error})" if error else "closed the connection without a word"
    return f"{address} {how}: it stopped, or another client took the client id; its log knows"


def closed_again_and_again(address: Address, client_id: str) -> str:
    """Several connections in a row ended without a word, each soon after CONNACK."""
    return (
        f"{address} closes one connection after another without a word, as if another client used the client id "
        f"{client_id!r}: {_one_of_two()}"
    )


def not_answered(address: Address, within_s: float) -> str:
    """Neither connection nor CONNACK in time."""
    return f"{address} did not answer within {within_s:g} s: check the broker's address, the network and any firewall"


def not_mqtt(address: Address) -> str:
    """The connection closed, or something else came, before a CONNACK."""
    return (
        f"{address} did not answer CONNECT as an MQTT 5 broker does: check that its address names an MQTT port "
        "(mqtts:// if it speaks TLS) and that the broker speaks MQTT 5"
    )


def silent(address: Address, for_s: float) -> str:
    """No answer to PINGREQ."""
    return f"{address} has been silent for {for_s:g} s though asked: look at the network and the broker's machine"


def malformed(address: Address, problem: str) -> str:
    """The broker sent what MQTT 5 does not allow."""
    return f"{address} sent what MQTT 5 does not allow ({problem}): look at the broker's version and its log"


def salvaged(address: Address, topic: str) -> str:
    """A PUBLISH that the codec refused."""
    return (
        f"{address} delivered a message that is not valid MQTT 5, on the topic {topic[:100]!r}: it is kept without its "
        "properties, as others like it will be; look at what publishes there"
    )


def session_shortened(address: Address, asked_s: int, granted_s: int) -> str:
    """CONNACK with a shorter session expiry than asked for."""
    return (
        f"{address} keeps what it has not delivered for {granted_s} s only, not for {asked_s} s: raise its limit, "
        "or messages are lost when the gateway is away for longer"
    )


def unreachable(address: Address, error: OSError) -> str:
    """A socket, TLS or file error before or during a connection."""
    match error:
        case ssl.SSLCertVerificationError():
            detail = _detail(error, "verify_message")
            why = f"its certificate was not accepted ({detail}): check ca_file and the host in the broker's address"
        case ssl.SSLError(reason="WRONG_VERSION_NUMBER" | "RECORD_LAYER_FAILURE"):
            why = "it does not speak TLS there: write mqtt://, or the port of its TLS listener"
        case ssl.SSLError(reason=str(reason)) if "ALERT" in reason:
            why = f"it broke TLS off ({reason}): check cert_file and key_file, and which ones the broker accepts"
        case ssl.SSLError():
            why = f"TLS failed ({_detail(error, 'reason')}): check ca_file, cert_file and key_file"
        case socket.gaierror():
            why = f"the host name is unknown ({error.strerror}): check the broker's address"
        case OSError(filename=str(name)):
            why = f"{name} cannot be read ({error.strerror}): check ca_file, cert_file and key_file"
        case ConnectionRefusedError():
            why = "nothing listens there: start the broker, or check the broker's address"
        case ConnectionResetError() | BrokenPipeError():
            other = "speaks no TLS, write mqtt://" if address.tls else "speaks TLS, write mqtts://"
            why = f"the connection was reset; if that port {other}, else look at the broker's log and the network"
        case _:
            why = f"{error.strerror or error}: check the broker's address, the broker and the network"
    return f"{address} cannot be reached: {why}"


def _detail(error: ssl.SSLError, name: str) -> str:
    """What OpenSSL said, if it was OpenSSL: an error raised by Python's own hand has no such attributes."""
    return str(getattr(error, name, None) or error)


def _why(code: int) -> str:
    return _WHY.get(code, f"with reason code {code}: look it up in MQTT 5.0, section 2.4")


def _heard(said: str | None, server: str | None = None) -> str:
    """What the broker itself added."""
    heard = ([f"it said {said!r}"] if said else []) + ([f"it named the server {server!r}"] if server else [])
    return f" ({', '.join(heard)})" if heard else ""


def _one_of_two() -> str:
    return "stop one of them, or give each a client_id of its own"
