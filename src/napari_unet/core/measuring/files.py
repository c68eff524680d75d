"""Label files and the images that belong to them: two files, or two folders with equal names."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from napari_unet.core.io.readers import is_zarr
from napari_unet.core.scoring.files import by_name
from napari_unet.core.spec import InputError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from napari_unet.core.measuring.table import Table


@dataclass(frozen=True)
class LabelledImage:
    """Labels, and the image that they were found in; None if there is none."""

    name: str
    labels: Path
    image: Path | None


def pair_images(labels: Path, image: Path | None) -> list[LabelledImage]:
    """Match labels with their images: two files, or those of equal name in two folders.

    Raises
    ------
    InputError
        A path that does not exist, a file and a folder, or a folder without images.
    """
    given = [path for path in (labels, image) if path is not None]
    for path in given:
        if not path.exists():
            raise InputError(f"{path} does not exist; check the spelling and the folder.")
    folders = [path.is_dir() and not is_zarr(path) for path in given]
    if not any(folders):
        return [LabelledImage(labels.name, labels, image)]
    if not all(folders):
        raise InputError(f"{labels} and {image} are a file and a folder; give two of a kind.")
    images = {} if image is None else by_name(image)
    return [LabelledImage(name, path, images.get(name)) for name, path in by_name(labels).items()]


def image_of(pair: LabelledImage, images: Path | None) -> Path | None:
    """Return the image of a pair; None where no image was asked for.

    Raises
    ------
    InputError
        There is no image of that name in the folder.
    """
    if images is not None and pair.image is None:
        raise InputError(
            f"{pair.labels} is not measured: {images} has no image of the name {pair.name}; "
            "add it, or measure without images."
        )
    return pair.image


def stacked(tables: Mapping[str, Table]) -> Table:
    """Put tables of images below each other; the first column names the image.

    What only some of the images have, such as sizes in um, is nan for the others.
    """
    columns = list(dict.fromkeys(name for table in tables.values() for name in table))
    counts = {name: len(table["label"]) for name, table in tables.items()}
    whole: Table = {"image": np.repeat(list(counts), list(counts.values()))}
    for column in columns:
        whole[column] = np.concatenate(
            [table.get(column, np.full(counts[name], np.nan)) for name, table in tables.items()]
        )
    return whole
