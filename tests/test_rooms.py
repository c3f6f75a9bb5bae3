"""Imports run downwards only: who may enter which room (the rule itself stands in CONTRIBUTING.md)."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent

ABOVE_ALL_ROOMS = ("gateway/__main__.py", "gateway/demo.py", "gateway/learning/", "gateway/proving/")
"""They join the rooms, and so may enter any."""

RULES: list[tuple[str, set[str], set[str]]] = [
    # files under, may not import, except
    ("devices", {"gateway", "storage"}, set()),
    ("storage", {"gateway", "devices"}, set()),
    ("storage", {"paho", "aiomqtt", "mqtt5"}, set()),
    ("gateway", {"devices"}, set()),
    ("gateway/formats", {"storage", "gateway.link"}, {"storage.event"}),
    ("gateway/link", {"storage", "gateway.formats"}, {"storage.event"}),
    ("gateway", {"sqlalchemy", "alembic", "pysqlite3", "sqlite3"}, set()),
    ("devices", {"sqlalchemy", "alembic", "pysqlite3", "sqlite3"}, set()),
]

EXCEPTIONS = {"devices/outbox_file.py": {"pysqlite3", "sqlite3"}}
"""The durable outbox of the devices is a file of SQLite, and they may not ask the storage for it."""


def test_imports_run_downwards() -> None:
    files = {
        path.relative_to(ROOT).as_posix(): path.read_text("utf-8")
        for room in ("devices", "gateway", "storage")
        for path in (ROOT / room).rglob("*.py")
    }
    assert len(files) > 3, "the rooms were not found"
    assert [wrong for path, source in files.items() for wrong in trespasses(path, source)] == []


@pytest.mark.parametrize(
    ("path", "source"),
    [
        ("devices/a.py", "import storage"),
        ("devices/outbox.py", "import sqlite3"),
        ("devices/outbox_file.py", "import sqlalchemy"),
        ("devices/a.py", "def f():\n    from gateway.link import Batch"),
        ("storage/a.py", "import os, paho.mqtt.client as mqtt"),
        ("storage/a/b.py", "import importlib\nimportlib.import_module('gateway.ingest')"),
        ("gateway/a.py", "if TYPE_CHECKING:\n    import devices.broker"),
        ("gateway/a.py", "import sqlite3"),
        ("gateway/proving.py", "import devices.ledger"),
        ("gateway/formats/a.py", "from storage import log"),
        ("gateway/formats/a.py", "from ..link import codec"),
        ("gateway/formats/a.py", "from gateway import link"),
        ("gateway/link/__init__.py", "from .. import formats"),
        ("gateway/link/a.py", "from storage.errors import StorageError"),
    ],
)
def test_a_trespass_is_seen(path: str, source: str) -> None:
    assert len(list(trespasses(path, source))) == 1


@pytest.mark.parametrize(
    ("path", "source"),
    [
        ("gateway/__main__.py", "import devices.cli, storage.cli"),
        ("gateway/proving/a.py", "import devices.ledger, storage.log"),
        ("gateway/ingest.py", "import storage.log, gateway.formats"),
        ("gateway/formats/a.py", "from storage.event import Event\nfrom storage import event"),
        ("gateway/formats/a.py", "import gateway.linkage"),
        ("gateway/link/a.py", "from . import codec"),
        ("storage/a.py", "import sqlalchemy"),
        ("devices/outbox_file.py", "import sqlite3"),
    ],
)
def test_an_open_door_is_not_a_trespass(path: str, source: str) -> None:
    assert list(trespasses(path, source)) == []


def trespasses(path: str, source: str) -> Iterator[str]:
    """Each import of one file that a rule forbids, in words."""
    if path.startswith(ABOVE_ALL_ROOMS):
        return
    for name in sorted(imported(path, source)):
        for room, closed, doors in RULES:
            open_doors = doors | EXCEPTIONS.get(path, set())
            if path.startswith(f"{room}/") and within(name, closed) and not within(name, open_doors):
                yield f"{path} imports {name}"


def within(name: str, modules: set[str]) -> bool:
    return any(name == module or name.startswith(f"{module}.") for module in modules)


def imported(path: str, source: str) -> set[str]:
    """The full name of all that is imported anywhere in the file, also inside functions and by import_module."""
    names = set[str]()
    for node in ast.walk(ast.parse(source, path)):
        match node:
            case ast.Import():
                names.update(alias.name for alias in node.names)
            case ast.ImportFrom():
                module = absolute(path, node.level, node.module)
                names.update(f"{module}.{alias.name}" for alias in node.names)
            case ast.Call(func=ast.Attribute(attr="import_module") | ast.Name(id="import_module" | "__import__")):
                names.update(
                    arg.value for arg in node.args if isinstance(arg, ast.Constant) and isinstance(arg.value, str)
                )
    return names


def absolute(path: str, level: int, module: str | None) -> str:
    """What `from ..module import` means in the file at `path`."""
    if level == 0:
        return module or ""
    return ".".join([*path.split("/")[:-level], *([module] if module else [])])
