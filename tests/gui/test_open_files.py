"""Opening images with their labels, from the menu and from the terminal."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import tifffile
import zarr
from napari.components import ViewerModel
from napari.layers import Image
from qtpy.QtWidgets import QFileDialog

from napari_unet.cli import main
from napari_unet.gui import mask_labels, open_files
from napari_unet.gui.layers.convert import layer_stack
from napari_unet.gui.layers.result_info import IMAGE, RESULT_KEY, ResultInfo, is_unedited
from napari_unet.gui.samples import (
    open_fluorescence_sample,
    open_histology_sample,
    open_neuron_sample,
    open_phase_contrast_sample,
)
from napari_unet.gui.shared_inputs import channel_names


def spots(shape=(3, 64, 80)):
    image = np.zeros(shape, np.uint16)
    image[:, 10:20, 10:20], image[1:, 40:55, 50:70] = 900, 600
    return image


def actions(menu, title):
    """Find the entries of a menu, and of the menus in it, that begin with a title."""
    menu.aboutToShow.emit()
    found = []
    for action in menu.actions():
        if action.menu() is not None:
            found += actions(action.menu(), title)
        elif action.text().startswith(title):
            found.append(action)
    return found


@pytest.fixture
def embryo(tmp_path):
    """An OME-Zarr of two levels with two label images, one of them of another size."""
    path, image = tmp_path / "embryo.ome.zarr", spots()
    axes = [{"name": a, "type": "space", "unit": "micrometer"} for a in "zyx"]

    def write(folder, values):
        group, datasets = zarr.open_group(str(folder), mode="w", zarr_format=3), []
        for level, factor in (("0", 1), ("1", 2)):
            group.create_array(level, data=values[:, ::factor, ::factor], chunks=(1, 32, 32))
            scale = [2.0, 0.5 * factor, 0.5 * factor]
            steps = [{"type": "scale", "scale": scale}]
            datasets.append({"path": level, "coordinateTransformations": steps})
        images = [{"axes": axes, "datasets": datasets}]
        group.attrs["ome"] = {"version": "0.5", "multiscales": images}
        return group

    write(path, image)
    names = {"labels": ["nuclei", "part", "gone"]}
    zarr.open_group(str(path / "labels"), mode="w").attrs["ome"] = {"version": "0.5", **names}
    write(path / "labels" / "nuclei", (image > 0).astype(np.uint16))
    write(path / "labels" / "part", (image[:, :32] > 0).astype(np.uint16))
    return path


@pytest.fixture
def viewer():
    """The model of a window, which opens in no time."""
    return ViewerModel()


@pytest.fixture
def opened(make_napari_viewer, embryo, monkeypatch, qtbot):
    """Choose the OME-Zarr in the dialog of the menu's command; return the viewer's layers."""
    viewer = make_napari_viewer()
    monkeypatch.setattr(QFileDialog, "getExistingDirectory", lambda *_: str(embryo))
    warned = []
    monkeypatch.setattr(open_files, "show_warning", warned.append)

    def choose():
        [action] = actions(viewer.window.file_menu, "Open an OME-Zarr with its labels")
        action.trigger()
        qtbot.waitUntil(lambda: bool(warned))
        assert len(warned) == 1 and "part" in warned[0] and "(3, 32, 80)" in warned[0]
        return viewer.layers

    return choose


def test_an_ome_zarr_with_labels_in_it(opened, embryo):
    image, labels = opened()
    assert (image.name, labels.name) == ("embryo", "embryo nuclei")
    assert np.array_equal(image.data, spots()) and np.array_equal(labels.data, spots() > 0)
    for layer in (image, labels):
        assert layer.scale.tolist() == [2, 0.5, 0.5]
        assert [str(unit) for unit in layer.units] == ["micrometer"] * 3
        assert layer.axis_labels == ("z", "y", "x")
    assert labels.metadata[RESULT_KEY][IMAGE] == str(image.unique_id)
    assert labels.editable and is_unedited(labels, ResultInfo.from_layer(labels))


def test_what_is_large_stays_on_the_disk_with_all_its_levels(opened, monkeypatch):
    monkeypatch.setattr(open_files, "IN_MEMORY", 1000)
    image, labels = opened()
    for layer, values in ((image, spots()), (labels, spots() > 0)):
        assert layer.multiscale and [level.shape for level in layer.data] == [
            (3, 64, 80),
            (3, 32, 40),
        ]
        assert np.array_equal(np.asarray(layer.data[0]), values)
        assert np.array_equal(np.asarray(layer.data[1]), values[:, ::2, ::2])
    assert not labels.editable


@pytest.mark.parametrize(
    ("unit", "shown"),
    [("second", "second"), ("blink", "pixel"), ("", "pixel"), ("a b (", "pixel"), (None, "pixel")],
)
def test_a_movie_lies_where_its_metadata_say(terminal, viewer, tmp_path, unit, shown):
    group = zarr.open_group(str(tmp_path / "movie.zarr"), mode="w")
    group.create_array("0", data=spots(), chunks=(1, 32, 32))
    axes = [{"name": "t", "type": "time", "unit": unit}]
    axes += [{"name": a, "type": "space", "unit": "nanometer"} for a in "yx"]
    steps = [
        {"type": "scale", "scale": [5.0, 250.0, 250.0]},
        {"type": "translation", "translation": [20.0, 1000.0, 2000.0]},
    ]
    data = [{"path": "0", "coordinateTransformations": steps}]
    group.attrs["ome"] = {"version": "0.5", "multiscales": [{"axes": axes, "datasets": data}]}
    assert terminal(tmp_path / "movie.zarr") == 0
    [image] = viewer.layers
    assert image.scale.tolist() == [5, 250, 250] and image.translate.tolist() == [20, 1000, 2000]
    assert [str(u) for u in image.units] == [shown, "nanometer", "nanometer"]


def test_nothing_is_chosen(viewer, monkeypatch):
    monkeypatch.setattr(QFileDialog, "getExistingDirectory", lambda *_: "")
    open_files.ask_for_ome_zarr(viewer)
    assert not viewer.layers


def test_a_folder_that_is_no_zarr(viewer, tmp_path, monkeypatch, qtbot):
    told = []
    monkeypatch.setattr("napari_unet.gui.errors.show_error", told.append)
    monkeypatch.setattr(QFileDialog, "getExistingDirectory", lambda *_: str(tmp_path))
    open_files.ask_for_ome_zarr(viewer)
    qtbot.waitUntil(lambda: bool(told))
    assert "without a Zarr" in told[0] and not viewer.layers


@pytest.fixture
def terminal(viewer, monkeypatch):
    """Run `napari-unet view`; the window is the test's, and closes at once."""
    import napari

    monkeypatch.setattr("napari_unet.cli.demo.why_no_window", lambda: "")
    monkeypatch.setattr(napari, "Viewer", lambda **_: viewer)
    monkeypatch.setattr(napari, "run", lambda: None)
    return lambda *paths: main(["view", *map(str, paths)])


