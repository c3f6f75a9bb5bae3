"""The gateway's configuration: options over environment over `amber.toml` over defaults. Refuses what cannot work."""

from __future__ import annotations

import itertools
import socket
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, Self
from zoneinfo import ZoneInfo

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, field_validator, model_validator
from pydantic_settings import (
    BaseSettings,
    NoDecode,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    TomlConfigSettingsSource,
)

from gateway import plugins
from gateway.formats import Formats, Options, Rule, rule
from gateway.link.errors import LinkError
from gateway.link.options import LinkOptions
from gateway.link.subscriptions import parse_subscription
from gateway.receipts import PREFIX, Receipts, checked_prefix
from storage.engine import store_path
from storage.errors import AmberError
from storage.event import Fact, Kind
from storage.filters import check_topic_filter
from storage.retention.ages import RetentionOptions, RetentionRule, age_us, parse_size
from storage.store import StoreOptions
from storage.times import micros, parse_duration

DEFAULT_FILE = Path("amber.toml")


class ConfigError(AmberError):
    """A setting that cannot work; the text names it and what to write instead."""

    exit_status = 2


class Section(BaseModel):
    """A table of the file; a key that is not known is refused."""

    model_config = ConfigDict(extra="forbid", frozen=True)


def known_zone(name: str | None) -> str | None:
    """Raises ValueError."""
    if name is not None:
        try:
            ZoneInfo(name)
        except (KeyError, ValueError, OSError):
            raise ValueError("write a zone as in Europe/Berlin or UTC") from None
    return name


class LinkSection(Section):
    """How the gateway connects to the broker."""

    client_id: str = Field(
        "",
        description="Name of our session at the broker: the same at every start, and no other client's. "
        "Empty: `amber-` and the machine's host name.",
    )
    username: str | None = Field(None, description="User name, if it is not in the broker's address.")
    password: str | None = Field(
        None, description="Password, if it is not in the broker's address; best set in the environment."
    )
    ca_file: str | None = Field(None, description="Certificates to trust for `mqtts://`; else the system's.")
    cert_file: str | None = Field(None, description="Our own certificate, where the broker asks for one.")
    key_file: str | None = Field(None, description="Its key, if that is not in the same file.")
    window_messages: int = Field(
        20_000,
        ge=1,
        le=65_535,
        description="Unacknowledged messages that the broker may have on the way (MQTT 5 Receive Maximum).",
    )
    session_expiry_s: int = Field(
        30 * 86_400,
        ge=60,
        le=0xFFFFFFFF,
        description="Seconds for which the broker keeps messages for a gateway that is away.",
    )
    keep_alive_s: int = Field(30, ge=1, le=65_535, description="Seconds after which a silent connection is probed.")


class ReceiptsSection(Section):
    """The gateway's word, after the commit, to devices that ask for it."""

    enabled: bool = Field(default=True, description="Whether messages that name a Response Topic get a receipt there.")
    prefix: str = Field(
        PREFIX, description="Receipts go to topics that begin so, and nowhere else; what comes there is not stored."
    )

    @field_validator("prefix")
    @classmethod
    def _works(cls, value: str) -> str:
        return checked_prefix(value)


class SegmentsSection(Section):
    """How the store is written."""

    events: int = Field(
        1_000_000, ge=1_000, description="Events after which a segment is sealed and the next one begun."
    )
    free_floor_mb: int = Field(
        64,
        ge=0,
        description="Room in MB that must stay free on the store's disk; with less, nothing is stored or acknowledged.",
    )


