"""Claims about formats of other packages: they are asked first, and one that is broken costs itself only."""

from __future__ import annotations

import json
import logging
import os
import re
import subprocess
import sys
import tomllib
from importlib.metadata import EntryPoint
from pathlib import Path
from types import ModuleType

import pytest

from gateway import plugins
from gateway.formats import Format, Formats
from storage.event import Event, Rejection
from tests.formats.messages import NOW, message

ROOT = Path(__file__).resolve().parents[2]

LEVEL = Format(
    name="level",
    read=lambda sent, _body: [Event("pond", "measurement", "level", sent.received_at, {"level": len(sent.payload)})],
    topics=("pond/#",),
)
BROKEN = Format(name="broken", read=lambda _sent, _body: 1 // 0, topics=("broken/#",))  # type: ignore[arg-type,return-value]


def test_the_worked_example_works_from_a_package_of_its_own(tmp_path: Path) -> None:
    docs = (ROOT / "docs" / "formats.md").read_text("utf-8")
    (program,) = re.findall(r"^```python example\n(.*?)^```$", docs, re.MULTILINE | re.DOTALL)
    (points,) = re.findall(r"^```toml\n(\[project\.entry-points.*?)^```$", docs, re.MULTILINE | re.DOTALL)
    (tmp_path / "amber_pond.py").write_text(program)
    about = tmp_path / "amber_pond-1.0.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: amber-pond\nVersion: 1.0\n")
    offered = tomllib.loads(points)["project"]["entry-points"][plugins.GROUP]
    entries = "".join(f"{name} = {value}\n" for name, value in offered.items())
    (about / "entry_points.txt").write_text(f"[{plugins.GROUP}]\n{entries}")
    done = subprocess.run(
        [sys.executable, "-m", "gateway", "normalize"],
        input='{"topic":"pond/lily/report","payload":"level=1.25"}\n',
        env={**os.environ, "PYTHONPATH": f"{tmp_path}{os.pathsep}{ROOT}"},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )
    (event,) = json.loads(done.stdout)["events"]
    assert (event["format"], event["readings"], event["units"]) == ("pond", {"level": 1.25}, {"level": "m"})


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
