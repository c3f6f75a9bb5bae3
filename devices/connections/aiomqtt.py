"""The client through aiomqtt. Only here is that library imported, and its errors translated."""

from __future__ import annotations

import asyncio
import logging
import re
from functools import partial

import aiomqtt
from aiomqtt.types import PahoSocket
from paho.mqtt import MQTTException
from paho.mqtt.client import Client, MQTTMessage
from paho.mqtt.enums import MQTTErrorCode
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode

from devices.connection import KEEPALIVE_S, LOST, Answered, Connection, Door, Receipted
from devices.errors import ConnectionLost
from devices.outgoing import Publication

_SILENT = logging.getLogger("devices.mqtt")
_SILENT.disabled = True  # a thousand clients tell of every reconnect; the counts say it in one line


class AiomqttConnection(Connection):
    """For comparison: the client that others use. It has clean sessions only."""

    def __init__(self, door: Door, client_id: str, will: Publication | None) -> None:
        super().__init__()
        self._aiomqtt = _Aiomqtt(door, client_id, will)
        self._receipted: Receipted | None = None
        self._receipts_topic: str | None = None
        self._aiomqtt.client.on_message = self._on_message

    async def open(self) -> None:
        try:
            await self._aiomqtt.__aenter__()
        except aiomqtt.MqttError as error:
            raise ConnectionLost(_reason(error)) from error
        self._aiomqtt.ended.add_done_callback(self._on_ended)

    async def listen(self, topic: str, receipted: Receipted) -> None:
        self._receipted, self._receipts_topic = receipted, topic
        try:
            (granted,) = await self._aiomqtt.subscribe(topic, qos=1)
        except aiomqtt.MqttError as error:
            raise ConnectionLost(_reason(error)) from error
        if isinstance(granted, ReasonCode) and granted.is_failure:
            raise ConnectionLost(f"no subscription to {topic}: {granted}")

    def publish(self, publication: Publication, qos: int, answered: Answered, correlation: bytes | None = None) -> None:
        if self.ended is not None:
            return
        client = self._aiomqtt.client
        try:
            properties = self._properties(publication, correlation)
            sent = client.publish(publication.topic, publication.payload, qos, publication.retain, properties)
        except (ValueError, MQTTException) as error:  # a topic of 70 000 bytes, say
            asyncio.get_running_loop().call_soon(answered, f"no MQTT 5 packet can say that: {error}")
            return
        if sent.rc == MQTTErrorCode.MQTT_ERR_SUCCESS:
            self._aiomqtt.answers[sent.mid] = answered
        else:
            self.end(LOST)

    def _properties(self, publication: Publication, correlation: bytes | None) -> Properties | None:
        properties = _properties(PacketTypes.PUBLISH, publication)
        if correlation is not None:
            properties = properties or Properties(PacketTypes.PUBLISH)  # type: ignore[no-untyped-call]
            properties.ResponseTopic = self._receipts_topic
            properties.CorrelationData = correlation
        return properties

    def flush(self) -> None:
        """Nothing waits here: paho has written it, or will."""

    async def close(self) -> None:
        try:
            await self._aiomqtt.close()
        except aiomqtt.MqttError as error:
            raise ConnectionLost(_reason(error)) from error

    def abandon(self) -> None:
        self._aiomqtt.abandon()

    def cut(self) -> None:
        self._aiomqtt.cut()

    def _on_ended(self, ended: asyncio.Future[None]) -> None:
        error = None if ended.cancelled() else ended.exception()
        self.end(_reason(error) if isinstance(error, Exception) else LOST)

    def _on_message(self, _client: Client, _userdata: object, message: MQTTMessage) -> None:
        if self._receipted is not None and message.topic == self._receipts_topic:
            correlation = getattr(message.properties, "CorrelationData", b"")
            self._receipted(correlation, bytes(message.payload))


class _Aiomqtt(aiomqtt.Client):
    """aiomqtt's client, which also hears that a message is refused, and leaves nothing behind."""

    def __init__(self, door: Door, client_id: str, will: Publication | None) -> None:
        super().__init__(
            door.address.host,
            door.address.port,
            username=door.address.user,
            password=door.address.password,
            identifier=client_id,
            protocol=aiomqtt.ProtocolVersion.V5,
            will=None
            if will is None
            else aiomqtt.Will(
                will.topic,
                will.payload,
                qos=1,
                retain=will.retain,
                properties=_properties(PacketTypes.WILLMESSAGE, will),
            ),
            keepalive=KEEPALIVE_S,
            tls_context=door.tls,
            logger=_SILENT,
        )
        self.answers: dict[int, Answered] = {}
        # aiomqtt's own publish drops the reason code, and paho that of PUBREC: what an ACL refuses would count as
        # acknowledged.
        self._client.on_publish = self._on_answer
        self._client._handle_pubrec = self._on_pubrec  # type: ignore[method-assign]  # noqa: SLF001

    @property
    def client(self) -> Client:
        return self._client

    @property
    def ended(self) -> asyncio.Future[None]:
        return self._disconnected

    def _on_answer(
        self, _client: object, _userdata: object, mid: int, reason_code: ReasonCode, _properties: object
    ) -> None:
        answered = self.answers.pop(mid, None)
        if answered is not None:
            # paho holds a lock meanwhile, and whoever hears of it may publish
            self._loop.call_soon(partial(answered, str(reason_code) if reason_code.is_failure else None))

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

    async def close(self) -> None:
        if self._misc_task is not None:
            # paho's keep-alive check, when it is due, closes a socket whose DISCONNECT is not yet written
            self._misc_task.cancel()
        await self.__aexit__(None, None, None)

    def cut(self) -> None:
        """Reset the connection: the broker then hears no DISCONNECT, and publishes the will."""
        if self._misc_task is not None:
            self._misc_task.cancel()
        self._client._sock_close()  # noqa: SLF001

    def abandon(self) -> None:
        # aiomqtt leaves the socket open when CONNACK did not come in time: the broker, once awake again, would take
        # each of them for the device, and end the connection before.
        self._client.on_disconnect = None  # aiomqtt's would stumble over a connect that was cancelled
        self._client.disconnect()
        for end in (self._connected, self._disconnected):
            if end.done() and not end.cancelled():
                end.exception()  # has been seen: asyncio need not complain


def _properties(kind: int, publication: Publication) -> Properties | None:
    if publication.content_type is None and not publication.user:
        return None
    properties = Properties(kind)  # type: ignore[no-untyped-call]
    if publication.content_type is not None:
        properties.ContentType = publication.content_type
    if publication.user:
        properties.UserProperty = list(publication.user)
    return properties


def _read_pubrec(packet: bytearray) -> tuple[int, ReasonCode]:
    """Packet id and reason, which is left out when it is success (MQTT 5.0, section 3.5.2)."""
    code = packet[2] if len(packet) > 2 else 0
    return int.from_bytes(packet[:2]), ReasonCode(PacketTypes.PUBREC, identifier=code)


def _reason(error: Exception) -> str:
    """In words, without "[Errno 111]" or "[code:135]"."""
    words = re.sub(r"^\[[^]]*\] ", "", str(error.__cause__ or error))
    return LOST if words == "Unspecified error" else words  # so paho calls it
