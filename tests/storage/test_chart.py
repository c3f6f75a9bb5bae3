"""Claims about `amber chart`: what it draws, what it prints, and in which words it refuses."""

from __future__ import annotations

import csv
import io
import json
import sys
from pathlib import Path

import pytest
import typer
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner, Result

import gateway.__main__
import storage.chart_cli
import storage.cli
from storage import chart as drawing
from storage.chart import DAY, HOUR, MINUTE, Chart, Line
from storage.engine import sqlite
from storage.event import Event, Value
from storage.summaries.buckets import Bucket, Series
from storage.summaries.keeping import Keeper
from storage.summaries.presence import Presence
from storage.summaries.rollups import Rollups
from storage.times import SECOND, iso
from tests.storage.histories import NOON, History, message

PNG = b"\x89PNG\r\n\x1a\n"


def chart(store: Path, *arguments: object, columns: int = 100) -> Result:
    app = typer.Typer()
    storage.chart_cli.register(app)
    storage.cli.register(app)  # with one command alone, Typer leaves its name out
    options = "chart", *map(str, arguments), "--store", str(store)
    return CliRunner().invoke(app, options, env={"COLUMNS": str(columns)})


def refused(store: Path, capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str]:
    status = gateway.__main__.run(["chart", *map(str, arguments), "--store", str(store)])
    out, err = capsys.readouterr()
    assert out == ""
    return status, err


@pytest.fixture
def day(new_history: History) -> Path:
    """A day of one device, an event a minute, with two hours of silence; and a text, and a name that is a formula."""
    minutes = (60 * hour + n for hour in range(24) if hour not in (9, 10) for n in range(60))
    readings: dict[int, dict[str, Value]] = {n: {"t": n / 60, "on": n % 60 < 30, "say": "x"} for n in minutes}
    times = {n: NOON + n * MINUTE for n in readings}
    new_history.append([(message(received_at=at), [event(at, readings[n])]) for n, at in times.items()])
    with Keeper(new_history.path, [Rollups]) as keeper:
        keeper.catch_up()
    return new_history.path


def event(at: int, readings: dict[str, Value], device: str = "thermo-1") -> Event:
    return Event(device, "measurement", "json", at, readings, units={"t": "Cel"} if "t" in readings else None)


ALL_DAY = ("--since", iso(NOON), "--until", iso(NOON + DAY))


def test_a_chart_tells_what_it_shows(day: Path) -> None:
    shown = chart(day, "thermo-1", "t", *ALL_DAY)
    assert shown.exit_code == 0
    lines = shown.stdout.splitlines()
    assert lines[0].strip() == "thermo-1: t (Cel), mean of 10 min"
    assert lines[-1] == (
        "1,320 events, min 0, mean 12.1735, max 23.9833 Cel;"
        " in steps of 10 min, 2026-11-22 11:00 to 2026-11-23 11:00 UTC"
    )
    assert "12:00" in lines[-2]
    assert all(len(line) <= 100 for line in lines[:-1])


def test_silence_is_a_gap_in_the_line(day: Path) -> None:
    rows = chart(day, "thermo-1", "t", *ALL_DAY, columns=104).stdout.splitlines()[2:-3]
    cells = [row.partition("┤")[2] or row.partition("│")[2] for row in rows]
    drawn = [n for n in range(90) if any(n < len(row) and row[n] not in " │" for row in cells)]
    gap = [n for n in range(min(drawn), max(drawn)) if n not in drawn]
    assert gap == list(range(gap[0], gap[-1] + 1))
    assert 5 < len(gap) < 10  # two hours of twenty-four
    assert 0.36 < gap[0] / 96 < 0.41  # after nine


def test_piped_a_chart_has_no_colours(day: Path) -> None:
    assert "\x1b" not in chart(day, "thermo-1", "t", "on", *ALL_DAY).stdout
    assert "\x1b" in drawing.plot_text(a_chart([1.0, 2.0]), 80, 24, coloured=True)


def test_json_is_an_array_of_buckets(day: Path) -> None:
    shown = chart(day, "thermo-1", "t", *ALL_DAY, "--every", "12h", "--format", "json")
    found = json.loads(shown.stdout)
    assert [list(one) for one in found] == [["start", "count", "min", "max", "mean", "sum", "last"]] * 3
    assert found[0]["start"] == "2026-11-22T00:00:00.000000Z"
    assert found[0]["count"] == 60
    assert (found[0]["min"], found[0]["max"], found[0]["last"]) == (0.0, 59 / 60, 59 / 60)
    assert found[0]["sum"] == pytest.approx(29.5)
    assert found[0]["mean"] == pytest.approx(29.5 / 60)


