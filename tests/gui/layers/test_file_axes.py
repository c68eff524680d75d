"""The file of a layer, whether napari or the plugin has opened it."""

from __future__ import annotations

import os
from types import SimpleNamespace
from typing import TYPE_CHECKING

import numpy as np
import pytest
import tifffile
import zarr
from format_samples import fill_ome_zarr
from napari.components import ViewerModel
from napari.layers import Image, Labels

from napari_unet.core.progress import run_to_end
from napari_unet.gui.how_made import find_image
from napari_unet.gui.layers.file_axes import file_of
from napari_unet.gui.layers.label_geometry import get_label_geometry
from napari_unet.gui.layers.result_info import update_info
from napari_unet.gui.open_files import read_files, show_files
from napari_unet.gui.segment.block_run import choose_output_location

if TYPE_CHECKING:
    from pathlib import Path

VALUES = np.arange(40 * 50, dtype="u2").reshape(40, 50)


def opened(path: Path) -> Image:
    """Return the layer as which the plugin shows a file."""
    return show_files(ViewerModel(), run_to_end(read_files(path)))


def test_the_plugin_s_layers_know_their_file(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, VALUES)
    layer = opened(path)
    assert layer.source.path is None, "napari knows no file of it"
    assert file_of(layer) == os.path.abspath(path)
    assert get_label_geometry(layer).stack.path == path, "so that a journal names the file"
    viewer, labels = ViewerModel(), Labels(np.zeros((40, 50), int), name="objects")
    layer.name = "renamed"
    viewer.add_layer(layer)
    update_info(labels, provenance={"image": {"name": "a.tif"}})
    assert find_image(viewer, labels) is layer


def test_other_layers_have_none() -> None:
    assert file_of(Image(VALUES)) is None
    layer = Image(VALUES, metadata={"napari_unet_file": 3})
    assert file_of(layer) is None
    layer = Image(VALUES, metadata={"napari_unet_file": "https://example.org/a.zarr"})
    assert file_of(layer) == "https://example.org/a.zarr"


def test_a_projection_is_not_of_the_file_of_its_image(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, VALUES)
    layer = opened(path)
    assert file_of(layer) == str(path)
    assert file_of(Image(VALUES[:20], metadata=dict(layer.metadata))) is None


@pytest.mark.parametrize("layout", ["image", "bioformats2raw"])
def test_labels_of_the_plugin_s_layer_go_into_its_image(tmp_path: Path, layout: str) -> None:
    group = zarr.create_group(str(tmp_path / "a.zarr"))
    image, inside = group, tmp_path / "a.zarr"
    if layout != "image":
        group.attrs["ome"] = {"version": "0.5", "bioformats2raw.layout": 3}
        image, inside = group.create_group("0"), inside / "0"
    fill_ome_zarr(image, VALUES, "YX")
    request = SimpleNamespace(save_in=None, model="nuclei")
    location = choose_output_location(opened(tmp_path / "a.zarr"), request)
    assert location.path == inside / "labels" / "nuclei"
