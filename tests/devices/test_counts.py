"""What is shown of a run is what was counted."""

from __future__ import annotations

import asyncio
import io

import pytest

from devices.counts import Counts, show, summary


def test_the_summary_is_one_line() -> None:
    counts = Counts(
        devices=100, published=3_000, acknowledged=2_995, failed=5, statuses=200, connected=0, elapsed_s=30.04
    )
    assert summary(counts) == (
        "published 3000 · acknowledged 2995 · failed 5 · statuses 200 · devices 100 · 30.0 s · 99.7 msg/s"
    )


def test_what_was_published_again_is_told() -> None:
    assert " · repeated 7 · " in summary(Counts(devices=1, repeated=7))


def test_at_qos_0_nobody_expects_acknowledgements() -> None:
    text = summary(Counts(devices=1, published=50, unanswerable=50, elapsed_s=5.0))
    assert "acknowledged 0 (QoS 0 has none)" in text
    assert text.endswith(" 10.0 msg/s")


class Screen(io.StringIO):
    """A terminal, or not one; `written` says when there is something new."""

    def __init__(self, *, terminal: bool) -> None:
        super().__init__()
        self.written = asyncio.Event()
        self._terminal = terminal

    def isatty(self) -> bool:
        return self._terminal

    def write(self, text: str) -> int:
        self.written.set()
        return super().write(text)


async def shown(screen: Screen, counts: Counts, times: int) -> str:
    showing = asyncio.create_task(show(counts, screen))
    for _ in range(times):
        await screen.written.wait()
        screen.written.clear()
    showing.cancel()
    await asyncio.wait({showing})
    return screen.getvalue()


def test_a_terminal_shows_one_live_line_and_is_left_clean(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("devices.counts.TERMINAL_EVERY_S", 0)
    counts = Counts(devices=4, published=9, acknowledged=8, connected=3, trouble="Connection refused")
    text = asyncio.run(shown(Screen(terminal=True), counts, 2))
    line = "\rconnected 3/4 · published 9 · acknowledged 8 · failed 0 · "
    assert text.startswith(line)
    assert "msg/s · Connection refused\x1b[K" in text
    assert text.endswith("\r\x1b[K")
    assert "\n" not in text


def test_elsewhere_there_are_plain_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("devices.counts.PLAIN_EVERY_S", 0)
    text = asyncio.run(shown(Screen(terminal=False), Counts(devices=4, connected=4, statuses=4), 2))
    assert text.startswith("connected 4/4 · published 0 · ")
    assert text.endswith("\n")
    assert not {"\r", "\x1b"} & {*text}