def test_csv_has_the_same_fields(day: Path) -> None:
    asked = (day, "thermo-1", "t", *ALL_DAY, "--every", "1h", "--format")
    rows = list(csv.DictReader(io.StringIO(chart(*asked, "csv").stdout)))
    assert [{name: value if name == "start" else json.loads(value) for name, value in row.items()} for row in rows] == (
        json.loads(chart(*asked, "json").stdout)
    )


def test_with_several_readings_each_bucket_tells_its_own(day: Path) -> None:
    options = "--every", "1d", "--since", iso(NOON), "--until", iso(NOON + HOUR)
    found = json.loads(chart(day, "thermo-1", "t", "on", "t", *options, "--format", "json").stdout)
    assert [(one["reading"], one["count"]) for one in found] == [("t", 660), ("on", 660)]
    assert chart(day, "thermo-1", "t", "on", *options, "--format", "csv").stdout.startswith("reading,start,count")
    assert "on: 660 events, min 0, mean 0.5, max 1; in steps" in chart(day, "thermo-1", "t", "on", *options).stdout


def test_every_word_of_as_is_drawn(day: Path) -> None:
    for word in ("count", "min", "max", "mean", "sum", "last"):
        shown = chart(day, "thermo-1", "t", "--as", word, *ALL_DAY)
        assert f", {word} of 10 min" in shown.stdout or f" {word} of 10 min" in shown.stdout
        assert shown.exit_code == 0


def test_what_a_file_is_called_says_what_is_written_there(day: Path, tmp_path: Path) -> None:
    """If nothing else says it; what is called otherwise gets a drawing."""
    asked = day, "thermo-1", "t", *ALL_DAY
    for ending in ("csv", "json", "PNG", "txt"):
        assert chart(*asked, "-o", tmp_path / f"x.{ending}").exit_code == 0
    for ending in ("csv", "json"):
        assert (tmp_path / f"x.{ending}").read_text("utf-8") == chart(*asked, "--format", ending).stdout
    assert (tmp_path / "x.PNG").read_bytes().startswith(PNG)
    assert "mean of 10 min" in (tmp_path / "x.txt").read_text("utf-8")
    assert chart(*asked, "--format", "json", "-o", tmp_path / "x.csv").exit_code == 0
    assert (tmp_path / "x.csv").read_text("utf-8") == (tmp_path / "x.json").read_text("utf-8")


def test_sums_of_decimals_are_printed_as_such(new_history: History) -> None:
    new_history.append(
        [(message(), [event(NOON + n, {"t": value})]) for n, value in enumerate((739.89, 0.1, 0.1, 0.2))]
    )
    asked = new_history.path, "thermo-1", "t", *ALL_DAY, "--every", "1h", "--format"
    assert chart(*asked, "csv").stdout.splitlines()[1].split(",")[1:] == [
        "4",
        "0.1",
        "739.89",
        "185.0725",
        "740.29",
        "0.2",
    ]
    assert json.loads(chart(*asked, "json").stdout)[0]["sum"] == 740.29
    assert drawing.without_dust(739.9900000000001) == 739.99


@pytest.mark.parametrize(
    ("values", "text"),
    [
        ([11_586.21, 11_586.22, 11_586.24], "min 11,586.21, mean 11,586.22, max 11,586.24"),
        ([0.1, 0.1, 0.1], "min 0.1, mean 0.1, max 0.1"),
        ([1.0, 2.0], "min 1, mean 1.5, max 2"),
        ([1e15, 1e15 + 1], "min 1e+15, mean 1e+15, max 1e+15"),
    ],
)
def test_the_line_beneath_tells_the_least_from_the_greatest(values: list[float], text: str) -> None:
    assert f" {text}; in steps" in drawing.plot_text(a_chart(values), 100, 24, coloured=False)


def test_a_bare_number_has_no_unit(new_history: History) -> None:
    one = Event("thermo-1", "measurement", "json", NOON, {"x": 5.0, "y": 1.0}, units={"x": "1", "y": "%"})
    new_history.append([(message(), [one])])
    lines = chart(new_history.path, "thermo-1", "x", "y", *ALL_DAY).stdout.splitlines()
    assert lines[0].strip() == "thermo-1: x, y (%), mean of 10 min"
    assert lines[-2:][0] == "x: 1 event, min 5, mean 5, max 5"


