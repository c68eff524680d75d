"""Labels of a time-lapse are linked, by overlap or by trackastra."""

from __future__ import annotations

import importlib.machinery
import sys
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest

import napari_unet as nu
from napari_unet.core.errors import InputError, ModelError
from napari_unet.core.tracking import Linker
from napari_unet.nn.inference import linking


def movie(frames=4):
    """Two squares that move, numbered the other way round in every second frame."""
    labels = np.zeros((frames, 40, 60), np.uint16)
    for t in range(frames):
        first, second = (1, 2) if t % 2 else (2, 1)
        labels[t, 5:13, 3 + 2 * t : 11 + 2 * t] = first
        labels[t, 25:33, 30 - 2 * t : 38 - 2 * t] = second
    return labels


def test_numbers_stay_the_same_through_time():
    linked = nu.link_frames(movie())
    assert linked.labels.dtype == np.uint32 and linked.tracks.count == 2
    assert all(len(np.unique(half)) == 2 for half in np.split(linked.labels, 2, axis=1))
    assert isinstance(linked.tracks, nu.Tracks) and not linked.tracks.graph


@pytest.mark.parametrize("largest", [2**32 - 1, 2**62])
def test_labels_of_other_programs_may_be_large_and_have_a_background_below_zero(largest):
    labels = movie().astype(np.int64)
    labels[labels == 2] = largest
    labels[labels == 0] = -1
    linked = nu.link_frames(labels)
    assert linked.tracks.count == 2
    assert np.array_equal(linked.labels, nu.link_frames(movie()).labels)
    assert np.array_equal(nu.link_frames(movie().astype(float)).labels, linked.labels)
    with pytest.raises(InputError, match="Time 0 holds numbers between the labels"):
        nu.link_frames(movie() * 1.5)


def test_frames_are_read_one_by_one_and_two_are_held():
    class Frames:
        shape, read = (50, 40, 60), []

        def __getitem__(self, t):
            self.read.append(t)
            return movie(1)[0]

    frames, out = Frames(), {}
    list(linking.link_steps(frames, "TYX", nu.LinkSettings(link_by="overlap"), out=out))
    assert frames.read == list(range(50)) == list(out)
    linker = Linker()
    for _ in range(20):
        linker.add(movie(1)[0])
    assert linker._before is not None and linker._before.labels.shape == (40, 60)


def test_labels_may_be_renumbered_where_they_lie():
    labels = movie().astype(np.uint32)
    expected = nu.link_frames(labels).labels
    list(linking.link_steps(labels, "TYX", out=labels))
    assert np.array_equal(labels, expected)


def test_a_stack_without_time_is_refused():
    with pytest.raises(InputError, match="TYX or TZYX"):
        nu.link_frames(np.zeros((3, 9, 9), np.uint8), "ZYX")


class TestTrackastra:
    """Its model cannot be had here, so its answer, a graph of nodes, is made by hand."""

    @pytest.fixture
    def trackastra(self, monkeypatch, tmp_path):
        seen = {}

        class Trackastra:
            @classmethod
            def from_folder(cls, folder, device=None):
                seen["folder"] = folder
                return cls()

            def track(self, imgs, masks, mode):
                assert imgs.shape == masks.shape and mode == "greedy"
                nodes, edges = {}, []
                for t, mask in enumerate(masks):
                    for label in np.unique(mask[mask > 0]).tolist():
                        nodes[(t, label)] = {"time": t, "label": label, "coords": (0, 0)}
                        if t:  # the one with the other number, as in the movie
                            edges.append(((t - 1, 3 - label), (t, label)))
                return SimpleNamespace(nodes=nodes, edges=edges), masks

        package, model = ModuleType("trackastra"), ModuleType("trackastra.model")
        package.__spec__ = importlib.machinery.ModuleSpec("trackastra", None)
        model.Trackastra = Trackastra
        monkeypatch.setitem(sys.modules, "trackastra", package)
        monkeypatch.setitem(sys.modules, "trackastra.model", model)
        monkeypatch.setattr(linking, "trackastra_folder", lambda ndim: tmp_path / f"model {ndim}")
        return SimpleNamespace(seen=seen, folder=tmp_path / "model 2")

    def test_its_links_are_taken(self, trackastra):
        trackastra.folder.mkdir()
        labels = movie()
        for way in ("auto", "trackastra"):
            linked = nu.link_frames(labels, settings=nu.LinkSettings(link_by=way), image=labels)
            assert trackastra.seen.pop("folder") == trackastra.folder
            assert np.array_equal(linked.labels, nu.link_frames(labels).labels)

    def test_nothing_is_downloaded(self, trackastra):
        labels = movie()
        assert nu.link_frames(labels, image=labels).tracks.count == 2  # auto: by overlap
        with pytest.raises(ModelError, match="nothing is downloaded"):
            nu.link_frames(labels, settings=nu.LinkSettings(link_by="trackastra"), image=labels)

    def test_it_needs_the_image(self, trackastra):
        trackastra.folder.mkdir()
        with pytest.raises(InputError, match="looks at the image"):
            nu.link_frames(movie(), settings=nu.LinkSettings(link_by="trackastra"))


def test_trackastra_that_is_not_there_is_asked_for(monkeypatch):
    monkeypatch.setattr(linking.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ModelError, match="pip install trackastra"):
        nu.link_frames(movie(), settings=nu.LinkSettings(link_by="trackastra"), image=movie())