class FormatsSection(Section):
    """What the formats may believe, and spend on one message; what is over a bound is rejected and kept."""

    time_zone: str | None = Field(
        None, description="The zone of device times that name none, as in `Europe/Berlin`; else they are not believed."
    )
    payload_bytes: int = Field(1_048_576, ge=2, description="The longest payload that is read.")
    depth: int = Field(32, ge=2, le=300, description="How deep objects and arrays may be nested.")
    entries: int = Field(10_000, ge=2, description="How many keys and array elements one message may hold.")
    array_items: int = Field(
        64, ge=2, description="Arrays of plain values up to this length become a reading per element."
    )
    text_chars: int = Field(65_536, ge=2, description="The longest text of one reading.")
    name_chars: int = Field(512, ge=8, le=4_096, description="The longest name of a device or a reading.")
    readings: int = Field(10_000, ge=2, description="How many readings the events of one message may have.")
    unpacked_bytes: int = Field(4_194_304, ge=2, description="How many bytes a compressed payload may unpack to.")
    message_ms: int = Field(
        1_000, ge=20, description="How long reading one message may take; common JSON is not timed."
    )
    facts: int = Field(
        100_000,
        ge=1_000,
        description="How many facts are remembered from births, descriptions and device lists; the oldest go first.",
    )
    fact_mb: int = Field(
        64, ge=1, description="How much they may hold in MB, as JSON; the memory for it is about ten times that."
    )
    earliest: datetime = Field(
        datetime(2000, 1, 1, tzinfo=UTC), description="The first time of a device that is believed."
    )
    ahead_s: int = Field(
        86_400,
        ge=0,
        description="How far ahead of its message's arrival a device's time is still believed, in seconds.",
    )
    plugins: bool = Field(
        default=True, description="Whether formats are loaded that other installed packages offer (entry points)."
    )

    @field_validator("time_zone")
    @classmethod
    def _known(cls, value: str | None) -> str | None:
        return known_zone(value)


class RuleSection(Section):
    """What you know of some topics and no message says; the first rule that takes a topic counts."""

    topic: str = Field(description="Topic filter; `{name}` names a level: `site/{site}/{device}/#`.")
    format: str | None = Field(
        None, description="The format that reads them; `raw`: keep and do not read; `ignore`: do not keep."
    )
    time_zone: str | None = Field(None, description="The zone of device times that name none, for these topics.")
    device: str | None = Field(
        None, description="The device: a name, in which `{name}` is that level. A level named `{device}` is enough."
    )
    kind: Kind | None = Field(None, description="The kind of the events, as `measurement` or `state`.")
    units: dict[str, str] = Field({}, description='Units by reading name: `{temp = "Cel"}`.')
    scale: dict[str, float] = Field({}, description="Factors by reading name: `{power = 0.1}`.")
    readings: dict[str, str] = Field(
        {}, description='JMESPath of each reading in the JSON: `{temp = "data.t"}`; nothing else is read then.'
    )
    device_path: str | None = Field(None, description="JMESPath of the device, beside `readings`.")
    time_path: str | None = Field(None, description="JMESPath of the device's time, beside `readings`.")

    @field_validator("time_zone")
    @classmethod
    def _known(cls, value: str | None) -> str | None:
        return known_zone(value)

    @model_validator(mode="after")
    def _works(self) -> Self:
        self.rule()
        return self

    def rule(self) -> Rule:
        """Raises ValueError."""
        return rule(
            self.topic,
            format=self.format,
            zone=ZoneInfo(self.time_zone) if self.time_zone else None,
            device=self.device,
            kind=self.kind,
            units_by_reading=self.units,
            scale=self.scale,
            readings=self.readings,
            device_path=self.device_path,
            time_path=self.time_path,
        )


class KeeperSection(Section):
    """The process beside the gateway that sums up the log and drops what retention says."""

    enabled: bool = Field(
        default=True,
        description="Whether it runs. Without it latest values and charts are reckoned from the events each time, and "
        "nothing is dropped.",
    )


class LogSection(Section):
    """What the gateway says on standard error."""

    level: str = Field("info", pattern="^(debug|info|warning|error)$", description="debug, info, warning or error.")
    status_interval_s: float = Field(10.0, gt=0, description="Seconds from one status line to the next.")


def known_age(value: object) -> object:
    """Raises ValueError for what is no age."""
    if not isinstance(value, str) or (value != "forever" and not parse_duration(value)):
        raise ValueError('write an age as in "90d" or "12h", or "forever"')
    return value


def known_size(value: object) -> object:
    """Raises ValueError for what is no size."""
    if not isinstance(value, str) or not parse_size(value):
        raise ValueError('write a size as in "10GB" or "500MB"')
    return value


Age = Annotated[str, BeforeValidator(known_age)]
Size = Annotated[str, BeforeValidator(known_size)]


