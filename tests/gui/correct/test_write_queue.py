"""From napari's paint events to pixels; on layers alone, without a window."""

from __future__ import annotations

import functools

import numpy as np
import pytest
from napari.layers import Labels

from napari_unet.core.errors import OutputError
from napari_unet.gui.correct import write_queue
from napari_unet.gui.correct.write_queue import WriteQueue, get_changed_pixels, get_source


@pytest.fixture
def told():
    return []


@pytest.fixture
def layer(told):
    data = np.zeros((3, 20, 24), np.uint16)
    data[:, 4:9, 4:9] = 1
    layer = Labels(data)
    layer.events.paint.connect(lambda event: told.append(event.value))
    layer.brush_size = 5
    return layer


def changed(before, after):
    return tuple(part.tolist() for part in np.nonzero(before != after))


def applied(before, pixels):
    out = before.copy()
    assert np.array_equal(out[pixels.where], pixels.old)
    out[pixels.where] = pixels.new
    return out


def test_a_stroke_of_many_dabs_is_one(layer, told):
    before = layer.data.copy()
    with layer.block_history():
        for x in range(2, 16, 2):
            layer.paint((0, 6, x), 7)
    (atoms,) = told
    assert len(atoms) > 3
    pixels = get_changed_pixels(atoms, before.shape)
    assert np.array_equal(applied(before, pixels), layer.data)
    assert set(zip(*(part.tolist() for part in pixels.where), strict=True)) == set(
        zip(*changed(before, layer.data), strict=True)
    )
    assert get_source(atoms, "paint") == "paint"


def test_a_fill_in_every_slice(layer, told):
    before = layer.data.copy()
    layer.n_edit_dimensions = 3
    layer.fill((0, 5, 5), 9)
    pixels = get_changed_pixels(told[0], before.shape)
    assert np.array_equal(applied(before, pixels), layer.data)
    assert len(pixels.old) == 75


def test_values_that_a_program_sets(layer, told):
    before = layer.data.copy()
    where = (np.array([0, 1, 1]), np.array([5, -1, 5]), np.array([5, 2, -20]))
    layer.data_setitem(where, np.array([3, 4, 1]))
    pixels = get_changed_pixels(told[0], before.shape)
    assert np.array_equal(applied(before, pixels), layer.data)
    assert sorted(pixels.new.tolist()) == [3, 4]
    assert min(part.min() for part in pixels.where) >= 0
    assert get_source(told[0], "paint") == "set"


def test_what_changes_nothing_is_not_told(layer, told):
    layer.fill((0, 5, 5), 1)
    assert told == []
    assert len(get_changed_pixels([], layer.data.shape).old) == 0


def test_after_an_error_of_the_disk_it_is_tried_again_by_itself(qtbot, monkeypatch):
    monkeypatch.setattr(write_queue, "RETRY_MS", 5)
    queue, full, written = WriteQueue(), [1, 1], []

    def write(name):
        if full:
            full.pop()
            raise OutputError("the disk is full.")
        written.append(name)

    for name in "ab":
        queue.put(functools.partial(write, name))
    qtbot.waitUntil(lambda: queue.error is not None)
    assert queue.pending == 2 and not written
    qtbot.waitUntil(lambda: not queue.pending)
    assert written == ["a", "b"] and queue.error is None
