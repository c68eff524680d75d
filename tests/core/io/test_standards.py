"""Labels that napari-unet writes into OME-Zarrs are what the specification asks for."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import yaozarrs
import zarr

from napari_unet.cli import main
from napari_unet.core.io.stack import open_stack
from napari_unet.core.io.zarr_groups import registered_labels

if TYPE_CHECKING:
    from pathlib import Path

AXES = {
    "YX": (150, 131),
    "CYX": (2, 150, 131),
    "TCZYX": (2, 1, 3, 75, 64),
}


def fill(group: Any, axes: str, version: str, levels: int) -> np.ndarray:
    """Make a group an OME-Zarr image; return its full resolution."""
    values = np.random.default_rng(0).integers(0, 60000, AXES[axes], "u2")
    datasets = []
    for level in range(levels):
        part = values[..., :: 2**level, :: 2**level]
        chunks = (1,) * (part.ndim - 2) + (64, 64)
        key = {"name": "v2" if version == "0.4" else "default", "separator": "/"}
        names = {} if version == "0.4" else {"dimension_names": list(axes.lower())}
        group.create_array(str(level), data=part, chunks=chunks, chunk_key_encoding=key, **names)
        scale = [0.5 * 2**level if letter in "YX" else 1.0 for letter in axes]
        transforms = [{"type": "scale", "scale": scale}]
        datasets.append({"path": str(level), "coordinateTransformations": transforms})
    kinds: dict[str, dict] = {"t": {"type": "time"}, "c": {"type": "channel"}}
    space = {"type": "space", "unit": "micrometer"}
    named = [{"name": letter, **kinds.get(letter, space)} for letter in axes.lower()]
    image: dict[str, Any] = {"name": "image", "axes": named, "datasets": datasets}
    if version == "0.4":
        group.attrs["multiscales"] = [{**image, "version": "0.4"}]
    else:
        group.attrs["ome"] = {"version": "0.5", "multiscales": [image]}
    return values


def check(image: Path, name: str, version: str, levels: int) -> None:
    """Hold an image with labels against three libraries."""
    yaozarrs.validate_zarr_store(str(image))
    labels = image / "labels" / name
    group = zarr.open_group(str(labels), mode="r")
    attributes = dict(group.attrs)
    found = attributes.get("ome", attributes)
    assert len(found["multiscales"][0]["datasets"]) == levels == len(list(group.arrays()))
    assert found["image-label"]["source"] == {"image": "../../"}
    full = np.asarray(open_stack(labels).data[...])
    assert full.any()
    for level in range(levels):
        coarse = group[str(level)][...]
        np.testing.assert_array_equal(coarse, full[..., :: 2**level, :: 2**level])
    models = pytest.importorskip("ome_zarr_models")
    module = models.v04 if version == "0.4" else models.v05
    module.Image.from_zarr(zarr.open_group(str(image), mode="r"))
    module.ImageLabel.from_zarr(group)
    module.Labels.from_zarr(zarr.open_group(str(image / "labels"), mode="r"))
    from ome_zarr.io import parse_url
    from ome_zarr.reader import Reader

    nodes = list(Reader(parse_url(str(image)))())
    shapes = [[tuple(level.shape) for level in node.data] for node in nodes]
    wanted = [tuple(group[str(level)].shape) for level in range(levels)]
    assert wanted in shapes[1:]


@pytest.mark.parametrize("version", ["0.4", "0.5"])
@pytest.mark.parametrize("levels", [1, 3])
@pytest.mark.parametrize("axes", AXES)
def test_labels_in_their_image(tmp_path: Path, tiny_model: str, version, levels, axes) -> None:
    path = tmp_path / "a.zarr"
    zarr_format = 2 if version == "0.4" else 3
    values = fill(zarr.create_group(str(path), zarr_format=zarr_format), axes, version, levels)
    assert main(["segment", str(path), "--model", tiny_model, "--no-survey", "--block", "64"]) == 0
    check(path, tiny_model, version, levels)
    assert registered_labels(path) == [path / "labels" / tiny_model]
    labels = open_stack(path / "labels" / tiny_model)
    assert labels.voxel_size_um == (1.0, 0.5, 0.5)
    assert labels.labels_shape == tuple(
        n for n, letter in zip(values.shape, axes, strict=True) if letter != "C"
    )


@pytest.mark.parametrize("version", ["0.4", "0.5"])
def test_labels_lie_in_the_image_of_a_converted_file(tmp_path, tiny_model, version, capsys) -> None:
    path = tmp_path / "a.zarr"
    group = zarr.create_group(str(path), zarr_format=2 if version == "0.4" else 3)
    layout = {"bioformats2raw.layout": 3}
    group.attrs.update(layout if version == "0.4" else {"ome": {"version": "0.5", **layout}})
    for number in range(2):
        fill(group.create_group(str(number)), "YX", version, 2)
    command = ["segment", str(path), "--model", tiny_model, "--no-survey"]
    assert main(command) == 0
    assert "a.zarr holds 2 images; number 0, the first, is read" in capsys.readouterr().err
    assert main([*command, "--series", "1"]) == 0
    assert not (path / "labels").exists()
    for number in range(2):
        check(path / str(number), tiny_model, version, 2)
    named = str(path / "labels" / "other")
    assert main([*command[:2], named, *command[2:]]) == 0
    assert (path / "0" / "labels" / "other").is_dir()


def test_labels_of_their_own(tmp_path: Path, tiny_model: str) -> None:
    path, out = tmp_path / "a.zarr", tmp_path / "labels.ome.zarr"
    fill(zarr.create_group(str(path)), "YX", "0.5", 1)
    assert main(["segment", str(path), str(out), "--model", tiny_model, "--no-survey"]) == 0
    yaozarrs.validate_zarr_store(str(out))
    models = pytest.importorskip("ome_zarr_models")
    models.v05.ImageLabel.from_zarr(zarr.open_group(str(out), mode="r"))
