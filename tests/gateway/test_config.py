"""Claims about settings: where they come from, and that what cannot work is refused with key, value and remedy."""

from pathlib import Path

import pytest

from gateway.config import ConfigError, load, overlap
from gateway.link.subscriptions import Subscription


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