class RetentionRuleSection(Section):
    """How long some events are kept; the first rule that takes an event counts."""

    topic: str | None = Field(None, description="Topic filter, as `debug/#`.")
    kind: Kind | None = Field(None, description="The kind of the events, as `state`.")
    max_age: Age = Field(description="How long they are kept, shorter or longer than the rest; `forever`.")

    @model_validator(mode="after")
    def _works(self) -> Self:
        if self.topic is None and self.kind is None:
            raise ValueError("give it a topic, a kind, or both: for all events there is retention.max_age")
        if self.topic is not None:
            check_topic_filter(self.topic)
        return self

    def rule(self) -> RetentionRule:
        return RetentionRule(self.topic, self.kind, age_us(self.max_age))


class RetentionSection(Section):
    """What is kept for how long."""

    max_age: Age = Field("forever", description="Age by which events go, as in `90d`; of their time of receipt.")
    max_size: Size | None = Field(
        None,
        description="What the store may take on its disk, as in `10GB`; the oldest segments go, whatever rules say.",
    )
    past_consumers: bool = Field(
        default=False, description="Whether events go that a consumer or a replay has yet to read; else it holds them."
    )
    rollup_minutes: Age = Field("400d", description="Age by which the sums of each minute go.")
    rollup_hours: Age = Field("forever", description="Age by which the sums of each hour go.")
    rules: tuple[RetentionRuleSection, ...] = Field(
        (), description="Other ages by topic and kind; the first rule that takes an event counts."
    )


class Config(BaseSettings):
    """All settings."""

    model_config = SettingsConfigDict(
        env_prefix="AMBER_",
        env_nested_delimiter="__",
        extra="forbid",
        frozen=True,
        nested_model_default_partial_update=True,
    )

    broker: str = Field("mqtt://127.0.0.1:1883", description="The broker: `mqtt[s]://[user:password@]host[:port]`.")
    store: str = Field("amber.db", description="The store: a file, or `sqlite:///FILE`.")
    subscribe: Annotated[tuple[str, ...], NoDecode] = Field(
        ("#",),
        description="Topic filters, each with a maximum QoS if wanted (`meters/+/state:1`); in the environment, "
        "separated by spaces.",
    )
    link: LinkSection = LinkSection()
    receipts: ReceiptsSection = ReceiptsSection()
    segments: SegmentsSection = SegmentsSection()
    formats: FormatsSection = FormatsSection()
    keeper: KeeperSection = KeeperSection()
    log: LogSection = LogSection()
    retention: RetentionSection = RetentionSection()
    rules: tuple[RuleSection, ...] = ()

    @field_validator("subscribe", mode="before")
    @classmethod
    def _split(cls, value: object) -> object:
        return tuple(value.split()) if isinstance(value, str) else value

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        return init_settings, env_settings, TomlConfigSettingsSource(settings_cls)

    @property
    def store_path(self) -> Path:
        return store_path(self.store)

    @property
    def store_options(self) -> StoreOptions:
        return StoreOptions(self.segments.events, self.segments.free_floor_mb << 20)

    @property
    def retention_options(self) -> RetentionOptions:
        kept = self.retention
        return RetentionOptions(
            max_age_us=age_us(kept.max_age),
            max_bytes=None if kept.max_size is None else parse_size(kept.max_size),
            rules=tuple(section.rule() for section in kept.rules),
            past_consumers=kept.past_consumers,
            minutes_age_us=age_us(kept.rollup_minutes),
            hours_age_us=age_us(kept.rollup_hours),
        )

    @property
    def format_options(self) -> Options:
        bounds = self.formats
        return Options(
            zone=ZoneInfo(bounds.time_zone) if bounds.time_zone else None,
            payload_bytes=bounds.payload_bytes,
            depth=bounds.depth,
            entries=bounds.entries,
            array_items=bounds.array_items,
            text_chars=bounds.text_chars,
            name_chars=bounds.name_chars,
            readings=bounds.readings,
            unpacked_bytes=bounds.unpacked_bytes,
            message_ms=bounds.message_ms,
            facts=bounds.facts,
            fact_bytes=bounds.fact_mb << 20,
            earliest=micros(bounds.earliest),
            ahead_us=bounds.ahead_s * 1_000_000,
        )

    def make_receipts(self) -> Receipts:
        """Who gets a receipt, with these settings."""
        return Receipts(self.receipts.prefix, enabled=self.receipts.enabled)

    def make_formats(self, facts: Iterable[Fact] = ()) -> Formats:
        """The formats with these settings, the user's rules, and what was learned before. Raises ConfigError."""
        try:
            return Formats(
                self.format_options,
                plugins.offered() if self.formats.plugins else (),
                rules=[section.rule() for section in self.rules],
                facts=facts,
            )
        except ValueError as error:
            raise ConfigError(str(error)) from error

    @property
    def link_options(self) -> LinkOptions:
        """Raises LinkError."""
        link = self.link
        return LinkOptions(
            broker_url=self.broker,
            client_id=link.client_id or f"amber-{socket.gethostname()}",
            subscriptions=tuple(parse_subscription(text) for text in self.subscribe),
            window_messages=link.window_messages,
            session_expiry_s=link.session_expiry_s,
            keep_alive_s=link.keep_alive_s,
            username=link.username,
            password=link.password,
            ca_file=link.ca_file,
            cert_file=link.cert_file,
            key_file=link.key_file,
        )


