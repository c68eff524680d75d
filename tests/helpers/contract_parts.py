"""What the tests of the contract stand on: descriptions as plain data, held against tables.

The tables are the JSON files in `fixtures`. They are changed by hand, and only where users are told
of the change.
"""

from __future__ import annotations

import argparse
import dataclasses
import difflib
import inspect
import json
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest

FIXTURES = Path(__file__).parents[1] / "fixtures"
MAGIC = b"napari-unet records 1\n"


def same_as(table: str, found: Any) -> None:
    """Fail, with the lines that differ, unless `found` is what a table says."""
    wanted = as_text(json.loads((FIXTURES / table).read_text(encoding="utf-8")))
    now = as_text(json.loads(json.dumps(found)))
    if now != wanted:
        lines = (wanted.splitlines(), now.splitlines())
        difference = difflib.unified_diff(*lines, f"fixtures/{table}", "found", "", "", 4, "")
        pytest.fail("\n".join(["what users rely on has changed:", *difference]), pytrace=False)


def as_text(values: Any) -> str:
    """Write plain data with a line for each value; short lists and the like take one line."""
    return "\n".join(_lines(values)) + "\n"


def _lines(values: Any, indent: str = "") -> list[str]:
    short = json.dumps(values, ensure_ascii=False)
    nested = isinstance(values, dict | list) and values
    parts = values.values() if isinstance(values, dict) else values
    simple = nested and not any(isinstance(part, dict | list) for part in parts)
    if not nested or (simple and len(indent) + len(short) < 90):
        return [short]
    inside, out = f"{indent} ", []
    pairs = values.items() if isinstance(values, dict) else ((None, part) for part in values)
    for key, part in pairs:
        first, *rest = _lines(part, inside)
        name = "" if key is None else f"{json.dumps(key, ensure_ascii=False)}: "
        out += [f"{inside}{name}{first}", *rest]
        out[-1] += ","
    out[-1] = out[-1].removesuffix(",")
    start, end = "{}" if isinstance(values, dict) else "[]"
    return [start, *out, f"{indent}{end}"]


def keys_of(values: Any, *whole: str) -> Any:
    """Return the keys of nested objects, sorted, each with what is below it.

    A list is told by its first value. Of the entries named by `whole` the values count, too.
    """
    if isinstance(values, dict):
        found = {}
        for key, value in sorted(values.items()):
            found[key] = value if key in whole else keys_of(value, *whole)
        return found
    if isinstance(values, list):
        return [keys_of(values[0], *whole)] if values else []
    return {str: "text", bool: "yes or no", int: "number", float: "number"}.get(type(values))


# ------------------------------------------------------------------------------------ Python names


def public_name(value: Any) -> Any:
    """Describe a public class or function: how it is called, and what it holds."""
    if not inspect.isclass(value):
        return call(value) if callable(value) else type(value).__name__
    bases = [base.__name__ for base in value.__bases__ if base is not object]
    if issubclass(value, BaseException):
        return {"bases": bases}
    members = {
        name: member for name, member in inspect.getmembers(value) if not name.startswith("_")
    }
    found: dict[str, Any] = {"made by": call(value)}
    if dataclasses.is_dataclass(value):
        fields = [item for item in dataclasses.fields(value) if not item.name.startswith("_")]
        found["fields"] = {item.name: _field(item) for item in fields}
        members = {name: m for name, m in members.items() if name not in found["fields"]}
        found["frozen"] = value.__dataclass_params__.frozen
    found["methods"] = {n: call(m) for n, m in members.items() if callable(m)}
    found["properties"] = [n for n, m in members.items() if not callable(m)]
    return found


def call(value: Any) -> str:
    """Return parameters, their kinds and defaults, as they stand in brackets; no types."""
    signature = inspect.signature(value)
    parameters = [
        parameter.replace(annotation=inspect.Parameter.empty)
        for parameter in signature.parameters.values()
        if not parameter.name.startswith("_")
    ]
    bare = signature.replace(parameters=parameters, return_annotation=inspect.Signature.empty)
    return str(bare)


def _field(item: dataclasses.Field) -> Any:
    if item.default_factory is not dataclasses.MISSING:
        default = f"new {item.default_factory.__name__}"
    elif item.default is dataclasses.MISSING:
        return "required"
    else:
        default = repr(item.default)
    bounds = {name: item.metadata.get(name) for name in ("unit", "low", "high", "choices")}
    given = {name: value for name, value in bounds.items() if value not in (None, "", ())}
    return {"default": default, **given} if given else default


# ------------------------------------------------------------------------------------ command line


def commands(parser: argparse.ArgumentParser) -> dict[str, Any]:
    """Describe a parser with its options, group by group, and all commands below it."""
    found: dict[str, Any] = {"name": parser.prog, "description": parser.description}
    below = [a for a in parser._actions if isinstance(a, argparse._SubParsersAction)]
    for group in parser._action_groups:
        options = [_option(action) for action in group._group_actions if action not in below]
        # Python's own groups: their titles change with its version.
        title = "options" if group.title in ("optional arguments", "options") else group.title
        found |= {title: options} if options else {}
    exclusive = [
        {"required": group.required, "one of": [a.option_strings[-1] for a in group._group_actions]}
        for group in parser._mutually_exclusive_groups
    ]
    found |= {"exclusive": exclusive} if exclusive else {}
    for action in below:
        helps = {choice.dest: choice.help for choice in action._choices_actions}
        found["commands"] = {
            name: {"help": helps.get(name), **commands(choice)}
            for name, choice in action.choices.items()
        }
        found |= {"command": action.metavar, "required": action.required}
    return found


