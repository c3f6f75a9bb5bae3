"""Claims about `amber prune` and [retention]: what may go is said once, shown first if wanted, and told truthfully."""

from __future__ import annotations

import json
import re
import time
from pathlib import Path

import pytest

from gateway.__main__ import run
from gateway.config import ConfigError, load
from storage.cursors import Cursors
from storage.event import EVENTS_PER_MESSAGE, Event, Message, Rejection
from storage.history import Reader
from storage.retention.ages import DAY_US, RetentionOptions, RetentionRule
from storage.store import Store, StoreOptions
from storage.writer import Writer

STORE = Path("amber.db")
OPTIONS = StoreOptions(segment_events=100, free_floor_bytes=0)


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("AMBER_STORE", "AMBER_BROKER"):
        monkeypatch.delenv(name, raising=False)


def filled() -> None:
    """Two sealed segments of ten days ago, and fifty messages of now."""
    store, now = Store(STORE, OPTIONS), time.time_ns() // 1000
    for at in (now - 10 * DAY_US, now - 9 * DAY_US, now):
        messages = [Message("a/b", b"x", 1, retain=False, received_at=at + n, packet_id=1) for n in range(100)]
        made = [[Event("d", "state", "json", at, {"n": 1})] if n % 10 else Rejection("no") for n in range(100)]
        store.append(list(zip(messages, made, strict=True))[: 50 if at == now else 100], 1)
    store.close()


def told(capsys: pytest.CaptureFixture[str], *arguments: str) -> dict[str, dict[str, object]]:
    """What the command tells, by what it is."""
    assert run(["prune", "--format", "json", *arguments]) == 0
    return {line["what"]: line for line in json.loads(capsys.readouterr().out)}


def messages() -> int:
    with Reader(STORE) as reader:
        return reader.status().messages


def test_a_dry_run_tells_what_prune_then_does(capsys: pytest.CaptureFixture[str]) -> None:
    filled()
    before = STORE.read_bytes()
    would = told(capsys, "--max-age", "5d", "--dry-run")
    assert messages() == 250
    assert STORE.read_bytes() == before
    went = told(capsys, "--max-age", "5d")
    assert messages() == 50
    for line in (*would.values(), *went.values()):
        line.pop("bytes")
    assert would == went
    assert [went["whole segments"][key] for key in ("segments", "messages", "events", "rejections")] == [
        2,
        200,
        180,
        20,
    ]
    assert told(capsys, "--max-age", "5d")["whole segments"]["segments"] == 0


def test_the_table_says_what_happened_and_what_did_not(capsys: pytest.CaptureFixture[str]) -> None:
    filled()
    assert run(["prune", "--max-age", "5d", "--dry-run"]) == 0
    out, err = capsys.readouterr()
    assert out.startswith("would go ")
    assert "nothing was changed" in err
    assert run(["prune", "--max-age", "5d"]) == 0
    out, err = capsys.readouterr()
    assert out.startswith("went ")
    assert "the file does not become smaller" in err


def test_what_is_held_is_told_with_its_holder(capsys: pytest.CaptureFixture[str]) -> None:
    filled()
    with Cursors(STORE) as cursors:
        cursors.create("billing", "consumer", 150 * EVENTS_PER_MESSAGE)
    went = told(capsys, "--max-age", "5d")
    assert went["whole segments"]["segments"] == 1
    assert went["held by billing"]["messages"] == 100
    assert run(["prune", "--max-age", "5d"]) == 0
    assert "--past-consumers" in capsys.readouterr().err
    assert told(capsys, "--max-age", "5d", "--past-consumers")["whole segments"]["segments"] == 1
    assert messages() == 50


