"""Runs of the panel that go block by block to the disk."""

from __future__ import annotations

import dask.array as da
import numpy as np
import pytest
import zarr
from format_samples import fill_ome_zarr
from napari.layers import _layer_actions

from napari_unet.core.errors import InputError
from napari_unet.core.progress import run_to_end
from napari_unet.core.settings.tasks import PredictSettings
from napari_unet.gui.layers.label_geometry import find_label_geometry
from napari_unet.gui.layers.result_info import RESULT_KEY, ResultInfo, is_unedited
from napari_unet.gui.open_files import read_files, show_files
from napari_unet.gui.segment import block_run as largerun


@pytest.fixture
def discs():
    y, x = np.mgrid[:150, :170]
    centres = [(20, 20), (20, 60), (60, 30), (64, 64), (45, 90), (127, 130)]
    image = np.zeros(y.shape, np.float32)
    for cy, cx in centres:
        image[(y - cy) ** 2 + (x - cx) ** 2 < 100] = 1
    return image


@pytest.fixture
def panel(real_panel):
    return real_panel


@pytest.fixture
def _apart(monkeypatch):
    """Each frame is a block of its own, so that a run can be left between them."""
    monkeypatch.setattr("napari_unet.core.blockwise.blocks.BATCH_PIXELS", 1)


@pytest.mark.parametrize("kind", ["numpy", "dask", "zarr"])
def test_labels_are_written_where_the_user_says(
    viewer, panel, real, discs, finish, tmp_path, kind, same_objects
):
    from napari_unet.nn.inference.segment import segment

    data = {"numpy": discs, "dask": da.from_array(discs, chunks=64)}.get(kind)
    if data is None:
        data = zarr.create_array(str(tmp_path / "im.zarr"), data=discs, chunks=(64, 64))
    viewer.add_image(data, name="im", scale=(0.5, 0.5))
    panel.form.save_in.value = str(tmp_path / "labels.zarr")
    panel.run()
    finish(panel, timeout=60_000)
    layer = viewer.layers["im real"]
    whole = segment(discs, real, PredictSettings(tile=32))
    assert whole.max() == 6 and same_objects(layer.data, whole)
    assert tuple(layer.scale) == (0.5, 0.5) and layer.editable
    written = zarr.open_array(str(tmp_path / "labels.zarr" / "0"), mode="r")
    assert np.array_equal(written[...], layer.data)
    assert panel.status.text().endswith(f"Saved in {tmp_path / 'labels.zarr'}.")
    assert layer.metadata[RESULT_KEY]["passport"]["blocks"] == 1
    assert is_unedited(layer, ResultInfo.from_layer(layer))
    panel.run()  # a finished result is not replaced
    finish(panel, timeout=60_000)
    assert "exists already" in panel.status.text()


@pytest.mark.usefixtures("_apart")
def test_a_cancelled_run_goes_on_where_it_was_left(
    viewer, panel, real, discs, finish, tmp_path, qtbot, same_objects
):
    from napari_unet.nn.inference.segment import segment

    stack = np.stack([discs] * 40)
    viewer.add_image(stack, name="im", axis_labels=("t", "y", "x"))
    panel.form.save_in.value = str(tmp_path / "labels.zarr")
    panel.run()
    qtbot.waitUntil(lambda: panel.active is None or panel.active.layer is not None, timeout=60_000)
    assert panel.active is not None
    shown = viewer.layers["im real"]
    assert isinstance(shown.data, zarr.Array) and not shown.editable
    panel.cancel()
    finish(panel, timeout=60_000)
    assert "Run again to go on" in panel.status.text()
    assert len(list((tmp_path / ".labels.zarr.unfinished" / "blocks").rglob("*.blk"))) >= 1
    panel.run()
    finish(panel, timeout=60_000)
    whole = segment(stack, real, PredictSettings(tile=32, volumes="planes"))
    assert [layer.name for layer in viewer.layers] == ["im", "im real"]
    found = viewer.layers["im real"].data
    assert isinstance(found, np.ndarray)
    assert all(same_objects(a, b) for a, b in zip(found, whole, strict=True))