@pytest.mark.parametrize("stays", [False, True])
def test_from_the_terminal(terminal, viewer, tmp_path, monkeypatch, stays):
    if stays:
        monkeypatch.setattr(open_files, "IN_MEMORY", 1000)
    tifffile.imwrite(tmp_path / "a.tif", spots(), metadata={"axes": "ZYX"}, ome=True)
    tifffile.imwrite(tmp_path / "truth.tif", np.uint8(spots() > 0), photometric="minisblack")
    assert terminal(tmp_path / "a.tif", tmp_path / "truth.tif") == 0
    image, labels = viewer.layers
    assert np.array_equal(np.asarray(image.data), spots())
    assert np.array_equal(np.asarray(labels.data), spots() > 0)
    assert labels.editable != stays


@pytest.mark.parametrize(
    "attributes", ['{"zarr_format": ', '{"attributes": {"ome": {"labels": null}}}']
)
def test_damaged_labels_leave_the_image(terminal, viewer, embryo, monkeypatch, attributes):
    monkeypatch.setattr(open_files, "show_warning", lambda text: None)
    whole = {"zarr_format": 3, "node_type": "group"}
    text = attributes if attributes.endswith(": ") else json.dumps(whole | json.loads(attributes))
    (embryo / "labels" / "zarr.json").write_text(text)
    assert terminal(embryo) == 0
    assert [layer.name for layer in viewer.layers] == ["embryo"]


def test_whole_numbers_of_another_type_are_labels_and_others_are_not(
    terminal, viewer, tmp_path, capsys
):
    tifffile.imwrite(tmp_path / "a.tif", spots(), photometric="minisblack")
    values = np.float32(spots() > 0)
    tifffile.imwrite(tmp_path / "whole.tif", values, photometric="minisblack")
    tifffile.imwrite(tmp_path / "odd.tif", values / 2, photometric="minisblack")
    assert terminal(tmp_path / "a.tif", tmp_path / "whole.tif") == 0
    assert viewer.layers[1].data.dtype.kind == "i"
    assert terminal(tmp_path / "a.tif", tmp_path / "odd.tif") == 2
    assert "odd.tif holds float32 from 0 to 0.5, such as 0.5: probab" in capsys.readouterr().err
    assert len(viewer.layers) == 2


