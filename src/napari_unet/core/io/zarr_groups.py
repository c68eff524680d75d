"""What lies where in a Zarr: the images of a group, the labels of an image.

A group may be an image itself, a conversion by bioformats2raw, a plate, a well, or a SpatialData
container. zarr takes a third of a second to import, so the functions import it.
"""

from __future__ import annotations

import logging
import sys
import zipfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from napari_unet.core.errors import InputError
from napari_unet.core.io.blosc_check import check_blosc_chunks
from napari_unet.core.io.files import ZARR_FILES, is_zarr, unreadable_error

if TYPE_CHECKING:
    from collections.abc import Iterator

LABELS = "labels"
"""The group of an OME-Zarr that holds its label images."""


def _is_news(record: logging.LogRecord) -> bool:
    """Return whether a log record says more than that a member of a Zarr group is damaged, too.

    zarr opens all members at once, raises what it meets first, and leaves the rest to asyncio,
    which prints a traceback of each.
    """
    text = record.getMessage()
    return "never retrieved" not in text or "_getitem_semaphore" not in text


def open_node(path: Path | str) -> Any:
    """Open the array or group of a path or address."""
    import zarr

    check_blosc_chunks()
    logging.getLogger("asyncio").addFilter(_is_news)  # once, however often
    if isinstance(path, str):
        from napari_unet.core.io.remote import storage_options

        return zarr.open(path, mode="r", storage_options=storage_options(path))
    if path.is_dir():
        # Absolute, since workers of a cluster open the array in another working directory.
        return zarr.open(str(path.absolute()), mode="r")
    from zarr.storage import ZipStore

    with zipfile.ZipFile(path) as archive:
        names = archive.namelist()
    roots = [name.rpartition("/")[0] for name in names if name.rpartition("/")[2] in ZARR_FILES]
    if not roots:
        raise InputError(f"{path} is an archive without a Zarr in it; give an image.")
    store = ZipStore(path.absolute(), mode="r", read_only=True)
    return zarr.open(
        store, path=min(roots, key=lambda root: root.count("/") + bool(root)), mode="r"
    )


def ome_attributes(group: Any) -> dict[str, Any]:
    """Return the attributes of a group, of NGFF 0.5 those under ``ome`` among them."""
    attributes = dict(group.attrs)
    ome = attributes.get("ome")
    return {**attributes, **ome} if isinstance(ome, dict) else attributes


class ImageChoice(NamedTuple):
    """An image in a group: its path there, its number among several, and remarks on the choice."""

    path: str
    number: int | None = None
    remarks: tuple[str, ...] = ()


def choose_image(group: Any, path: Path | str, wanted: int | None) -> ImageChoice:
    """Return the image of a group that is asked for; the first of bioformats2raw's.

    Raises
    ------
    InputError
        It is not there, or there are several and none is asked for.
    """
    attributes = ome_attributes(group)
    if "multiscales" in attributes:
        if wanted:
            raise InputError(f"{path} holds one image and no series {wanted}; choose only 0.")
        return ImageChoice("")
    shown = str(path).rstrip("/")
    images, what = _list_images(group, attributes)
    if not images and what:
        raise InputError(f"{path} is a {what} without an image in it; give an image.")
    if not images:
        arrays = [name for name, _ in group.arrays()]
        if len(arrays) == 1 and not wanted:
            return ImageChoice(arrays[0])
        names = ", ".join(sorted(group.keys())) or "nothing"
        raise InputError(f"{path} is no OME-Zarr and holds {names}; give the path of one array.")
    if wanted is not None:
        if not 0 <= wanted < len(images):
            raise InputError(
                f"{path} has no series {wanted}; choose 0 to {len(images) - 1} ({_some(images)})."
            )
        return ImageChoice(images[wanted], wanted)
    if len(images) == 1:
        return ImageChoice(images[0])
    if what == "images":
        return ImageChoice(
            images[0],
            0,
            (
                f"{Path(shown).name} holds {len(images)} images; number 0, the first, is read. "
                f"Choose another with --series (0 to {len(images) - 1}).",
            ),
        )
    raise InputError(
        f"{path} is a {what} of many images ({_some(images)}); give one of them, such as "
        f"{shown}/{images[0]}, or its number (--series, 0 to {len(images) - 1})."
    )