def test_a_run_that_ended_at_a_full_disk_goes_on_in_its_layer(
    viewer, panel, discs, finish, tmp_path, monkeypatch
):
    def full(*_):
        raise OSError(28, "No space left on device")

    viewer.add_image(discs, name="im")
    panel.form.save_in.value = str(tmp_path / "labels.zarr")
    with monkeypatch.context() as patch:
        patch.setattr("napari_unet.core.io.ome_zarr_labels.LabelImage.sync", full)
        panel.run()
        finish(panel, timeout=60_000)
    said = panel.status.text()
    assert "labels.zarr cannot be written: No space left on device; free some space" in said
    assert "Run again to go on" in said
    panel.run()  # all blocks are there: nothing is shown before the end
    finish(panel, timeout=60_000)
    assert [layer.name for layer in viewer.layers] == ["im", "im real"]
    assert viewer.layers["im real"].data.max() == 6


@pytest.mark.usefixtures("_apart")
def test_other_settings_begin_anew_what_was_left(viewer, panel, discs, finish, tmp_path, qtbot):
    viewer.add_image(np.stack([discs] * 40), name="im", axis_labels=("t", "y", "x"))
    panel.form.save_in.value = str(tmp_path / "labels.zarr")
    panel.run()
    qtbot.waitUntil(lambda: panel.active is None or panel.active.layer is not None, timeout=60_000)
    panel.cancel()
    finish(panel, timeout=60_000)
    panel.form.advanced.restore({"tile": 32, "threshold": 0.7})
    panel.run()
    finish(panel, timeout=60_000)
    assert "Saved in" in panel.status.text()


def test_a_run_that_is_cancelled_before_it_begins(viewer, panel, discs, finish, tmp_path):
    viewer.add_image(discs, name="im")
    panel.form.save_in.value = str(tmp_path / "labels.zarr")
    panel.run()
    panel.cancel()
    finish(panel, timeout=60_000)
    assert panel.status.text().startswith("Cancelled.")


def test_labels_that_memory_would_not_hold_go_to_the_users_data(
    viewer, panel, discs, finish, home, monkeypatch
):
    monkeypatch.setattr(largerun, "IN_MEMORY", 1000)
    viewer.add_image(discs, name="im")
    for name in ("im real.zarr", "im real 2.zarr"):
        panel.run()
        finish(panel, timeout=60_000)
        assert panel.status.text().endswith(f"{name}.")
    layer = viewer.layers[-1]
    assert isinstance(layer.data, zarr.Array) and not layer.editable
    assert len(np.unique(layer.data[...])) == 7


def test_wide_planes_are_shown_from_coarser_levels(
    viewer, panel, finish, tmp_path, monkeypatch, qtbot
):
    monkeypatch.setattr(largerun, "IN_MEMORY", 1000)
    monkeypatch.setattr(largerun, "COARSEST", 64)
    monkeypatch.setattr("napari_unet.core.io.ome_zarr_labels.COARSEST", 64)
    image = np.zeros((40, 150, 170), np.float32)
    image[:, 20:50, 30:60] = image[:, 90:120, 90:120] = 1
    monkeypatch.setattr("napari_unet.core.blockwise.blocks.BATCH_PIXELS", 1)
    viewer.add_image(image, name="im", axis_labels=("t", "y", "x"))
    panel.run()
    qtbot.waitUntil(lambda: panel.active is None or panel.active.layer is not None, timeout=60_000)
    layer = panel.active.layer
    assert [level.shape[1:] for level in layer.data] == [(150, 170), (75, 85), (38, 43)]
    finish(panel, timeout=60_000)
    assert layer in viewer.layers and len(viewer.layers) == 2
    assert "labels" not in layer.metadata[RESULT_KEY] and not layer.editable
    fine, coarse, coarsest = (np.asarray(level[7]) for level in layer.data)
    assert len(np.unique(fine)) == 3
    assert np.array_equal(coarse, fine[::2, ::2]) and np.array_equal(coarsest, fine[::4, ::4])
    with pytest.raises(InputError, match="but not edited"):
        find_label_geometry(viewer.layers["im"], layer)