def test_a_mask_is_told_and_its_pieces_can_be_made_objects(
    terminal, viewer, tmp_path, monkeypatch, qtbot
):
    told = []
    monkeypatch.setattr(mask_labels.notification_manager, "dispatch", told.append)
    tifffile.imwrite(tmp_path / "a.tif", spots(), photometric="minisblack")
    mask = np.uint8(spots() > 0) * 255
    tifffile.imwrite(tmp_path / "mask.tif", mask, photometric="minisblack")
    assert terminal(tmp_path / "a.tif", tmp_path / "mask.tif") == 0
    qtbot.waitUntil(lambda: bool(told))
    [note] = told
    assert "there is one object (255) in 2 pieces: this looks like a mask" in note.message
    [(button, pressed)] = note.actions
    assert button == "Make each piece an object"
    pressed(None)
    qtbot.waitUntil(lambda: len(viewer.layers) == 3)
    image, before, pieces = viewer.layers
    assert np.array_equal(pieces.data > 0, mask > 0) and pieces.data.max() == 2
    assert not before.visible and before.data.max() == 255
    assert pieces.metadata[RESULT_KEY] == {IMAGE: str(image.unique_id)}
    told.clear()
    assert terminal("--labels-as", "components", tmp_path / "a.tif", tmp_path / "mask.tif") == 0
    assert viewer.layers[-1].data.max() == 2 and not told


def test_what_is_noticed_of_labels_is_said(terminal, viewer, tmp_path, monkeypatch, capsys):
    told = []
    monkeypatch.setattr(open_files, "show_warning", told.append)
    image = spots()[1]
    tifffile.imwrite(tmp_path / "a.tif", image)
    tifffile.imwrite(tmp_path / "signed.tif", np.int16(image > 0) * 3 - 1)
    colours = np.stack([np.uint8(image == 900) * 255, np.uint8(image == 600) * 90, image * 0], -1)
    tifffile.imwrite(tmp_path / "rgb.tif", np.uint8(colours), photometric="rgb")
    assert terminal(tmp_path / "a.tif", tmp_path / "signed.tif") == 0
    assert [text.partition(": ")[2] for text in told] == [
        "labels below 0 (down to -1) are taken for background"
    ]
    assert terminal(tmp_path / "a.tif", tmp_path / "rgb.tif") == 2
    assert "--labels-as colours" in capsys.readouterr().err
    assert terminal("--labels-as", "colours", tmp_path / "a.tif", tmp_path / "rgb.tif") == 0
    assert "each colour is an object (2 colours)" in told[-1]
    assert np.unique(viewer.layers[-1].data).tolist() == [0, 1, 2]


def test_channels_keep_their_names(terminal, viewer, tmp_path):
    metadata = {"axes": "CYX", "Channel": {"Name": ["DAPI", "actin"]}}
    tifffile.imwrite(tmp_path / "a.ome.tif", spots()[:2], ome=True, metadata=metadata)
    assert terminal(tmp_path / "a.ome.tif") == 0
    (image,) = viewer.layers
    assert channel_names(image) == ["0: DAPI", "1: actin"]
    assert layer_stack(image).channel_names == ("DAPI", "actin")


def test_labels_of_another_image_are_refused(terminal, viewer, tmp_path, capsys):
    tifffile.imwrite(tmp_path / "a.tif", spots(), photometric="minisblack")
    tifffile.imwrite(tmp_path / "other.tif", spots((3, 90, 90)), photometric="minisblack")
    assert terminal(tmp_path / "a.tif", tmp_path / "other.tif") == 2
    assert "other.tif has the size (3, 90, 90), the image (3, 64, 80)" in capsys.readouterr().err
    assert not viewer.layers


def test_a_file_that_is_not_there(terminal, tmp_path, capsys):
    assert terminal(Path("nowhere.tif")) == 2
    assert "nowhere.tif does not exist" in capsys.readouterr().err


def test_without_a_display(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("napari_unet.cli.demo.why_no_window", lambda: "there is no display")
    tifffile.imwrite(tmp_path / "a.tif", spots(), photometric="minisblack")
    assert main(["view", str(tmp_path / "a.tif")]) == 2
    assert "there is no display" in capsys.readouterr().err


def test_samples_open_as_layers():
    for reader, rgb in (
        (open_fluorescence_sample, False),
        (open_histology_sample, True),
        (open_phase_contrast_sample, False),
        (open_neuron_sample, False),
    ):
        ((data, options, kind),) = reader()
        layer = Image(data, **options)
        assert kind == "image" and layer.rgb == rgb and layer.ndim == 2
