"""Objects as COCO JSON: one file with the objects of many images, as polygons or run lengths."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_unet.core.errors import InputError
from napari_unet.core.io.files import image_stem, write_text
from napari_unet.core.labels.json_file import read_json
from napari_unet.core.labels.outlines import LARGEST, fill_rings, ring_area, trace_objects
from napari_unet.core.text import pluralise

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping


def read_coco(path: Path, name: str | None = None) -> tuple[np.ndarray, list[str]]:
    """Read the objects of an image.

    Parameters
    ----------
    name
        The image's file name, with or without its suffix. A file of one image needs none.

    Returns
    -------
    labels, remarks
        Unsigned integers (Y, X), numbered in the order of the annotations; crowds are left out.

    Raises
    ------
    InputError
        The file is damaged, no COCO JSON, or does not hold the image.
    """
    values = read_json(path)
    try:
        image = _find_image(path, values, name)
        shape = int(image["height"]), int(image["width"])
        if not all(shape) or min(shape) < 0 or shape[0] * shape[1] > LARGEST:
            raise ValueError(f"an image has the size {shape}")
        own = [a for a in values.get("annotations", []) if a["image_id"] == image["id"]]
        objects = [a for a in own if not a.get("iscrowd")]
        out = np.zeros(shape, np.uint16 if len(objects) < 2**16 else np.uint32)
        overlapping = 0
        for number, annotation in enumerate(objects, 1):
            for window, mask in _masks(annotation["segmentation"], shape):
                before = out[window][mask]
                overlapping += int(np.count_nonzero((before > 0) & (before != number)))
                out[window][mask] = number
    except (ValueError, TypeError, KeyError, IndexError, AttributeError, OverflowError) as error:
        reason = f"lacks {error}" if isinstance(error, KeyError) else str(error)
        raise InputError(f"{path} cannot be read as COCO ({reason}); export it again.") from error
    remarks = []
    if crowds := len(own) - len(objects):
        remarks.append(f"{pluralise(crowds, 'crowd')} left out, as no single objects")
    if overlapping:
        remarks.append(f"{pluralise(overlapping, 'pixel')} in several objects, given to the last")
    return out, remarks


def list_coco_images(path: Path) -> list[str]:
    """List the file names of the images in a COCO JSON.

    Raises
    ------
    InputError
        It is no COCO JSON.
    """
    values = read_json(path)
    images = values.get("images") if isinstance(values, dict) else None
    if not isinstance(images, list) or "annotations" not in values:
        raise InputError(f"{path} is no COCO JSON: it names no images; export it again.")
    return [str(image.get("file_name", "")) for image in images if isinstance(image, dict)]


def write_coco(path: Path, images: Mapping[str, np.ndarray]) -> int:
    """Write the objects of images, by file name, as COCO JSON; return how many.

    Objects without holes are polygons, others uncompressed run lengths.

    Raises
    ------
    InputError
        Labels that are no plane: COCO knows no stacks.
    OutputError
        The file cannot be written.
    """
    listed: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for number, (name, labels) in enumerate(images.items(), 1):
        if labels.ndim != 2:
            raise InputError(
                f"The labels of {name} have shape {labels.shape}; COCO knows planes alone, choose "
                "another format."
            )
        height, width = labels.shape
        listed.append({"id": number, "file_name": name, "height": height, "width": width})
        for region in trace_objects(labels, "YX"):
            corners = np.concatenate(region.rings)
            (top, left), (bottom, right) = corners.min(0).tolist(), corners.max(0).tolist()
            holes = any(len(part) > 1 for part in region.parts)
            shapes: Any = [part[0][:, ::-1].ravel().tolist() for part in region.parts]
            area = sum(ring_area(part[0]) - sum(map(ring_area, part[1:])) for part in region.parts)
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": number,
                    "category_id": 1,
                    "segmentation": _runs(labels == region.label) if holes else shapes,
                    "area": area,
                    "bbox": [left, top, right - left, bottom - top],
                    "iscrowd": 0,
                }
            )
    categories = [{"id": 1, "name": "object", "supercategory": ""}]
    values = {"images": listed, "annotations": annotations, "categories": categories}
    write_text(path, json.dumps(values, separators=(",", ":")))
    return len(annotations)


def _find_image(path: Path, values: Any, name: str | None) -> Any:
    images = values["images"]
    if len(images) == 1:
        return images[0]
    if name is None:
        raise InputError(f"{path} holds {len(images)} images; give a folder with the images.")
    stem = image_stem(Path(name))
    for image in images:
        file_name = Path(str(image["file_name"]))
        if file_name.name == name or image_stem(file_name) == stem:
            return image
    raise InputError(f"{path} has no image of the name {name}; it holds {len(images)} others.")


def _masks(
    segmentation: Any, shape: tuple[int, int]
) -> Iterator[tuple[tuple[slice, slice], np.ndarray]]:
    """Yield where the parts of an object lie, and which pixels there are its own."""
    if isinstance(segmentation, dict):
        if tuple(segmentation["size"]) != shape:
            raise ValueError("an object has another size than its image")
        whole = (slice(0, shape[0]), slice(0, shape[1]))
        yield whole, _from_runs(segmentation["counts"], shape)
        return
    for polygon in segmentation:
        ring = np.array(polygon, float).reshape(-1, 2)[:, ::-1]
        if filled := fill_rings([ring], shape):
            yield filled


def _runs(mask: np.ndarray) -> dict[str, Any]:
    """Return a mask as the lengths of its runs in columns, of 0 first."""
    flat = mask.T.ravel()
    changes = np.flatnonzero(flat[1:] != flat[:-1]) + 1
    ends = np.concatenate([[0] * (1 + bool(flat[0])), changes, [flat.size]])
    return {"size": list(mask.shape), "counts": np.diff(ends).tolist()}


def _from_runs(counts: Any, shape: tuple[int, int]) -> np.ndarray:
    if isinstance(counts, str):
        counts = _unpack(counts)
    lengths = np.array(counts, np.int64)
    if lengths.ndim != 1 or (lengths < 0).any() or lengths.sum() != shape[0] * shape[1]:
        raise ValueError("an object's run lengths do not fit its image")
    values = np.arange(len(lengths)) % 2 == 1
    return np.repeat(values, lengths).reshape(shape[::-1]).T


def _unpack(text: str) -> list[int]:
    """Return the run lengths in a text of pycocotools: 5 bits a letter, later ones differences."""
    counts: list[int] = []
    value = shift = 0
    for letter in text:
        code = ord(letter) - 48
        if not 0 <= code < 64 or shift > 60:
            raise ValueError("an object's run lengths are no text of COCO")
        value |= (code & 0x1F) << shift
        shift += 5
        if code & 0x20:
            continue
        if code & 0x10:
            value -= 1 << shift
        counts.append(value + (counts[-2] if len(counts) > 2 else 0))
        value = shift = 0
    return counts
