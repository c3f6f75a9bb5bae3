"""Claims about settings: where they come from, and that what cannot work is refused with key, value and remedy."""

import asyncio
from pathlib import Path

import pytest

from gateway import daemon
from gateway.config import ConfigError, load, overlap
from gateway.link.subscriptions import Subscription
from storage.event import Message, Rejection


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("AMBER_STORE", "AMBER_BROKER"):
        monkeypatch.delenv(name, raising=False)


def written(text: str) -> None:
    Path("amber.toml").write_text(text)


def test_options_come_before_the_environment_before_the_file(monkeypatch: pytest.MonkeyPatch) -> None:
    written('broker = "mqtt://file"\nstore = "file.db"\n[link]\nkeep_alive_s = 7\nclient_id = "file"\n')
    monkeypatch.setenv("AMBER_BROKER", "mqtt://environment")
    monkeypatch.setenv("AMBER_STORE", "environment.db")
    monkeypatch.setenv("AMBER_LINK__CLIENT_ID", "environment")
    config = load(None, {"broker": "mqtt://option"})
    assert (config.broker, config.store) == ("mqtt://option", "environment.db")
    assert (config.link.keep_alive_s, config.link.client_id) == (7, "environment")


def test_filters_in_the_environment_are_separated_by_spaces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AMBER_SUBSCRIBE", "a/#:1 b/+")
    assert load(None, {}).link_options.subscriptions == (Subscription("a/#", 1), Subscription("b/+", 2))


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("[link]\nkeep_alive = 3\n", "link.keep_alive is no setting of Amber"),
        ("[link]\nkeep_alive_s = 0\n", "link.keep_alive_s = 0 does not work: input should be greater than"),
        ('[log]\nlevel = "loud"\n', "log.level = 'loud' does not work"),
        ('[formats]\ntime_zone = "Mars/Base"\n', "write a zone as in Europe/Berlin"),
        ('subscribe = ["a/#/b"]\n', "# must be the whole last level"),
        ('broker = "mqtt://h"\n[link]\nca_file = "x"\n', "write mqtts://"),
        ("broker = \n", "amber.toml: Invalid value"),
        ('[[rules]]\nformat = "json"\n', "rules.0.topic does not work: field required"),
        ('[[rules]]\ntopic = "a/#/b"\n', "rules.0 does not work: 'a/#/b' is no topic filter: # may only be the last"),
        ('[[rules]]\ntopic = "a"\ncolour = "red"\n', "rules.0.colour is no setting of Amber"),
        ('[[rules]]\ntopic = "a"\ntime_zone = "Mars"\n', "rules.0.time_zone = 'Mars' does not work: write a zone"),
        ('[[rules]]\ntopic = "a"\nkind = "thing"\n', "rules.0.kind = 'thing' does not work"),
    ],
)
def test_what_cannot_work_is_refused_in_words(text: str, says: str) -> None:
    written(text)
    with pytest.raises(ConfigError) as refused:
        load(None, {})
    assert says in str(refused.value)
    assert refused.value.exit_status == 2


@pytest.mark.parametrize(
    ("one", "other", "both"),
    [
        ("#", "a/b", True),
        ("#", "$aws/#", False),
        ("+/b", "$SYS/b", False),
        ("$aws/#", "$aws/things/+", True),
        ("a/#", "a", True),
        ("a/+", "+/b", True),
        ("a/+/c", "a/b/#", True),
        ("a/b", "a/b", True),
        ("a/+", "a/b/c", False),
        ("a/#", "b/#", False),
        ("+/a", "+/b", False),
        ("a", "a/b", False),
    ],
)
def test_filters_that_share_a_topic_are_found(one: str, other: str, both: bool) -> None:  # noqa: FBT001
    assert overlap(one.split("/"), other.split("/")) is both
    assert overlap(other.split("/"), one.split("/")) is both


def test_filters_that_overlap_are_refused() -> None:
    with pytest.raises(ConfigError, match="stored twice"):
        load(None, {"subscribe": ["plant/#", "plant/+/state"]})


def test_rules_bounds_and_facts_reach_the_formats() -> None:
    written(
        "[formats]\ndepth = 3\nearliest = 2020-01-01T00:00:00Z\nahead_s = 60\nfact_mb = 2\n"
        '[[rules]]\ntopic = "site/{device}/#"\nunits = {t = "°C"}\n[[rules]]\ntopic = "cam/#"\nformat = "raw"\n'
    )
    config = load(None, {})
    options = config.format_options
    assert (options.depth, options.earliest, options.ahead_us) == (3, 1_577_836_800_000_000, 60_000_000)
    assert options.fact_bytes == 2 << 20
    formats = config.make_formats()
    outcome = formats.read(Message("site/pump/up", b'{"t":1}', 0, retain=False, received_at=1_700_000_000_000_000))
    assert not isinstance(outcome, Rejection)
    (event,) = outcome
    assert (event.device, event.units) == ("pump", {"t": "Cel"})
    assert formats.read(Message("cam/1", b"\xff", 0, retain=False, received_at=0)) == ()


def test_a_rule_for_an_unknown_format_is_refused() -> None:
    written('[[rules]]\ntopic = "a"\nformat = "jsno"\n')
    with pytest.raises(ConfigError, match="'jsno' is no format"):
        load(None, {}).make_formats()


def test_a_gateway_with_a_rule_for_an_unknown_format_ends_before_it_makes_a_store() -> None:
    written('store = "amber.db"\n[[rules]]\ntopic = "a"\nformat = "jsno"\n')
    with pytest.raises(ConfigError, match="'jsno' is no format"):
        asyncio.run(daemon.run(load(None, {})))
    assert not Path("amber.db").exists()
