"""Journals with bytes changed, and with records that are whole but say what cannot be."""

from __future__ import annotations

import json
import warnings
import zlib

import numpy as np
import pytest
from hypothesis import strategies as st
from mutations import changed_bytes, changed_json

from napari_unet.core.annotations import append_log
from napari_unet.core.annotations.append_log import JournalWarning, RecordFile
from napari_unet.core.annotations.corrections import list_corrections
from napari_unet.core.annotations.header import find_journals
from napari_unet.core.annotations.journal import Journal
from napari_unet.core.annotations.journal_reader import JournalReader
from napari_unet.core.annotations.mask import read_annotation_mask
from napari_unet.core.io.stack import Stack

SHAPE = (2, 24, 32)


@pytest.fixture
def journal(home):
    """A journal with a record of every kind."""
    stack = Stack(np.arange(np.prod(SHAPE), dtype=np.uint16).reshape(SHAPE), "ZYX")
    labels = np.zeros(SHAPE, np.uint16)
    labels[0, 3:9, 4:12] = 5
    with Journal.begin(stack, labels) as journal:
        for number in range(3):
            mask = np.zeros(SHAPE, bool)
            mask[0, number : number + 4, 2:7] = True
            where = np.nonzero(mask)
            journal.record(journal.edit(where, labels[where], number + 1, source="paint"))
            labels[where] = number + 1
        scribble = (np.array([1, 1]), np.array([3, 4]), np.array([5, 5]))
        journal.record(journal.edit(scribble, 0, 1, canvas="scribbles"))
        journal.confirm([1, 2], (0,))
        journal.mark("known", (1,))
        journal.mark("dropped", (0,), (slice(1, 9), slice(2, 9)))
        journal.undo()
        journal.redo()
        journal.undo()
        path = journal.path
    return path


def read_all(path) -> None:
    """Do with a journal what the window does, for reading and for writing."""
    find_journals()
    list(list_corrections())
    with JournalReader(path) as journal:
        for index in journal.frames():
            journal.replay(index)
            read_annotation_mask(journal, index)
        list(journal.replay_all())
        journal.marks()
    with Journal.open(path) as journal:
        journal.undo()
        journal.redo()


def test_bytes(fuzz, journal) -> None:
    """What comes before the damage is kept: that is tested in core/annotations."""
    whole = journal.read_bytes()

    def check(data) -> None:
        journal.write_bytes(data)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", JournalWarning)
            read_all(journal)

    fuzz(changed_bytes([whole]), check, 150)


def test_records(fuzz, journal) -> None:
    """A checksum says nothing of whoever wrote the record."""
    with RecordFile(journal) as file:
        found = [file.read(offset) for offset, _ in file.scan()]

    @st.composite
    def forged(draw):
        number = draw(st.integers(0, len(found) - 1))
        header = draw(changed_json(json.loads(json.dumps(found[number].header))))
        payload = found[number].payload
        if payload and draw(st.booleans()):
            payload = draw(changed_bytes([payload]))
        return number, header, payload

    def check(drawn) -> None:
        number, header, payload = drawn
        parts = [append_log.MAGIC]
        for place, record in enumerate(found):
            changed = place == number
            head = json.dumps(header if changed else record.header).encode()
            data = payload if changed else record.payload
            body = append_log._HEAD.pack(len(head)) + head + (zlib.compress(data) if data else b"")
            parts.append(append_log._FRAME.pack(len(body), zlib.crc32(body)) + body)
        journal.write_bytes(b"".join(parts))
        read_all(journal)

    fuzz(forged(), check, 200)
