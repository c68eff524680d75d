"""Journals whose records are whole, and say what cannot be: refused in a sentence, none is lost."""

from __future__ import annotations

import os
import zlib
from typing import TYPE_CHECKING

import numpy as np
import pytest

from napari_unet.core.annotations import append_log
from napari_unet.core.annotations.append_log import Record, RecordFile, first_header, write_records
from napari_unet.core.annotations.corrections import list_corrections
from napari_unet.core.annotations.header import JournalHeader, find_journals
from napari_unet.core.annotations.journal import Journal
from napari_unet.core.annotations.journal_reader import JournalReader
from napari_unet.core.errors import InputError
from napari_unet.core.io.stack import Stack

if TYPE_CHECKING:
    from pathlib import Path

LABELS = np.zeros((3, 20, 30), np.uint16)


@pytest.fixture
def records(home) -> tuple[Path, list[Record]]:
    """A journal of a stack with an edit, a mark and an undo, and its records."""
    stack = Stack(np.arange(LABELS.size, dtype=np.uint16).reshape(LABELS.shape), "ZYX")
    labels = LABELS.copy()
    with Journal.begin(stack, labels) as journal:
        where = (np.array([1, 1]), np.array([4, 5]), np.array([6, 6]))
        labels[where] = 7
        journal.record(journal.edit(where, [0, 0], [7, 7], source="paint"))
        journal.mark("known", (1,))
        journal.undo()
        journal.redo()
        path = journal.path
    with RecordFile(path) as file:
        found = [file.read(offset) for offset, _ in file.scan()]
    assert [record.header["kind"] for record in found[-4:]] == ["edit", "known", "undo", "redo"]
    return path, found


def read_all(path: Path) -> None:
    """Do what the window does with a journal."""
    with JournalReader(path) as journal:
        for index in journal.frames():
            journal.replay(index)
            journal.history(index)
        list(journal.replay_all())
    list(list_corrections())


def forge(path: Path, records: list[Record], which: str, /, **changes) -> None:
    """Write the journal with the fields of one record changed; None removes a field."""
    number = next(n for n, record in enumerate(records) if record.header["kind"] == which)
    header = {**records[number].header, **changes}
    header = {key: value for key, value in header.items() if value is not ...}
    forged = Record(header, changes.get("payload", records[number].payload))
    header.pop("payload", None)
    write_records(path, [*records[:number], forged, *records[number + 1 :]])


FORGED = [
    *[("begin", "shape", v) for v in ([], [0, 5], [-1, 20, 30], ["a", 2, 3], [2**40] * 3, [2] * 9)],
    *[("begin", "axes", v) for v in ("YX", "YXZ", "QYX", 5, "ZYXX")],
    *[("begin", "dtype", v) for v in ("<f4", "|O", "V9", 5, "object", "<u2,<u2")],
    *[("begin", "ndim", v) for v in (0, 4, "2", None)],
    *[("begin", "date", v) for v in ("now", float("nan"), [1])],
    *[("begin", "path", v) for v in (5, "a\0b", "\ud800")],
    ("begin", "head", "body"),
    ("begin", "whole", "yes"),
    ("begin", "wings", 2),
    ("begin", "kind", 5),
    *[("base", "plane", v) for v in (-1, 3, "0", 1.5, 2**70, ...)],
    *[("base", "row", v) for v in (-1, 20, "0", ...)],
    *[("base", "payload", v) for v in (b"abc", b"\0" * 60 * 21)],
    *[("edit", "box", v) for v in (5, [[1, 2]], [[1, 2], [4, 6], [6, 999]], [[2, 1]] * 3, [["a"]])],
    *[("edit", "most", v) for v in (-1, "9", 2**80, None)],
    *[("edit", "date", v) for v in ("now", None)],
    *[("edit", "canvas", v) for v in ("wall", 5, [1])],
    *[("edit", "confirmed", v) for v in (5, ["a"], [-1])],
    *[("edit", "clicks", v) for v in (5, [5], [["a", 1]])],
    *[("edit", "source", v) for v in (5, "\ud800", ...)],
    *[("edit", "kind", v) for v in (5, ..., None)],
    *[("known", "box", v) for v in ([], [[0, 9]] * 3, "all")],
    ("known", "date", "now"),
]
RUNS = [
    [[10**9, 1, 0, 7]],
    [[-5, 1, 0, 7]],
    [[5, 10**12, 0, 7]],
    [[5, -1, 0, 7]],
    [[5, 3, 0, 7], [6, 1, 0, 7]],
    [[5, 1, -1, 7]],
    [[2**62, 2**62, 0, 1], [2**62, 2**62, 0, 1]],
]


