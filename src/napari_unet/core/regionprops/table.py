"""The table of measured objects: its columns, and the file that it is written to."""

from __future__ import annotations

import csv
import io
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_unet.core.image.diameters import equivalent_diameters
from napari_unet.core.io.files import write_text

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path

    from napari_unet.core.regionprops.moments import ObjectParts

Table = dict[str, np.ndarray]


def object_table(
    parts: ObjectParts,
    position: Mapping[str, int],
    shape: Sequence[int],
    voxel_size_um: tuple[float, float, float] | None,
    hulls: np.ndarray | None,
) -> Table:
    """Return the columns of the objects of a frame.

    Parameters
    ----------
    parts
        The objects, joined.
    position
        Of the frame along the leading axes, by letter.
    shape
        The frame's, (Y, X) or (Z, Y, X).
    voxel_size_um
        (z, y, x), None if unknown.
    hulls
        (N,) size of each convex hull, in voxels; None: no solidity.
    """
    count, ndim = len(parts), len(shape)
    voxel = None if voxel_size_um is None else np.array(voxel_size_um[-ndim:])
    table: Table = {"label": parts.labels}
    table |= {letter.lower(): np.full(count, at) for letter, at in position.items()}
    table |= _sizes(parts.size, ndim, voxel)
    table["touches_border"] = ((parts.start == 0) | (parts.stop == np.array(shape)))[
        :, [axis for axis, n in enumerate(shape) if n > 1 or axis >= ndim - 2]
    ].any(1)
    points = {"centroid": parts.centre, "start": parts.start, "stop": parts.stop}
    for name, values in points.items():
        table |= {f"{name}_{letter}": values[:, at] for at, letter in enumerate("zyx"[-ndim:])}
    table |= _shapes(parts, voxel)
    if hulls is not None:
        table["solidity"] = parts.size / hulls
    return table | _intensities(parts)


def join_tables(tables: Sequence[Table]) -> Table:
    """Concatenate the tables of all frames."""
    return {name: np.concatenate([table[name] for table in tables]) for name in tables[0]}


def write_table(path: Path, table: Mapping[str, Iterable[Any]]) -> None:
    """Write a table as CSV, whole or not at all; an existing file is replaced.

    Raises
    ------
    OutputError
        The file cannot be written.
    """
    write_text(path, table_text(table))


def table_text(table: Mapping[str, Iterable[Any]]) -> str:
    """Return a table as CSV, headings first; nan is an empty cell."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(table)
    writer.writerows(zip(*map(_cells, table.values()), strict=True))
    return text.getvalue()


def layer_features(table: Table) -> Table:
    """Return a table as the features of a napari Labels layer.

    napari finds the row of an object by the column ``index``: its label, or -1 if several objects
    in different frames have that label.
    """
    labels = table["label"]
    values, places, count = np.unique(labels, return_inverse=True, return_counts=True)
    return {"index": np.where(count[places] == 1, values[places], -1), **table}


def _sizes(size: np.ndarray, ndim: int, voxel: np.ndarray | None) -> Table:
    names = ("area_px", "area_um2") if ndim == 2 else ("volume_voxels", "volume_um3")
    table = {names[0]: size.astype(np.int64)}
    physical = None if voxel is None else size * voxel.prod()
    if physical is not None:
        table[names[1]] = physical
    for unit, value in (("px", size), ("um", physical)):
        if value is not None:
            table[f"equivalent_diameter_{unit}"] = equivalent_diameters(value, ndim)
    return table


def _shapes(parts: ObjectParts, voxel: np.ndarray | None) -> Table:
    """Return the columns from second moments, in um if the voxel size is known."""
    ndim = parts.centre.shape[1]
    spread = parts.spread / parts.size[:, None, None]
    unit = "px"
    if voxel is not None:
        spread, unit = spread * np.outer(voxel, voxel), "um"
    values = np.maximum(0, np.linalg.eigvalsh(spread))  # ascending
    # A full ellipse of axis a has the variance a^2 / 16 along it, a full ellipsoid a^2 / 20.
    longest, shortest = (np.sqrt((16, 20)[ndim - 2] * values[:, at]) for at in (-1, 0))
    thin = shortest <= 1e-6 * longest  # one pixel thin, up to rounding
    with np.errstate(divide="ignore", invalid="ignore"):
        elongation = np.where(thin, np.nan, longest / shortest)
        eccentricity = np.where(longest > 0, np.sqrt(1 - values[:, 0] / values[:, -1]), 0)
    table = {f"major_axis_{unit}": longest, f"minor_axis_{unit}": shortest}
    table["elongation"] = elongation
    return table if ndim == 3 else table | {"eccentricity": eccentricity}


def _intensities(parts: ObjectParts) -> Table:
    channels = parts.mean.shape[1]
    std = np.sqrt(parts.square / parts.size[:, None])
    columns = {"mean": parts.mean, "std": std, "min": parts.low, "max": parts.high}
    return {
        f"intensity_{name}{f'_c{channel}' * (channels > 1)}": values[:, channel]
        for channel in range(channels)
        for name, values in columns.items()
    }


def _cells(column: Iterable[Any]) -> list[Any]:
    """Return a column as the cells of a file."""
    values = np.asarray(column)
    if values.dtype.kind == "b":
        values = values.astype(int)
    if values.dtype.kind != "f":
        cells: list[Any] = values.tolist()
        return cells
    return ["" if value != value else f"{value:.7g}" for value in values.tolist()]


def stack_tables(tables: Mapping[str, Table]) -> Table:
    """Concatenate tables of images, with the name of the image as first column.

    Columns that only some images have, such as sizes in um, are nan for the others.
    """
    columns = list(dict.fromkeys(name for table in tables.values() for name in table))
    counts = {name: len(table["label"]) for name, table in tables.items()}
    whole: Table = {"image": np.repeat(list(counts), list(counts.values()))}
    for column in columns:
        whole[column] = np.concatenate(
            [table.get(column, np.full(counts[name], np.nan)) for name, table in tables.items()]
        )
    return whole