def write_ome_zarr(path, image):
    group = zarr.open_group(str(path), mode="w", zarr_format=3)
    for level in range(2):
        part = image[:: 2**level, :: 2**level]
        group.create_array(str(level), data=part, chunks=(64, 64), dimension_names=["y", "x"])
    data = [
        {"path": str(n), "coordinateTransformations": [{"type": "scale", "scale": [2.0**n] * 2}]}
        for n in range(2)
    ]
    axes = [{"name": a, "type": "space"} for a in "yx"]
    images = [{"name": "image", "axes": axes, "datasets": data}]
    group.attrs["ome"] = {"version": "0.5", "multiscales": images}
    return group


@pytest.mark.parametrize("how", ["opened", "level opened", "array", "dask", "multiscale"])
def test_results_go_into_the_ome_zarr_that_a_layer_shows(
    viewer, panel, discs, finish, tmp_path, monkeypatch, how
):
    monkeypatch.setattr(largerun, "IN_MEMORY", 1000)
    path = tmp_path / "cells.zarr"
    group = write_ome_zarr(path, discs)
    if how == "opened":
        viewer.open(str(path), plugin="napari")
    elif how == "level opened":
        viewer.open(str(path / "0"), plugin="napari")
    elif how == "multiscale":
        viewer.add_image([da.from_zarr(group[name]) for name in "01"], name="cells")
    else:
        viewer.add_image(group["0"] if how == "array" else da.from_zarr(group["0"]), name="cells")
    panel.run()
    finish(panel, timeout=60_000)
    assert panel.status.text().endswith(f"Saved in {path / 'labels' / 'real'}.")
    assert list(group["labels"].attrs["ome"]["labels"]) == ["real"]


def test_results_of_a_zarr_array_go_beside_it(viewer, panel, discs, finish, tmp_path, monkeypatch):
    monkeypatch.setattr(largerun, "IN_MEMORY", 1000)
    data = zarr.create_array(str(tmp_path / "im.zarr"), data=discs, chunks=(64, 64))
    viewer.add_image(data, name="im")
    panel.run()
    finish(panel, timeout=60_000)
    assert panel.status.text().endswith(f"Saved in {tmp_path / 'im real.zarr'}.")


def test_what_a_layer_makes_of_a_zarr_stays_with_the_users_data(
    viewer, panel, discs, finish, tmp_path, home, monkeypatch
):
    monkeypatch.setattr(largerun, "IN_MEMORY", 1000)
    group = write_ome_zarr(tmp_path / "cells.zarr", discs)
    viewer.add_image(da.from_zarr(group["0"])[:100], name="crop")
    viewer.add_image(group["1"], name="coarse")
    layers = list(viewer.layers)
    stack = zarr.create_group(str(tmp_path / "stack.zarr"))
    fill_ome_zarr(stack, np.stack([discs] * 2), "ZYX")
    viewer.layers.selection.active = show_files(
        viewer, run_to_end(read_files(tmp_path / "stack.zarr"))
    )
    _layer_actions._project(viewer.layers)  # Layers > Project, which keeps the metadata
    for layer in [*layers, viewer.layers[-1]]:
        panel.form.image.value = layer
        panel.run()
        finish(panel, timeout=60_000)
        assert panel.status.text().endswith(f"{layer.name} real.zarr.")
    assert "labels" not in group and "labels" not in stack


def test_a_cluster_that_is_not_there_is_said(viewer, panel, discs, finish, tmp_path, monkeypatch):
    monkeypatch.setattr("napari_unet.nn.blockwise.cluster.PATIENCE", 0.5)
    viewer.add_image(discs, name="im")
    panel.form.save_in.value = str(tmp_path / "labels.zarr")
    panel.form.scheduler.value = "tcp://127.0.0.1:9"
    panel.run()
    finish(panel, timeout=60_000)
    assert "tcp://127.0.0.1:9" in panel.status.text()
    assert len(viewer.layers) == 1
