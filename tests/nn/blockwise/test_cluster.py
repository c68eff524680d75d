"""What a worker of a cluster opens: the image that is meant, its damaged chunks refused."""

from __future__ import annotations

import pickle
from types import SimpleNamespace
from typing import TYPE_CHECKING

import numpy as np
import pytest
import tifffile
import zarr
from numcodecs.blosc import Blosc

from napari_unet.core.blockwise.run_directory import RunDirectory
from napari_unet.core.errors import InputError
from napari_unet.core.io import blosc_check
from napari_unet.core.io.stack import Stack, open_stack
from napari_unet.nn.blockwise import cluster
from napari_unet.nn.inference.model import write_exactly

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


def at_a_worker(stack: Stack, folder: Path, make_model) -> Stack:
    """Return the stack as a worker opens it."""
    write_exactly(make_model(depth=1), folder / "model")
    executor = object.__new__(cluster.ClusterExecutor)
    executor.start(SimpleNamespace(stack=stack, directory=RunDirectory(folder), preview=False))
    try:
        return pickle.loads(pickle.dumps(executor._source)).open().stack
    finally:
        cluster._open_runs.clear()


@pytest.fixture
def unchecked() -> Iterator[None]:
    """A process in which nothing of ours has opened a Zarr."""
    original = getattr(Blosc.decode, "__wrapped__", Blosc.decode)
    Blosc.decode = original
    blosc_check.check_blosc_chunks.cache_clear()
    yield
    Blosc.decode = original
    blosc_check.check_blosc_chunks.cache_clear()


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize("where", ["on a worker", "in a layer"])
def test_a_damaged_chunk_ends_no_process(tmp_path: Path, make_model, where: str) -> None:
    codec = zarr.codecs.BloscCodec()
    values = np.random.default_rng(0).integers(0, 9000, (16, 20), "u2")
    array = zarr.create_array(str(tmp_path / "a.zarr"), data=values, compressors=codec)
    chunk = tmp_path / "a.zarr" / "c" / "0" / "0"
    chunk.write_bytes(chunk.read_bytes()[:-1])
    stack = Stack(array, "YX", path=tmp_path / "a.zarr")
    worker = "worker" in where
    opened = at_a_worker(stack, tmp_path / "run", make_model) if worker else open_stack(array)
    with pytest.raises((InputError, ValueError), match=r"a Blosc chunk of .* is cut short"):
        opened.read((), (slice(0, 16), slice(0, 20)), (0,))


def test_the_image_that_was_chosen_is_opened(tmp_path: Path, make_model) -> None:
    images = np.random.default_rng(0).integers(0, 9000, (3, 1, 1, 1, 16, 20), "u2")
    with tifffile.TiffWriter(tmp_path / "a.tif") as writer:
        for number, image in enumerate(images):
            writer.write(image[..., : 20 - number], metadata={"axes": "QQQYX"})
    for number in (0, 2):
        stack = open_stack(tmp_path / "a.tif", series=number)
        opened = at_a_worker(stack, tmp_path / f"run{number}", make_model)
        assert opened.axes == stack.axes
        np.testing.assert_array_equal(np.asarray(opened.data), np.asarray(stack.data))
        assert opened.labels_shape[-2:] == (16, 20 - number)


def test_the_level_that_was_chosen_is_opened(tmp_path: Path, make_model) -> None:
    """An archive is opened anew by each worker, a folder comes as the array that was chosen."""
    image = np.random.default_rng(0).integers(0, 9000, (16, 20), "u2")
    store = zarr.storage.ZipStore(tmp_path / "a.ozx", mode="w")
    axes = [{"name": a, "type": "space"} for a in "yx"]
    images = [{"name": "a", "axes": axes, "datasets": [{"path": "0"}, {"path": "1"}]}]
    attributes = {"ome": {"version": "0.5", "multiscales": images}}
    group = zarr.open_group(store, mode="w", zarr_format=3, attributes=attributes)
    for level in (0, 1):
        group.create_array(str(level), data=image[:: level + 1, :: level + 1])
    store.close()
    stack = open_stack(tmp_path / "a.ozx", level=1)
    opened = at_a_worker(stack, tmp_path / "run", make_model)
    np.testing.assert_array_equal(np.asarray(opened.data[:]), image[::2, ::2])