def _list_images(group: Any, attributes: dict[str, Any]) -> tuple[list[str], str]:
    """List the paths of the images in a group that is none itself, and say what the group is."""
    if "plate" in attributes:
        wells = [str(well.get("path")) for well in attributes["plate"].get("wells") or ()]
        found = []
        for well in wells:
            if well in group:
                fields = ome_attributes(group[well]).get("well", {}).get("images") or ()
                found += [f"{well}/{field.get('path')}" for field in fields]
        return found, "plate"
    if "well" in attributes:
        return [str(f.get("path")) for f in attributes["well"].get("images") or ()], "well"
    if "bioformats2raw.layout" in attributes:
        names = (
            [str(name) for name in ome_attributes(group["OME"]).get("series", ())]
            if ("OME" in group)
            else []
        )
        names = names or sorted((n for n in group if n.isdecimal()), key=int)
        return [name for name in names if name in group], "images"
    if "images" in group:  # SpatialData
        inside = group["images"]
        names = [
            f"images/{name}"
            for name, image in sorted(inside.groups())
            if "multiscales" in ome_attributes(image)
        ]
        return names, "collection"
    return [], ""


def _some(images: list[str]) -> str:
    return ", ".join(images[:3]) + (f" and {len(images) - 3} more" if len(images) > 3 else "")


@contextmanager
def naming_damage(path: Path) -> Iterator[None]:
    """Raise what zarr raises on damaged metadata as an InputError that names the path."""
    try:
        yield
    except (InputError, PermissionError):
        raise
    except Exception as error:  # all kinds: metadata of any type are taken for the right one
        raise unreadable_error(path, error) from error


def is_group(path: Path) -> bool:
    """Return whether a folder is a Zarr group.

    Raises
    ------
    InputError
        Its metadata are damaged.
    """
    if (path / ".zgroup").is_file():
        return True
    if not (path / "zarr.json").is_file():
        return False
    import zarr

    with naming_damage(path):
        return isinstance(open_node(path), zarr.Group)


def image_group(path: Path, series: int | None = None) -> Path:
    """Return the folder of an image in an OME-Zarr: the path itself, or a group inside it.

    Raises
    ------
    InputError
        Its metadata are damaged.
    """
    if not is_zarr(path):
        return path
    import zarr

    with naming_damage(path):
        node = open_node(path)
        if isinstance(node, zarr.Array):
            return path
        try:
            chosen = choose_image(node, path, series).path
        except InputError:  # none, or several
            return path
        inside = chosen and not isinstance(node[chosen], zarr.Array)
        return path / chosen if inside else path


def count_levels(path: Path) -> int:
    """Return the number of resolution levels of an OME-Zarr; 1 for other image files.

    Raises
    ------
    InputError
        Its metadata are damaged.
    """
    import zarr

    if not is_zarr(path):
        return 1
    with naming_damage(path):
        node = open_node(image_group(path))
        if isinstance(node, zarr.Array):
            return 1
        images = ome_attributes(node).get("multiscales", ())
        return max(1, len(images[0].get("datasets", ()))) if images else 1


def registered_labels(image: Path) -> list[Path]:
    """List the label images that an OME-Zarr names; empty for other files."""
    import zarr

    labels = image_group(image) / LABELS
    if not is_zarr(image) or not is_zarr(labels):
        return []
    with naming_damage(labels):
        names = ome_attributes(zarr.open_group(str(labels), mode="r")).get("labels") or []
        return [labels / str(name) for name in names]


def zarr_path(data: Any) -> Path | None:
    """Return the folder of the Zarr array that an array is, or is read from.

    Parameters
    ----------
    data
        A Zarr array, or a dask array whose graph holds exactly one Zarr array of its own shape.
        Results of an array that was cropped, or joined from several, do not belong beside those.

    Returns
    -------
    Path or None
        None for other data, and for stores that are no folders of this computer.
    """
    zarr: Any = sys.modules.get("zarr")  # its import takes half a second, in the window's thread
    if zarr is None:  # so there is no array of it
        return None
    if not isinstance(data, zarr.Array):
        found = [v for v in dict(getattr(data, "dask", {})).values() if isinstance(v, zarr.Array)]
        if len(found) != 1 or found[0].shape != tuple(data.shape):
            return None
        data = found[0]
    root = getattr(data.store, "root", None)  # of a LocalStore
    return Path(root).absolute() / data.path if isinstance(root, Path) else None
