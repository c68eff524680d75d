"""Which label file belongs to which image: by their names, by a pattern, or by a tool's layout.

Layouts that are known: two folders with equal names, such as StarDist's ``images`` and ``masks``;
Cellpose's ``NAME_masks.tif``, ``NAME_cp_masks.png`` and ``NAME_seg.npy`` beside the images;
nnU-Net's ``imagesTr`` and ``labelsTr``; the Cell Tracking Challenge's ``01`` and ``01_GT/SEG``.
"""

from __future__ import annotations

import fnmatch
import re
import unicodedata
from dataclasses import dataclass
from typing import TYPE_CHECKING

from napari_unet.core.errors import InputError
from napari_unet.core.io.files import (
    check_exists,
    image_stem,
    is_image_folder,
    is_zarr,
    list_images,
)
from napari_unet.core.labels.coco import list_coco_images
from napari_unet.core.labels.foreign import FOREIGN_ENDINGS, foreign_kind
from napari_unet.core.labels.json_file import read_json

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

LABEL_ENDINGS = ("_cp_masks", "_masks", "_mask", "_labels", "_label", "_seg", "_rois", ".roi")
"""What programs add to an image's name to name its labels."""
STEM = "{stem}"
"""In a pattern, the image's name without its suffix."""

_CHALLENGE = re.compile(r"(?:t|mask|man_seg_?|man_track)(\d{3,})(?:_(\d{3,}))?")
_CHANNEL = re.compile(r"(.+)_(\d{4})")
_FOLDERS = [("images", "masks"), ("images", "labels"), ("image", "label"), ("imagesTr", "labelsTr")]
_FOREIGN = tuple(ending for endings in FOREIGN_ENDINGS.values() for ending in endings)


@dataclass(frozen=True)
class PairedFiles:
    """An image and its labels.

    Attributes
    ----------
    images
        The image's file, or the files of its channels, in their order.
    labels
        Its labels; perhaps a file with the labels of many images.
    plane
        The only plane along z that is labelled, from 0; None: all are.
    """

    images: tuple[Path, ...]
    labels: Path
    plane: int | None = None


def find_layout(folder: Path) -> tuple[Path, Path, str]:
    """Return the folders of images and labels in a data set, and a remark.

    Raises
    ------
    InputError
        The folder is in none of the known layouts.
    """
    check_exists(folder)
    if not is_image_folder(folder):
        raise InputError(f"The labels of {folder} are missing; give a file of labels.")
    for root in (folder, folder / "train"):
        for images, labels in _FOLDERS:
            if (root / images).is_dir() and (root / labels).is_dir():
                return root / images, root / labels, _dataset_remark(root)
    for ending in ("_GT", "_ST", "_ERR_SEG"):
        truth = folder.with_name(f"{folder.name}{ending}") / "SEG"
        if truth.is_dir():
            return folder, truth, ""
    if any(_is_label_name(path.name) for path in folder.iterdir()):
        return folder, folder, ""
    raise InputError(
        f"{folder} holds no labels by the names that are known (NAME_masks.tif, NAME_seg.npy; "
        "folders images and masks, imagesTr and labelsTr, 01 and 01_GT/SEG); give their folder."
    )


def pair_images(
    images: Path,
    labels: Path,
    image_pattern: str | None = None,
    label_pattern: str | None = None,
) -> dict[str, PairedFiles]:
    """Match images with their labels: two files, or the files in two folders or in one.

    Parameters
    ----------
    images, labels
        Files, or folders, which may be the same; or a folder and a COCO JSON of its images.
    image_pattern
        Which files of the folder are images, such as ``*.tif``; None: all.
    label_pattern
        The name of an image's labels, such as ``{stem}_masks.tif``; None: by the known endings.

    Returns
    -------
    dict
        By the images' names; images without labels are left out.

    Raises
    ------
    InputError
        A path does not exist, a file is to be matched with a folder, or no name is in both.
    """
    check_exists(images, labels)
    if not is_image_folder(images):
        if is_image_folder(labels):
            raise InputError(f"{images} and {labels} are a file and a folder; give two of a kind.")
        return {images.name: PairedFiles((images,), labels)}
    found = _by_pattern(list_images(images), image_pattern)
    if label_pattern is None:
        found = [path for path in found if images != labels or not _is_label_name(path.name)]
    if label_pattern is not None:
        paired = _pair_by_pattern(found, labels, label_pattern)
    elif not is_image_folder(labels):
        paired = _pair_with_coco(found, labels)
    else:
        same = images == labels
        paired = _pair_by_name(found, list_label_files(labels, beside_images=same), same=same)
    if not paired and images == labels:
        raise InputError(
            f"{images} is given as images and as its own labels, and none of its files is named as "
            "the labels of another (NAME_masks.tif, NAME_seg.npy); give the folder of the labels."
        )
    if not paired:
        raise InputError(f"{images} and {labels} have no file name in common.")
    return paired