@pytest.mark.parametrize(("kind", "field", "value"), FORGED, ids=ascii)
def test_a_field_that_cannot_be_is_refused(records, kind, field, value) -> None:
    path, found = records
    forge(path, found, kind, **{field: value})
    with pytest.raises(InputError, match=r"damaged|does not know") as error:
        read_all(path)
    str(error.value).encode()
    list(list_corrections())  # others are not held up
    find_journals()


@pytest.mark.parametrize("runs", RUNS, ids=str)
def test_pixels_outside_the_labels_are_refused(records, runs) -> None:
    path, found = records
    columns = np.array(runs, np.int64).T.copy()
    columns[0, 1:] = np.diff(columns[0])
    forge(path, found, "edit", payload=columns.astype("<i8").tobytes())
    with pytest.raises(InputError, match="damaged"):
        read_all(path)


def test_an_undo_of_nothing_is_refused(records) -> None:
    path, found = records
    write_records(path, [*found, Record({"kind": "undo"}), Record({"kind": "undo"})])
    with pytest.raises(InputError, match="damaged at byte"):
        read_all(path)


def test_a_payload_that_never_ends_takes_no_memory(records, monkeypatch) -> None:
    path, found = records
    monkeypatch.setattr(append_log, "LARGEST_PAYLOAD", 2**16)
    forge(path, found, "edit", payload=bytes(2**20))
    with pytest.raises(InputError, match="damaged at byte"):
        read_all(path)
    packed = zlib.compress(b"x" * 99)[:-5]
    assert packed
    with pytest.raises(ValueError, match="cut short"):
        append_log._payload(append_log._HEAD.pack(2) + b"{}" + packed)


@pytest.mark.parametrize("body", [b"[]", b"5", b"{", b"\xff", b"[" * 100_000, b""], ids=len)
def test_a_header_that_is_no_header(records, body) -> None:
    path, _ = records
    inside = append_log._HEAD.pack(len(body)) + body
    frame = append_log._FRAME.pack(len(inside), zlib.crc32(inside))
    path.write_bytes(append_log.MAGIC + frame + inside)
    assert first_header(path) is None
    with pytest.raises(InputError):
        JournalReader(path)
    assert find_journals() == []


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="Windows has no named pipes in folders")
def test_a_pipe_among_the_journals_is_not_waited_for(records) -> None:
    path, _ = records
    pipe = path.with_name("pipe.journal")
    os.mkfifo(pipe)
    assert [file.path for file in find_journals()] == [path]
    with pytest.raises(InputError, match="is no file"):
        JournalReader(pipe)


def test_labels_larger_than_the_memory_are_not_begun(records) -> None:
    path, found = records
    huge = {"shape": [2**20, 2**14, 2**14], "whole": False}
    forge(path, found, "begin", **huge)
    with JournalReader(path) as journal, pytest.raises(InputError, match="more than the memory"):
        journal.replay()


def test_every_field_that_is_written_is_read(records) -> None:
    path, found = records
    header = JournalHeader.from_header(found[0].header)
    assert header.shape == LABELS.shape and header.record().header["shape"] == LABELS.shape
    read_all(path)
