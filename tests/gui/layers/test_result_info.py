from __future__ import annotations

import numpy as np
import pytest
from napari.components import ViewerModel
from napari.layers import Labels

from napari_unet.core.errors import InputError
from napari_unet.gui.layers.label_geometry import Placement
from napari_unet.gui.layers.live_labels import LiveLabels
from napari_unet.gui.layers.result_info import (
    RESULT_KEY,
    ResultInfo,
    empty_labels,
    labels_checksum,
    may_hold_run,
    seal_result,
    update_info,
)
from napari_unet.gui.segment.result_layer import EditsKnown, ResultLayer


def test_the_metadata_keep_their_keys():
    info = ResultInfo("im cells", "im cells", "1", True, [], {"model": "cells"}, checksum=5)
    stored = {
        "base": "im cells", "name": "im cells", "image": "1", "running": True, "runs": [],
        "passport": {"model": "cells"}, "fingerprint": 5,
    }  # fmt: skip
    assert info.to_metadata() == {RESULT_KEY: stored}
    layer = Labels(np.zeros((4, 4), np.uint16), metadata=info.to_metadata())
    assert ResultInfo.from_layer(layer) == info and info.is_result and info.model == "cells"
    update_info(layer, running=None, grown=[3])
    stored.pop("running")
    assert layer.metadata == {RESULT_KEY: {**stored, "grown": [3]}}


def test_a_layer_of_the_users_says_nothing():
    layer = Labels(np.zeros((4, 4), np.uint16))
    assert ResultInfo.from_layer(layer) == ResultInfo() and not ResultInfo().is_result
    assert ResultInfo().to_metadata() == {RESULT_KEY: {}} and layer.metadata == {}


class TestReplacing:
    @pytest.fixture
    def viewer(self):
        viewer = ViewerModel()
        viewer.add_image(np.zeros((4, 8, 8)), name="im", scale=(2, 1, 1))
        return viewer

    def open(self, viewer, model="nuclei", meanwhile=lambda layer: None):
        """Open the layer of a run; do something to earlier ones before it is chosen."""
        placement = Placement("ZYX", "ZYX", (4, 8, 8))
        live = LiveLabels(empty_labels((4, 8, 8)), 2)
        earlier = [layer for layer in viewer.layers if isinstance(layer, Labels)]
        opening = ResultLayer(viewer, viewer.layers["im"], f"im {model}", placement, live)
        for item in opening.steps():
            if isinstance(item, EditsKnown):
                for layer in earlier:
                    meanwhile(layer)
                opening.answer(item)
        opening.close()
        return opening, live.array

    def run(self, viewer, value=1, **options):
        opening, array = self.open(viewer, **options)
        assert not opening.layer.editable
        array[:] = value
        seal_result(opening.layer, {"model": value}, whole=True)
        return opening.layer, opening.is_new

    def test_an_untouched_result_is_used_again(self, viewer):
        first, new = self.run(viewer)
        assert new and first.name == "im nuclei" and first.data.dtype == np.uint16
        assert first.editable and first.metadata[RESULT_KEY]["passport"] == {"model": 1}
        viewer.layers["im"].scale = (3, 1, 1)
        second, new = self.run(viewer, 2)
        assert second is first and not new and (second.data == 2).all()
        assert second.metadata[RESULT_KEY]["runs"] == [{"model": 2}]
        assert second.scale.tolist() == [3, 1, 1]

    def test_runs_over_parts_are_listed(self, viewer):
        layer, _ = self.run(viewer)
        self.open(viewer)
        seal_result(layer, {"model": 2}, whole=False)
        assert layer.metadata[RESULT_KEY]["runs"] == [{"model": 1}, {"model": 2}]

    @pytest.mark.parametrize(
        "edit",
        [
            lambda layer: layer.paint((1, 4, 4), 9),
            lambda layer: layer.fill((1, 4, 4), 9),
            lambda layer: layer.data_setitem((np.array([0]),) * 3, 9),
            lambda layer: layer.data.__setitem__((3, 7, 7), 9),
            lambda layer: setattr(layer, "data", np.full((4, 8, 8), 3, np.uint16)),
            lambda layer: setattr(layer, "data", layer.data.astype(np.int32)),
            lambda layer: setattr(layer, "name", "mine"),
        ],
    )
    def test_an_edited_or_renamed_result_is_kept(self, viewer, edit):
        first, _ = self.run(viewer)
        edit(first)
        kept = first.data.copy()
        second, new = self.run(viewer, 2)
        assert new and second is not first
        assert np.array_equal(first.data, kept) and (second.data == 2).all()
        third, new = self.run(viewer, 3)  # and the new one is replaced in its turn
        assert third is second and not new

    def test_an_edit_while_it_is_looked_for_edits_is_kept(self, viewer):
        first, _ = self.run(viewer)
        second, new = self.run(viewer, 2, meanwhile=lambda layer: layer.paint((1, 4, 4), 9))
        assert new and second is not first and first.data[1, 4, 4] == 9 and first.editable

    def test_a_result_that_is_renamed_while_it_is_looked_for_edits_is_kept(self, viewer):
        first, _ = self.run(viewer)
        second, new = self.run(viewer, 2, meanwhile=lambda layer: setattr(layer, "name", "mine"))
        assert new and second is not first and (first.data == 1).all() and first.editable

    def test_another_slice_meanwhile_is_no_edit(self, viewer):
        first, _ = self.run(viewer)
        looks = iter([2])
        second, _ = self.run(
            viewer, 2, meanwhile=lambda _: viewer.dims.set_point(0, next(looks, 2))
        )
        assert second is first

    def test_an_edit_that_was_undone_is_none(self, viewer):
        first, _ = self.run(viewer)
        first.paint((1, 4, 4), 9)
        first.undo()
        second, _ = self.run(viewer, 2)
        assert second is first
        second.undo()  # the old strokes are forgotten
        second.redo()
        assert (second.data == 2).all()

    def test_other_models_and_images_have_their_own(self, viewer):
        viewer.add_image(np.zeros((4, 8, 9)), name="im other")
        first, _ = self.run(viewer)
        assert not may_hold_run(first, "im other", (4, 8, 8))
        assert not may_hold_run(first, "im nuclei", (4, 8, 9))
        assert may_hold_run(first, "im nuclei", (4, 8, 8))

    def test_labels_beyond_memory(self, viewer, monkeypatch):
        def no_memory(*_):
            raise MemoryError

        monkeypatch.setattr(np, "zeros", no_memory)
        with pytest.raises(InputError, match=r"4 x 8 x 8 .* do not fit into memory"):
            empty_labels((4, 8, 8))


def test_labels_checksum(monkeypatch):
    data = np.arange(4 * 8 * 8, dtype=np.uint16).reshape(4, 8, 8)
    same = np.ascontiguousarray(data.transpose(2, 1, 0)).transpose(2, 1, 0)
    assert labels_checksum(data) == labels_checksum(same)
    other = data.copy()
    other[3, 7, [6, 7]] = other[3, 7, [7, 6]]
    assert labels_checksum(other) != labels_checksum(data)
    monkeypatch.setattr("napari_unet.gui.layers.result_info._WHOLE_CHECK_BYTES", data.nbytes // 2)
    assert labels_checksum(other) == labels_checksum(data)  # sampled: every other plane
    other[2] += 1
    assert labels_checksum(other) != labels_checksum(data)