def match_images(labels: Path, images: Path | None) -> tuple[dict[str, Path], dict[str, Path]]:
    """Return label files by their names, and the images that belong to them.

    Parameters
    ----------
    labels, images
        Two files or two folders; `images` may be None.

    Raises
    ------
    InputError
        A path does not exist, a file is to be matched with a folder, or a folder holds nothing.
    """
    check_exists(*(path for path in (labels, images) if path is not None))
    if images is not None and is_image_folder(labels) != is_image_folder(images):
        raise InputError(f"{labels} and {images} are a file and a folder; give two of a kind.")
    if not is_image_folder(labels):
        return {labels.name: labels}, {} if images is None else {labels.name: images}
    own = unique_stems(list_label_files(labels) or list_images(labels))
    return own, {} if images is None else match_label_files(own, images)


def list_label_files(folder: Path, *, beside_images: bool = False) -> list[Path]:
    """List the label files in a folder, those of other programs included.

    Parameters
    ----------
    beside_images
        Whether the images of the folder are no labels but what the labels are of. Otherwise files
        of other programs are left out where there is an image of their name, as after
        ``segment --also``; of several with one name the first is taken.
    """
    try:
        images = list_images(folder)
    except InputError:
        images = []
    taken = set() if beside_images else {stem_of(path) for path in images}
    others = []
    for path in sorted(folder.iterdir()):
        is_foreign = path.name.lower().endswith(_FOREIGN) and not path.name.startswith(".")
        if is_foreign and path not in images and stem_of(path) not in taken and foreign_kind(path):
            others.append(path)
            taken.add(stem_of(path))
    return [*images, *others]


def is_of_challenge(path: Path) -> bool:
    """Return whether a file has a name of the Cell Tracking Challenge."""
    return _CHALLENGE.fullmatch(stem_of(path)) is not None


def match_label_files(
    own: dict[str, Path], others: Path, pattern: str | None = None
) -> dict[str, Path]:
    """Return the files of a folder that belong to label files, by the labels' names.

    Parameters
    ----------
    own
        Label files by their names without suffix.
    others
        A folder, or a COCO JSON.
    pattern
        The name of the other file, such as ``{stem}_masks.tif``.

    Raises
    ------
    InputError
        The pattern has no stem, or the folder two files of one name.
    """
    if pattern is not None:
        check_pattern(pattern)
        found = {name: others / pattern.replace(STEM, name) for name in own}
        return {name: path for name, path in found.items() if path.exists()}
    if not is_image_folder(others):
        listed = {stem for name in list_coco_images(others) for stem in [_stem_of_text(name)]}
        return {name: others for name in own if name in listed}
    wanted = unique_stems(list_label_files(others) or list_images(others))
    if not set(own) & set(wanted):
        by_key = {_key(name): path for name, path in wanted.items()}
        return {name: by_key[_key(name)] for name in own if _key(name) in by_key}
    return {name: wanted[name] for name in own if name in wanted}


def stem_of(path: Path) -> str:
    """Return a file's name without its suffix, as NFC; of labels of other programs, the image's."""
    name = path.name
    lower = name.lower()
    for ending in _FOREIGN:
        if lower.endswith(ending) and not is_zarr(path):
            return unicodedata.normalize("NFC", name[: -len(ending)])
    return unicodedata.normalize("NFC", image_stem(path))


def _stem_of_text(name: str) -> str:
    from pathlib import Path

    return stem_of(Path(name))


def _key(stem: str) -> str:
    """Return the part of a name that an image and its labels have in common."""
    if match := _CHALLENGE.fullmatch(stem):
        return f"t{int(match[1])}"
    for ending in LABEL_ENDINGS:
        if stem.lower().endswith(ending):
            return stem[: -len(ending)]
    return stem