def test_where_there_are_no_numbers_the_newest_value_is_told(day: Path, capsys: pytest.CaptureFixture[str]) -> None:
    later = "--since", iso(NOON + 3 * DAY), "--until", iso(NOON + 4 * DAY)
    assert chart(day, "thermo-1", "t", *later).stdout == (
        "thermo-1 has no numbers of t from 2026-11-25 11:00 to 2026-11-26 11:00 UTC\n"
        "the newest value of t was observed at 2026-11-23 10:59 UTC\n"
    )
    (_, told) = chart(day, "thermo-1", "say", *ALL_DAY).stdout.splitlines()
    assert told == ("the newest value of say is a text: `amber events --device thermo-1 --reading say` shows such")
    assert gateway.__main__.run([*told.split("`")[1].split()[1:], "--store", str(day)]) == 0
    assert "say=x" in capsys.readouterr().out


@pytest.mark.parametrize("known", [True, False])
def test_what_retention_has_dropped_does_not_shorten_the_chart(new_history: History, known: bool) -> None:  # noqa: FBT001
    """It begins with the device, whatever of its events is left, as long as something is known of it."""
    told = [event(NOON + n * HOUR, {"t": n}) for n in range(40)]
    new_history.append([(message(received_at=one.observed_at), [one]) for one in told])
    with Keeper(new_history.path, [Rollups, *([Presence] if known else [])]) as keeper:
        keeper.catch_up()
    connection = sqlite.connect(new_history.path)
    for table, id in (("events_1", "id"), ("event_index_1", "event_id")):
        connection.execute(f"DELETE FROM {table} WHERE {id} < 380000")
    connection.commit()
    connection.close()

    def shown(until: int) -> list[str]:
        asked = "--until", iso(until), "--every", "1h", "--format", "json"
        return [one["start"] for one in json.loads(chart(new_history.path, "thermo-1", "t", *asked).stdout)]

    assert shown(NOON + 40 * HOUR) == [iso(NOON + n * HOUR) for n in range(16, 40)]
    assert shown(NOON + 5 * HOUR) == [iso(NOON + n * HOUR) for n in range(5)]
    drawn = chart(new_history.path, "thermo-1", "t", "--until", iso(NOON + 5 * HOUR), "--format", "plot").stdout
    assert "in steps of 2 min, 2026-11-22 11:00 to 2026-11-22 16:00 UTC" in drawn