def load(file: Path | None, options: Mapping[str, Any]) -> Config:
    """Read `file` (else `amber.toml`, if there is one), the environment and the options. Raises ConfigError."""
    if file is not None and not file.exists():
        raise ConfigError(f"there is no configuration at {file}: name a file that exists, or leave --config out")
    source = file or DEFAULT_FILE

    class ConfigFromFile(Config):
        model_config = SettingsConfigDict(toml_file=source)

    try:
        config = ConfigFromFile(**options)
        check_overlap([subscription.filter for subscription in config.link_options.subscriptions])
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{source}: {error}") from error
    except ValidationError as error:
        raise ConfigError(_sentence(error)) from error
    except LinkError as error:
        raise ConfigError(str(error)) from error
    return config


def check_overlap(filters: Sequence[str]) -> None:
    """Refuse filters that one topic could match twice: brokers may send it twice, and it would be stored twice."""
    for one, other in itertools.combinations(filters, 2):
        if overlap(_levels(one), _levels(other)):
            raise ConfigError(
                f"subscribe: {one} and {other} can match the same topic, which would be stored twice: "
                "leave out the narrower one"
            )


def overlap(one: Sequence[str], other: Sequence[str]) -> bool:
    """Whether a topic exists that both filters, given as levels, match."""
    if _reserved(one) != _reserved(other) and {*one[:1], *other[:1]} & {"#", "+"}:
        return False  # a wildcard that stands first does not match $SYS (MQTT 5.0, section 4.7.2)
    return _overlap(one, other)


def _reserved(levels: Sequence[str]) -> bool:
    return levels[0].startswith("$")


def _overlap(one: Sequence[str], other: Sequence[str]) -> bool:
    if one[:1] == ["#"] or other[:1] == ["#"]:
        return True
    if not one or not other:
        return (not one and not other) or (one or other)[0] == "#"
    alike = one[0] == other[0] or "+" in (one[0], other[0])
    return alike and _overlap(one[1:], other[1:])


def _levels(pattern: str) -> list[str]:
    return (pattern.split("/", 2)[2] if pattern.startswith("$share/") else pattern).split("/")


def _sentence(error: ValidationError) -> str:
    """The first thing that is wrong, as key, value and remedy."""
    first = error.errors()[0]
    key = ".".join(str(part) for part in first["loc"])
    if key in ("rules", "retention.rules"):
        return f"{key} does not work: each rule begins with a line [[{key}]], in double brackets"
    if first["type"] == "extra_forbidden":
        return f"{key} is no setting of Amber: see docs/configuration.md for those that are"
    said = first["msg"].removeprefix("Value error, ")
    if first["type"] == "missing" or isinstance(first["input"], BaseModel | dict):
        return f"{key} does not work: {said[0].lower()}{said[1:]}"
    return f"{key} = {first['input']!r} does not work: {said[0].lower()}{said[1:]}"