def _is_label_name(name: str) -> bool:
    stem = _stem_of_text(name)
    return stem.lower().endswith(LABEL_ENDINGS) or name.lower().endswith(_FOREIGN)


def _by_pattern(paths: list[Path], pattern: str | None) -> list[Path]:
    if pattern is None:
        return paths
    found = [path for path in paths if fnmatch.fnmatch(path.name, pattern)]
    if not found:
        raise InputError(f"{paths[0].parent} holds no image like {pattern!r}.")
    return found


def check_pattern(pattern: str) -> None:
    """Raise InputError for a pattern that gives all images the same labels."""
    if STEM not in pattern:
        raise InputError(
            f"The pattern {pattern!r} has no {STEM}, which stands for the image's name; give one "
            f"like '{STEM}_masks.tif'."
        )


def _pair_by_pattern(images: list[Path], folder: Path, pattern: str) -> dict[str, PairedFiles]:
    check_pattern(pattern)
    found = {}
    for image in images:
        labels = folder / pattern.replace(STEM, image_stem(image))
        if labels.exists():
            found[image_stem(image)] = PairedFiles((image,), labels)
    if not found:
        raise InputError(
            f"{folder} holds no labels like {pattern!r}; of {images[0].name} they would be "
            f"{pattern.replace(STEM, image_stem(images[0]))}."
        )
    return found


def _pair_with_coco(images: list[Path], labels: Path) -> dict[str, PairedFiles]:
    if foreign_kind(labels) != "coco":
        raise InputError(f"{labels} is one file for {len(images)} images; give a folder of labels.")
    listed = {_stem_of_text(name) for name in list_coco_images(labels)}
    named = {stem_of(image): image for image in images}
    return {name: PairedFiles((named[name],), labels) for name in named if name in listed}


def _pair_by_name(images: list[Path], labels: list[Path], *, same: bool) -> dict[str, PairedFiles]:
    seen = unique_stems(images)
    exact = {stem_of(path): path for path in labels if not same or _is_label_name(path.name)}
    both = [name for name in seen if name in exact]
    unique_stems([path for path in labels if not same and stem_of(path) in both])
    found = {name: PairedFiles((seen[name],), exact[name]) for name in both}
    channels: dict[str, list[Path]] = {}
    for name, path in sorted(seen.items()):
        if match := _CHANNEL.fullmatch(name):  # of nnU-Net: a file for each channel
            channels.setdefault(match[1], []).append(path)
    if not found and (cases := [name for name in channels if name in exact]):
        return {name: PairedFiles(tuple(channels[name]), exact[name]) for name in cases}
    keys = {_key(name): path for name, path in seen.items() if name not in found}
    for path in labels:
        name = stem_of(path)
        key, match = _key(name), _CHALLENGE.fullmatch(name)
        if key in keys and keys[key] != path:
            plane = int(match[2]) if match and match[2] else None
            title = stem_of(keys[key]) + ("" if plane is None else f" z{plane}")
            found.setdefault(title, PairedFiles((keys[key],), path, plane))
    return {name: found[name] for name in sorted(found, key=_order(seen))}


def _order(seen: dict[str, Path]) -> Callable[[str], tuple[int, str]]:
    """Return a key that sorts pairs as their images are sorted."""
    places = {name: number for number, name in enumerate(seen)}
    return lambda title: (places.get(title, places.get(title.rpartition(" z")[0], 0)), title)


def unique_stems(paths: Iterable[Path]) -> dict[str, Path]:
    """Return files by their names without suffix.

    Raises
    ------
    InputError
        Two files have one name.
    """
    found: dict[str, Path] = {}
    for path in paths:
        name = stem_of(path)
        if name in found:
            raise InputError(f"{path.parent} holds {found[name].name} and {path.name}; keep one.")
        found[name] = path
    return found


def _dataset_remark(root: Path) -> str:
    """Say what nnU-Net's description names as classes, since its labels are classes."""
    described = root / "dataset.json"
    if not described.is_file():
        return ""
    values = read_json(described)
    classes = values.get("labels") if isinstance(values, dict) else None
    if not isinstance(classes, dict):
        return ""
    return (
        f"{described} names {len(classes)} classes; to learn them as classes and not as objects, "
        f"add --classes {len(classes)}"
    )
