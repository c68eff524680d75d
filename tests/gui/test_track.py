"""The Link section: labels of a time-lapse become linked labels and tracks."""

from __future__ import annotations

import numpy as np
import pytest
from napari.components import ViewerModel
from napari.layers import Labels, Tracks

from napari_unet.gui.track import LinkSection


def dividing():
    """One square that moves, and one that divides in frame 3; numbered at random."""
    labels, rng = np.zeros((5, 60, 80), np.uint16), np.random.default_rng(0)
    for t, frame in enumerate(labels):
        places = [(5, 5 + 3 * t, 10)]
        places += [(38, 40, 12)] if t < 3 else [(34, 42, 8), (46, 42, 8)]
        for number, (y, x, size) in zip(rng.permutation(3) + 1, places, strict=False):
            frame[y : y + size, x : x + size] = number
    return labels


@pytest.fixture
def viewer():
    """The model of a window, which opens in no time."""
    return ViewerModel()


@pytest.fixture
def section(viewer, qtbot):
    section = LinkSection(viewer)
    qtbot.addWidget(section)
    section.collapsible.open()
    return section


@pytest.fixture
def link(section, qtbot):
    def wait():
        section.start.native.click()
        qtbot.waitUntil(lambda: section.active is None, timeout=10_000)

    return wait


def test_labels_and_tracks_appear(viewer, section, link):
    place = {"scale": (1, 0.5, 0.5), "translate": (0, 3, 4), "units": ("pixel", "um", "um")}
    viewer.add_labels(dividing(), name="cells", **place)
    link()
    labels, tracks = viewer.layers["cells linked"], viewer.layers["cells tracks"]
    assert isinstance(labels, Labels) and isinstance(tracks, Tracks)
    assert section.result.text() == "4 tracks, 1 division."
    assert labels.data.dtype == np.uint16 and len(np.unique(labels.data)) == 5
    moving = np.unique(labels.data[:, :20])
    assert len(moving) == 2
    assert sorted(len(parents) for parents in tracks.graph.values()) == [1, 1]
    (mother,) = {parent for (parent,) in tracks.graph.values()}
    assert (labels.data[2, 38:50, 40:52] == mother).all()
    for layer in (labels, tracks):
        assert np.allclose(layer.scale, place["scale"])
        assert np.allclose(layer.translate, place["translate"])
    here = tracks.data[tracks.data[:, 0] == moving[1]]
    assert np.allclose(here[:, 1:], [[t, 9.5, 9.5 + 3 * t] for t in range(5)])
    link()  # what was not edited is replaced
    assert len(viewer.layers) == 3 and labels not in viewer.layers
    viewer.layers["cells linked"].paint((0, 1, 1), 9)
    link()
    assert len([layer for layer in viewer.layers if layer.name.startswith("cells linked")]) == 2


def test_volumes_through_time(viewer, section, link):
    data = np.repeat(dividing()[:, None], 4, axis=1)
    viewer.add_labels(data, name="v", scale=(1, 2, 0.5, 0.5))
    link()
    assert viewer.layers["v tracks"].data.shape[1] == 5
    assert section.result.text().startswith("4 tracks")


def test_without_objects_nothing_is_added(viewer, section, link):
    viewer.add_labels(np.zeros((3, 20, 20), np.uint8), name="empty")
    link()
    assert [layer.name for layer in viewer.layers] == ["empty"]
    assert "no objects" in section.result.text()


def test_a_z_stack_is_refused_in_words(viewer, section, link):
    labels = viewer.add_labels(dividing(), name="stack")
    labels.axis_labels = ("z", "y", "x")
    link()
    assert "axes ZYX" in section.result.text()
    assert len(viewer.layers) == 1


def test_planes_alone_have_no_button_but_a_hint(viewer, section):
    assert not section.start.enabled
    viewer.add_labels(np.zeros((9, 9), np.uint8))
    assert not section.start.enabled and section.result.text().startswith("Open the labels")
    movie = viewer.add_labels(dividing())
    assert section.start.enabled and section.result.text() == ""
    viewer.layers.remove(movie)
    assert section.result.text().startswith("Open the labels")
