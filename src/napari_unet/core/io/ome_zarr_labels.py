"""OME-Zarr label images: their metadata, and the arrays of all levels, written part by part.

As standalone images they are NGFF 0.5 (Zarr 3); inside an existing OME-Zarr they have its format,
0.4 (Zarr 2) or 0.5.
"""

from __future__ import annotations

import itertools
import os
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from napari_unet.core.io.coordinate_transform import TRANSFORMS

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from napari_unet.core.io.coordinate_transform import CoordinateTransform

    Part = tuple[int | slice, ...]

COARSEST = 1024
"""Levels are added until Y and X of the last are at most this."""
CHUNK = {2: (512, 512), 3: (32, 256, 256)}
"""Edges of the chunks of a label image, for planes and volumes: about 2^18 and 2^21 voxels."""
VERSIONS = {2: "0.4", 3: "0.5"}
"""Version of NGFF for each format of Zarr."""


@dataclass(frozen=True)
class LabelImage:
    """The arrays of a label image on the disk.

    Attributes
    ----------
    path
        The group's folder.
    axes
        One letter of "TZYX" for each axis.
    shape
        Of the full resolution.
    chunks
        Of every level.
    zarr_format
        2 or 3.
    level_count
        How many levels there are; None: as many as make the last one small (`COARSEST`). Labels in
        an OME-Zarr must have as many as their image.
    """

    path: Path
    axes: str
    shape: tuple[int, ...]
    chunks: tuple[int, ...]
    zarr_format: Literal[2, 3] = 3
    level_count: int | None = None

    @property
    def levels(self) -> int:
        """How many levels there are, the full resolution among them."""
        if self.level_count is not None:
            return self.level_count
        count, edge = 1, max(self.shape[-2:])
        while edge > COARSEST:
            count, edge = count + 1, -(-edge // 2)
        return count

    def level_shape(self, level: int) -> tuple[int, ...]:
        """Return the size of a level: Y and X are halved from one to the next."""
        y, x = (-(-n // 2**level) for n in self.shape[-2:])
        return (*self.shape[:-2], y, x)

    def create(self, dtype: Any) -> None:
        """Create the group and its empty arrays; existing ones are kept."""
        import zarr

        group = zarr.open_group(str(self.path), mode="a", zarr_format=self.zarr_format)
        for level in range(self.levels):
            if str(level) not in group:
                self._create_level(group, level, np.dtype(dtype))

    def _create_level(self, group: Any, level: int, dtype: np.dtype[Any]) -> None:
        from zarr.codecs import BloscCodec

        shape = self.level_shape(level)
        common: dict[str, Any] = {
            "shape": shape,
            "dtype": dtype,
            "chunks": tuple(max(1, min(c, n)) for c, n in zip(self.chunks, shape, strict=True)),
            "fill_value": 0,
        }
        if self.zarr_format == 3:
            group.create_array(
                str(level),
                compressors=BloscCodec(cname="zstd", clevel=3, shuffle="shuffle"),
                dimension_names=[letter.lower() for letter in self.axes],
                **common,
            )
            return
        from numcodecs import Blosc

        group.create_array(
            str(level),
            compressors=Blosc(cname="zstd", clevel=3, shuffle=Blosc.SHUFFLE),
            chunk_key_encoding={"name": "v2", "separator": "/"},
            **common,
        )

    def open(self, level: int = 0, mode: Literal["r", "r+"] = "r+") -> Any:
        """Open the array of a level."""
        import zarr

        return zarr.open_array(str(self.path / str(level)), mode=mode)

    def coarsen(self, level: int, part: Part) -> None:
        """Fill a part of a level with every second pixel of the level below.

        Labels cannot be averaged, so a pixel takes the value of the first of its four, and with it
        the position of its centre.
        """
        source, target = self.open(level - 1, "r"), self.open(level)
        *outer, rows, columns = part
        plane = zip(map(_as_slice, (rows, columns)), source.shape[-2:], strict=True)
        fine = source[(*outer, *(slice(w.start * 2, min(w.stop * 2, n)) for w, n in plane))]
        target[part] = np.asarray(fine)[..., ::2, ::2]

    def sync(self, level: int, part: Part) -> None:
        """Wait until the chunks of a part are on the disk."""
        spans = [
            range(w.start // c, -(-w.stop // c))
            for w, c in zip(map(_as_slice, part), self.chunks, strict=True)
        ]
        top = self.path / str(level)
        for chunk in itertools.product(*spans):
            file = top.joinpath(*(["c"] if self.zarr_format == 3 else []), *map(str, chunk))
            if file.exists():  # a chunk of zeros has no file
                with open(file, "rb+") as handle:
                    os.fsync(handle.fileno())

    def describe(
        self,
        name: str,
        transform: CoordinateTransform,
        extra: dict[str, Any],
        source: str | None = None,
    ) -> None:
        """Write the OME metadata and `extra` entries; `source` as for `label_attributes`."""
        import zarr

        group = zarr.open_group(str(self.path), mode="r+")
        ome = label_attributes(name, transform, self.levels, VERSIONS[self.zarr_format], source)
        group.attrs.update(({"ome": ome} if self.zarr_format == 3 else ome) | extra)


def label_attributes(
    name: str, transform: CoordinateTransform, levels: int, version: str, source: str | None = None
) -> dict[str, Any]:
    """Return the NGFF metadata of a label image whose Y and X are halved at each level.

    Parameters
    ----------
    transform
        World coordinates of the full resolution.
    source
        Path from the labels to their image, if they lie in it.
    """
    datasets = [{"path": str(n), TRANSFORMS: transform.transforms(n)} for n in range(levels)]
    image: dict[str, Any] = {"name": name, "axes": list(transform.axes), "datasets": datasets}
    label: dict[str, Any] = {"version": version}
    if source is not None:
        label["source"] = {"image": source}
    if version == "0.4":
        return {"multiscales": [{"version": version, **image}], "image-label": label}
    return {"version": version, "multiscales": [image], "image-label": label}


def _as_slice(at: int | slice) -> slice:
    return at if isinstance(at, slice) else slice(at, at + 1)


def chunks_for(
    shape: tuple[int, ...], ndim: int, block: tuple[int, ...], together: int = 1
) -> tuple[int, ...]:
    """Return chunks for an image that is written in blocks, so that no two blocks share a chunk.

    Parameters
    ----------
    ndim
        Axes of a frame.
    together
        Frames along the last leading axis that are written at once.
    """
    size = shape[len(shape) - ndim :]
    edges = [
        max(1, min(chunk, n)) if edge % chunk == 0 or edge >= n else edge
        for chunk, edge, n in zip(CHUNK[ndim], block, size, strict=True)
    ]
    leading = [1] * (len(shape) - ndim)
    leading[-1:] = [together] * bool(leading)
    return (*leading, *edges)


def register_label(labels: Path, name: str) -> None:
    """Add a name to the list of labels of an OME-Zarr, unless it is there already.

    Parameters
    ----------
    labels
        The folder ``labels`` of the image; it becomes a group if it is none yet.
    """
    import zarr

    zarr_format = get_zarr_format(labels.parent)
    with _locked(labels / ".lock"):
        group = zarr.open_group(str(labels), mode="a", zarr_format=zarr_format)
        attributes: dict[str, Any] = dict(group.attrs)
        ome: dict[str, Any] = attributes.get("ome", {}) if zarr_format == 3 else attributes
        names = list(ome.get("labels", []))
        if name in names:
            return
        if zarr_format == 3:
            group.attrs["ome"] = {"version": "0.5", **ome, "labels": [*names, name]}
        else:
            group.attrs["labels"] = [*names, name]


@contextmanager
def _locked(file: Path) -> Iterator[None]:
    """Hold a lock, then delete its file: Zarr readers warn of files that they do not know."""
    from filelock import FileLock

    lock = FileLock(file)
    lock.acquire()
    while not file.exists():  # the holder before deleted it after we had opened it
        lock.release()
        lock.acquire()
    try:
        yield
    finally:
        with suppress(OSError):  # Windows deletes no open file
            file.unlink(missing_ok=True)
        lock.release()


def get_zarr_format(group: Path) -> Literal[2, 3]:
    """Return the Zarr format of a group on the disk, 2 or 3."""
    return 3 if (group / "zarr.json").is_file() else 2
