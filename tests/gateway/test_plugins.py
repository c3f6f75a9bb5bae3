"""Claims about formats of other packages: they are asked first, and one that is broken costs itself only."""

from __future__ import annotations

import logging
import sys
from importlib.metadata import EntryPoint
from types import ModuleType

import pytest

from gateway import plugins
from gateway.formats import Format, Formats
from storage.event import Event, Rejection
from tests.formats.messages import NOW, message

LEVEL = Format(
    name="level",
    read=lambda sent, _body: [Event("pond", "measurement", "level", sent.received_at, {"level": len(sent.payload)})],
    topics=("pond/#",),
)
BROKEN = Format(name="broken", read=lambda _sent, _body: 1 // 0, topics=("broken/#",))  # type: ignore[arg-type,return-value]


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch) -> None:
    """A package that offers one good format, a list of formats, what is no format, and what cannot be imported."""
    module = ModuleType("a_package_with_formats")
    module.LEVEL, module.LIST, module.WORD = LEVEL, [BROKEN], "no format"  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, module.__name__, module)
    values = ["a_package_with_formats:LEVEL", "a_package_with_formats:LIST", "a_package_with_formats:WORD", "missing:X"]
    points = [EntryPoint(f"p{n}", value, plugins.GROUP) for n, value in enumerate(values)]
    monkeypatch.setattr(plugins, "entry_points", lambda *, group: points if group == plugins.GROUP else [])


@pytest.mark.usefixtures("installed")
def test_what_can_be_loaded_is_and_the_log_tells_of_the_rest(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        assert plugins.offered() == (LEVEL, BROKEN)
    said = [record.getMessage() for record in caplog.records]
    assert any("missing:X cannot be loaded: ModuleNotFoundError" in line for line in said)
    assert any("a_package_with_formats:WORD offers what is no format" in line for line in said)


@pytest.mark.usefixtures("installed")
def test_a_plugin_is_asked_before_our_own_formats_and_a_broken_one_costs_a_rejection() -> None:
    formats = Formats(None, plugins.offered())
    assert formats.read(message(b"{}", "pond/1")) == [Event("pond", "measurement", "level", NOW, {"level": 2})]
    outcome = formats.read(message(b"{}", "broken/1"))
    assert isinstance(outcome, Rejection)
    assert (outcome.format, "ZeroDivisionError" in outcome.reason) == ("broken", True)
    assert not isinstance(formats.read(message(b"{}", "other/1")), Rejection)
