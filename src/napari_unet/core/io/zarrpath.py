"""Which Zarr on this computer data come from: asked of an array, not of a file's name."""

from __future__ import annotations

from pathlib import Path
from typing import Any


def zarr_path(data: Any) -> Path | None:
    """Return the folder of the Zarr array that data are, or that they are read from.

    Parameters
    ----------
    data
        A Zarr array, or a dask array that has one Zarr array of its own shape in its graph: what
        was cropped or put together of several is not where its results belong.

    Returns
    -------
    Path or None
        None for other data, and for stores that are no folders of this computer.
    """
    import zarr

    if not isinstance(data, zarr.Array):
        found = [v for v in dict(getattr(data, "dask", {})).values() if isinstance(v, zarr.Array)]
        if len(found) != 1 or found[0].shape != tuple(data.shape):
            return None
        data = found[0]
    root = getattr(data.store, "root", None)  # of a LocalStore
    return Path(root).absolute() / data.path if isinstance(root, Path) else None


def ome_zarr_of(path: Path) -> Path | None:
    """Return the OME-Zarr whose full resolution an array's folder is, if it is one's."""
    import zarr

    from napari_unet.core.io.readers import is_zarr, read_zarr

    for group in path.parents[:2]:  # datasets are named "0", rarely "images/0"
        if is_zarr(group):
            node = zarr.open(str(group), mode="r")
            if isinstance(node, zarr.Group) and {"ome", "multiscales"} & set(node.attrs):
                array = read_zarr(group).data
                return group if zarr_path(array) == path.absolute() else None
    return None
