"""One MQTT 5 connection of one device, through aiomqtt. Only here is that library imported, and its errors translated.

Each connection is a new client. One that is entered again would send by itself what the last connection left
unacknowledged, and the outbox does that already.
"""

from __future__ import annotations

import asyncio
import logging
import re
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import NoReturn

import aiomqtt
import msgspec
from aiomqtt.types import PahoSocket
from paho.mqtt.client import Client
from paho.mqtt.enums import MQTTErrorCode
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.reasoncodes import ReasonCode

from devices.address import Address
from devices.errors import ConnectionLost
from devices.outgoing import Publication

KEEPALIVE_S = 20
"""After one and a half times this, the broker publishes the will of a device that is silently gone."""

WINDOW = 10
"""Messages of one device on their way at a time; brokers allow at least that (HiveMQ 10, Mosquitto 20)."""

Answer = asyncio.Future[str | None]
"""What becomes of one message: None, it is acknowledged (at QoS 0: written); a text, why it is refused."""

_SILENT = logging.getLogger("devices.mqtt")
_SILENT.disabled = True  # a thousand clients tell of every reconnect; the counts say it in one line


class Door(msgspec.Struct, frozen=True):
    """Where devices enter: the broker's address, and how many of them may be on the threshold at a time."""

    address: Address
    threshold: asyncio.Semaphore
    tls: ssl.SSLContext | None = None


@asynccontextmanager
async def connect(door: Door, client_id: str, will: Publication | None) -> AsyncIterator[Connection]:
    """A connection, for the time of the block. If it ends earlier, the block is interrupted by ConnectionLost."""
    connection = Connection(door, client_id, will)
    try:
        async with door.threshold:
            await connection.open()
        async with asyncio.TaskGroup() as group:
            watch = group.create_task(connection.watch(), name=f"{client_id}: watch")
            yield connection
            watch.cancel()
        await connection.close()
    except aiomqtt.MqttError as error:
        raise ConnectionLost(_reason(error)) from error
    except ExceptionGroup as ended:
        lost, others = ended.split(aiomqtt.MqttError)
        if others or not lost:
            raise
        raise ConnectionLost(_reason(lost.exceptions[0])) from ended
    finally:
        connection.abandon()


class Connection(aiomqtt.Client):
    """aiomqtt's client, with `send` in the place of `publish`: it also hears that a message is refused."""

    def __init__(self, door: Door, client_id: str, will: Publication | None) -> None:
        super().__init__(
            door.address.host,
            door.address.port,
            username=door.address.user,
            password=door.address.password,
            identifier=client_id,
            protocol=aiomqtt.ProtocolVersion.V5,
            will=None if will is None else aiomqtt.Will(will.topic, will.payload, qos=1, retain=will.retain),
            keepalive=KEEPALIVE_S,
            tls_context=door.tls,
            logger=_SILENT,
        )
        self._answers: dict[int, Answer] = {}
        # aiomqtt's own publish drops the reason code, and paho that of PUBREC: what an ACL refuses would count as
        # acknowledged.
        self._client.on_publish = self._on_answer
        self._client._handle_pubrec = self._on_pubrec  # type: ignore[method-assign]  # noqa: SLF001

    async def open(self) -> None:
        await self.__aenter__()

    def send(self, publication: Publication, *, qos: int) -> Answer:
        """Hand over a message; what it returns is done when the broker has answered."""
        sent = self._client.publish(publication.topic, publication.payload, qos, publication.retain)
        if sent.rc != MQTTErrorCode.MQTT_ERR_SUCCESS:
            raise aiomqtt.MqttCodeError(sent.rc, "cannot publish")
        answer: Answer = asyncio.get_running_loop().create_future()
        self._answers[sent.mid] = answer
        return answer

    def _on_answer(
        self, _client: object, _userdata: object, mid: int, reason_code: ReasonCode, _properties: object
    ) -> None:
        answer = self._answers.pop(mid, None)
        if answer is not None and not answer.done():
            answer.set_result(str(reason_code) if reason_code.is_failure else None)

    def _on_pubrec(self) -> MQTTErrorCode:
        mid, reason = _read_pubrec(self._client._in_packet["packet"])  # noqa: SLF001
        if reason.is_failure:
            self._on_answer(None, None, mid, reason, None)
        return Client._handle_pubrec(self._client)  # noqa: SLF001  # which goes on as if it were accepted

    def _on_socket_register_write(self, client: Client, userdata: object, sock: PahoSocket) -> None:
        if self._connected.done():
            # aiomqtt has the loop do it soon: by then the socket may be closed, and its number another connection's.
            self._loop.add_writer(sock.fileno(), self._client.loop_write)
        else:  # still in the thread that connects
            super()._on_socket_register_write(client, userdata, sock)

    async def watch(self) -> NoReturn:
        """Read until the connection ends, which raises MqttError."""
        async for _ in self.messages:
            pass  # devices subscribe to nothing
        raise aiomqtt.MqttError("the connection has ended")

    async def close(self) -> None:
        """Say goodbye to the broker, which then publishes no will."""
        if self._misc_task is not None:
            # paho's keep-alive check, when it is due, closes a socket whose DISCONNECT is not yet written
            self._misc_task.cancel()
        await self.__aexit__(None, None, None)

    def abandon(self) -> None:
        """Let go of whatever is left of the connection; does nothing after a close."""
        # aiomqtt leaves the socket open when CONNACK did not come in time: the broker, once awake again, would take
        # each of them for the device, and end the connection before.
        self._client.on_disconnect = None  # aiomqtt's would stumble over a connect that was cancelled
        self._client.disconnect()
        for end in (self._connected, self._disconnected):
            if end.done() and not end.cancelled():
                end.exception()  # has been seen: asyncio need not complain


def _read_pubrec(packet: bytearray) -> tuple[int, ReasonCode]:
    """Packet id and reason, which is left out when it is success (MQTT 5.0, section 3.5.2)."""
    code = packet[2] if len(packet) > 2 else 0
    return int.from_bytes(packet[:2]), ReasonCode(PacketTypes.PUBREC, identifier=code)


def _reason(error: Exception) -> str:
    """In words, without "[Errno 111]" or "[code:135]"."""
    words = re.sub(r"^\[[^]]*\] ", "", str(error.__cause__ or error))
    return "the connection was lost" if words == "Unspecified error" else words  # so paho calls it