def test_sums_from_before_a_reread_are_not_shown_without_a_word(day: Path) -> None:
    connection = sqlite.connect(day)
    connection.execute("INSERT INTO forgotten SELECT id, 1, ? FROM devices", (NOON + HOUR,))
    connection.execute("INSERT INTO corrections SELECT id, ? FROM devices", (NOON // HOUR + 5,))
    connection.commit()
    connection.close()
    for _ in range(2):  # before the keeper has come to it, and after
        assert chart(day, "thermo-1", "t", *ALL_DAY).stderr == (
            "amber: sums of thermo-1 before 2026-11-22T13:00Z are as they were before its messages were read again:"
            " events of that time are gone, so numbers and units may be the old ones\n"
        )
        assert chart(day, "thermo-1", "t", *ALL_DAY, "--every", "100s").stderr == ""
        with Keeper(day, [Rollups]) as keeper:
            keeper.catch_up()


def test_what_has_no_numbers_is_said(day: Path) -> None:
    shown = chart(day, "thermo-1", "say", *ALL_DAY)
    assert shown.stdout.startswith("thermo-1 has no numbers of say from 2026-11-22 11:00 to ")
    assert shown.exit_code == 0
    assert chart(day, "thermo-1", "say", *ALL_DAY, "--format", "json").stdout == "[]\n"


def test_without_since_the_chart_begins_with_the_device(tmp_path: Path) -> None:
    """A device that has begun a minute ago has a chart of a minute, not one of a day with a point at its end."""
    with History(tmp_path / "amber.db") as history:
        history.append([(message(), [event(NOON + n * SECOND, {"t": n})]) for n in range(60)])
        shown = chart(history.path, "thermo-1", "t", "--until", iso(NOON + MINUTE), "--format", "json")
    assert len(json.loads(shown.stdout)) == 60


def test_a_picture_goes_to_a_file_or_down_a_pipe(day: Path, tmp_path: Path) -> None:
    file = tmp_path / "chart.png"
    shown = chart(day, "thermo-1", "t", *ALL_DAY, "--format", "png", "-o", file)
    assert (shown.exit_code, shown.stdout) == (0, "")
    assert file.read_bytes().startswith(PNG)
    assert chart(day, "thermo-1", "t", *ALL_DAY, "--format", "png", "-o", "-").stdout_bytes.startswith(PNG)


def test_text_goes_to_a_file_too(day: Path, tmp_path: Path) -> None:
    file = tmp_path / "chart.csv"
    assert chart(day, "thermo-1", "t", *ALL_DAY, "--format", "csv", "-o", file).stdout == ""
    assert file.read_text("utf-8") == chart(day, "thermo-1", "t", *ALL_DAY, "--format", "csv").stdout


def test_without_matplotlib_one_line_says_how_to_get_it(
    day: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    status, err = refused(day, capsys, "thermo-1", "t", "--format", "png", "-o", "x.png")
    assert (status, err) == (1, "amber: PNG needs matplotlib: pip install 'amber-gateway[png]'\n")


@pytest.mark.parametrize(
    ("arguments", "status", "words"),
    [
        (("thermo-2", "t"), 1, "there is no device 'thermo-2': is it thermo-1? `amber devices` lists them"),
        (("thermo-1", "temperature"), 1, "thermo-1 has no reading 'temperature': is it "),
        (("thermo-1", "t\udcff"), 2, "is not valid UTF-8"),
        (("thermo-1",), 2, "Missing argument 'READING...'"),
        (("thermo-1", "t", "--every", "soon"), 2, "'soon' is no duration: write"),
        (("thermo-1", "t", "--every", "0s"), 2, "'0s' is no duration from 0.001 s to"),
        (("thermo-1", "t", "--every", "9" * 400 + "h"), 2, "is no duration"),
        (("thermo-1", "t", "--since", "1h", "--until", "2h"), 2, "must be later than --since"),
        (("thermo-1", "t", "--since", "2999-01-01"), 2, "lies in the future"),
        (("thermo-1", "t", "--format", "png"), 2, "a picture needs a file: -o FILE"),
        (("thermo-1", "t", "-o", "/nowhere/at/all"), 1, "cannot write /nowhere/at/all (No such file or directory)"),
    ],
)
def test_what_cannot_be_is_refused_in_one_line(
    day: Path, capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], status: int, words: str
) -> None:
    got, err = refused(day, capsys, *arguments)
    assert got == status
    assert words in err
    assert err.count("\n") == 1


def test_names_cannot_steer_the_terminal(new_history: History) -> None:
    device, reading = "thermo\x1b[31m", "t\x1b]0;x\x07$_{"
    new_history.append([(message(), [event(NOON, {reading: 1.5}, device)])])
    shown = chart(new_history.path, device, reading, *ALL_DAY)
    assert shown.exit_code == 0
    assert "\x1b" not in shown.stdout
    assert chart(new_history.path, device, reading, *ALL_DAY, "--format", "png", "-o", "-").exit_code == 0


@pytest.mark.parametrize(
    ("span", "step"),
    [
        (0, SECOND),
        (HOUR, 30 * SECOND),
        (DAY, 10 * MINUTE),
        (7 * DAY, HOUR),
        (30 * DAY, 6 * HOUR),
        (3650 * DAY, 30 * DAY),
    ],
)
def test_the_step_is_chosen_from_the_span(span: int, step: int) -> None:
    assert drawing.step_for(span) == step


def test_a_slow_device_has_no_gaps_where_it_is_only_slow() -> None:
    def starts(*minutes: int) -> list[list[int]]:
        buckets = [Bucket(minute * MINUTE, 1, 0, 0, 0, 0) for minute in minutes]
        return [[bucket.start // MINUTE for bucket in run] for run in drawing.runs(buckets)]

    assert starts() == []
    assert starts(5) == [[5]]
    assert starts(*range(0, 300, 15), *range(360, 400, 15)) == [[*range(0, 300, 15)], [*range(360, 400, 15)]]
    assert starts(0, 10, 30, 40, 60, 70, 90) == [[0, 10, 30, 40, 60, 70, 90]]
    assert starts(*range(50), *range(51, 99)) == [[*range(50)], [*range(51, 99)]]


def a_chart(values: list[float], shown: drawing.Shown = "mean") -> Chart:
    buckets = [Bucket(n * MINUTE, 1, value, value, value, value) for n, value in enumerate(values)]
    return Chart("a", [Line(Series(1, 1, "a", "t", None), buckets)], 0, len(values) * MINUTE, MINUTE, shown)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.floats(-1e288, 1e288), min_size=1, max_size=5), st.integers(1, 200), st.integers(1, 60))
def test_whatever_the_numbers_are_they_can_be_drawn(values: list[float], columns: int, rows: int) -> None:
    lines = drawing.plot_text(a_chart(values), columns, rows, coloured=False).splitlines()
    levels = [line.partition("┤")[0].strip() for line in lines if "┤" in line]
    assert len(levels) >= 2
    assert len(set(levels)) == len(levels)


def test_levels_are_told_apart() -> None:
    texts = [text for _, text in drawing.value_ticks(1_234_567.1, 1_234_567.9)]
    assert texts[:3] == ["1,234,567.0", "1,234,567.2", "1,234,567.4"]