def test_it_works_beside_a_gateway_that_writes(capsys: pytest.CaptureFixture[str]) -> None:
    filled()
    writer = Writer(STORE, OPTIONS)
    try:
        assert told(capsys, "--max-age", "5d")["whole segments"]["messages"] == 200
        message = Message("a/b", b"x", 0, retain=False, received_at=time.time_ns() // 1000)
        writer.append([(message, Rejection("no"))], 1).result()
    finally:
        writer.stop()
    assert messages() == 51


def test_the_configuration_says_what_goes_and_options_stand_over_it(capsys: pytest.CaptureFixture[str]) -> None:
    filled()
    Path("amber.toml").write_text('[retention]\nmax_age = "90d"\n[[retention.rules]]\nkind = "state"\nmax_age = "5d"\n')
    would = told(capsys, "--dry-run")
    assert (would["whole segments"]["messages"], would["single messages"]["messages"]) == (0, 180)
    Path("other.toml").write_text('[retention]\nmax_age = "90d"\n')
    assert told(capsys, "--config", "other.toml", "--dry-run")["whole segments"]["messages"] == 0
    would = told(capsys, "--config", "other.toml", "--max-age", "228h", "--dry-run")
    assert would["whole segments"]["messages"] == 100
    assert told(capsys, "--max-size", "1MB", "--dry-run")["whole segments"]["messages"] == 0


@pytest.mark.parametrize(
    ("arguments", "status", "says"),
    [
        ([], 2, "nothing says what may go: give --max-age or --max-size"),
        (["--dry-run", "--past-consumers"], 2, "nothing says what may go"),
        (["--max-age", "soon"], 2, "retention.max_age = 'soon' does not work: write an age as in \"90d\""),
        (["--max-age", "0d"], 2, "retention.max_age = '0d' does not work"),
        (["--max-size", "10"], 2, "retention.max_size = '10' does not work: write a size as in \"10GB\""),
        (["--max-age", "1d", "--store", "none.db"], 1, "there is no store at none.db"),
        (["--max-age", "1d", "--dry-run", "--store", "none.db"], 1, "there is no store at none.db"),
        (["--max-age", "1d", "--store", "text.db"], 1, "is damaged"),
        (["--max-age", "1d", "--config", "none.toml"], 2, "there is no configuration at none.toml"),
    ],
)
def test_what_cannot_be_is_refused_in_one_line(
    arguments: list[str], status: int, says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("text.db").write_text("no store, but long enough to be looked at" * 100)
    assert run(["prune", *arguments]) == status
    err = capsys.readouterr().err
    assert says in err
    assert err.count("\n") == 1


def test_the_example_of_the_documentation_works() -> None:
    text = (Path(__file__).resolve().parents[2] / "docs" / "retention.md").read_text("utf-8")
    Path("amber.toml").write_text(re.findall(r"```toml\n(.*?)```", text, re.DOTALL)[0])
    options = load(None, {}).retention_options
    assert (options.max_age_us, len(options.rules)) == (90 * DAY_US, 2)


def test_settings_become_options() -> None:
    assert load(None, {}).retention_options == RetentionOptions()
    Path("amber.toml").write_text(
        '[retention]\nmax_age = "90d"\nmax_size = "10GB"\npast_consumers = true\nrollup_minutes = "30d"\n'
        'rollup_hours = "1w"\n[[retention.rules]]\ntopic = "debug/#"\nmax_age = "1d"\n'
        '[[retention.rules]]\nkind = "availability"\nmax_age = "forever"\n'
    )
    assert load(None, {}).retention_options == RetentionOptions(
        max_age_us=90 * DAY_US,
        max_bytes=10 << 30,
        rules=(RetentionRule("debug/#", None, DAY_US), RetentionRule(None, "availability", None)),
        past_consumers=True,
        minutes_age_us=30 * DAY_US,
        hours_age_us=7 * DAY_US,
    )


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("max_age = 90", "retention.max_age = 90 does not work: write an age as in"),
        ('max_age = ""', "retention.max_age = '' does not work: write an age as in"),
        ("max_size = 10", "retention.max_size = 10 does not work: write a size as in"),
        ('max_size = "0GB"', "retention.max_size = '0GB' does not work"),
        ('max_agee = "9d"', "retention.max_agee is no setting of Amber"),
        ('rollup_hours = "never"', "retention.rollup_hours = 'never' does not work"),
        ('[retention.rules]\ntopic = "a"', "each rule begins with a line [[retention.rules]], in double brackets"),
        ('[[retention.rules]]\ntopic = "a"', "retention.rules.0.max_age does not work: field required"),
        ('[[retention.rules]]\nmax_age = "1d"', "retention.rules.0 does not work: give it a topic, a kind, or both"),
        (
            '[[retention.rules]]\ntopic = "a/#/b"\nmax_age = "1d"',
            "retention.rules.0 does not work: 'a/#/b' is no topic filter: # stands alone and last",
        ),
        ('[[retention.rules]]\ntopic = "a"\nmax_age = "x"', "retention.rules.0.max_age = 'x' does not work"),
        ('[[retention.rules]]\nkind = "thing"\nmax_age = "1d"', "retention.rules.0.kind = 'thing' does not work"),
    ],
)
def test_settings_that_cannot_work_are_refused_with_key_value_and_remedy(text: str, says: str) -> None:
    Path("amber.toml").write_text(f"[retention]\n{text}\n")
    with pytest.raises(ConfigError) as refused:
        load(None, {})
    assert says in str(refused.value)