KINDS = {
    argparse._StoreTrueAction: "switch",
    argparse.BooleanOptionalAction: "yes or no",
    argparse._HelpAction: "help",
    argparse._VersionAction: "version",
}
TYPES = {int: "whole number", float: "number"}


def _option(action: argparse.Action) -> dict[str, Any]:
    default = action.default
    shown = {
        "flags": " ".join(action.option_strings) or action.dest,
        "kind": KINDS.get(type(action)) or TYPES.get(action.type, "text"),
        "default": default if isinstance(default, bool | int | float) else default and str(default),
        "choices": list(action.choices or ()),
        "metavar": action.metavar,
        "count": action.nargs if action.nargs != 0 else None,
        "required": action.required,
        # Up to version 3.12 Python adds this to the help of an option that has a --no-...
        "help": (action.help or "").removesuffix(" (default: %(default)s)"),
    }
    if default == argparse.SUPPRESS:
        del shown["default"]
    needless = (None, [], "", False)
    return {
        name: value
        for name, value in shown.items()
        if name == "default" or not any(value is empty or value == empty for empty in needless)
    }


# ------------------------------------------------------------------------------------ record files


def read_records(path: Path) -> list[tuple[dict[str, Any], bytes]]:
    """Read a record file as it lies on the disk, without the package: headers and payloads."""
    data = path.read_bytes()
    assert data.startswith(MAGIC), data[:40]
    found, at = [], len(MAGIC)
    while at < len(data):
        length, checksum = struct.unpack_from("<QI", data, at)
        at += struct.calcsize("<QI")
        body = data[at : at + length]
        assert len(body) == length and zlib.crc32(body) == checksum, f"{path.name}, byte {at}"
        (size,) = struct.unpack_from("<I", body)
        packed = body[4 + size :]
        found.append((json.loads(body[4 : 4 + size]), zlib.decompress(packed) if packed else b""))
        at += length
    return found


# ------------------------------------------------------------------------------------ a journal


def paint(journal: Any, labels: Any, window: tuple, new: int, *, clicks: tuple = (), **how) -> None:
    """Paint as the window does: the array first, then its journal."""
    where = tuple(part.ravel() for part in np.mgrid[window])
    old = labels[where]
    if how.get("canvas") != "scribbles":
        labels[where] = new
    edit = journal.edit(where, old, new, labels=labels, **how)
    journal.record(dataclasses.replace(edit, clicks=clicks))


def step(labels: Any, step: Any) -> None:
    """Do what an undo or a redo asks for."""
    if step.edit.canvas == "labels":
        labels[step.where] = step.values


def correct_planes(journal: Any, labels: Any) -> None:
    """Make corrections of every kind in labels of four planes (4, 32, 40), one edit undone."""
    paint(journal, labels, np.s_[0:1, 4:9, 6:14], 7, source="paint")
    paint(journal, labels, np.s_[0:1, 6:7, 0:40], 0, source="erase")
    step(labels, journal.undo())
    step(labels, journal.redo())
    step(labels, journal.undo())
    paint(journal, labels, np.s_[0:1, 20:26, 28:34], 300, source="fill")
    clicks = (((1.0, 22.5, 8.25), True), ((1.0, 30.0, 2.0), False))
    paint(journal, labels, np.s_[1:2, 20:26, 5:12], 8, source="click", clicks=clicks)
    journal.confirm([2], (1,))
    journal.mark("known", (2,))
    journal.mark("unknown", (2,), np.s_[0:10, 0:40])
    journal.mark("known", (1,), np.s_[0:6, 30:40])
    paint(journal, labels, np.s_[1:2, 28:29, 20:38], 1, canvas="scribbles", source="scribble")
    paint(journal, labels, np.s_[1:2, 14:16, 24:30], 2, canvas="scribbles", source="scribble")
    paint(journal, labels, np.s_[3:4, 1:5, 1:5], 9, source="paint")
    journal.mark("dropped", (3,))
    paint(journal, labels, np.s_[2:3, 6:14, 6:14], 0, source="erase")
    step(labels, journal.undo())


def correct_volume(journal: Any, labels: Any) -> None:
    """Correct classes in a volume (4, 24, 28)."""
    paint(journal, labels, np.s_[1:3, 4:9, 6:14], 2, source="paint")
    journal.mark("known", (), np.s_[0:2, 0:24, 14:28], labels=labels)
    paint(journal, labels, np.s_[3:4, 10:12, 2:20], 2, canvas="scribbles", source="scribble")


def history_of(journal: Any) -> dict[str, Any]:
    """Return all that a journal says but the pixels, as plain data."""
    events = []
    for event in journal.history():
        names = ("meaning", "box", "date")
        if hasattr(event, "runs"):
            names = ("source", "canvas", "ids", "confirmed", "pixels", "clicks", "box", "date")
        events.append({name: getattr(event, name) for name in names})
    found = {
        "about": dataclasses.asdict(journal.header),
        "frames": journal.frames(),
        "planes": journal.frames(2),
        "held": journal.holds().tolist(),
        "undoable": journal.undoable,
        "redoable": journal.redoable,
        "marks": [dataclasses.asdict(mark) for mark in journal.marks()],
        "history": events,
    }
    plain: dict[str, Any] = json.loads(json.dumps(found))
    return plain
