"""`napari-unet convert`: labels of one program as those of another."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari_unet.cli.options import add_command, add_labels_as
from napari_unet.cli.terminal import UNUSABLE, run_all, say
from napari_unet.core.errors import InputError, OutputError
from napari_unet.core.io.files import expand_path

if TYPE_CHECKING:
    from argparse import Namespace

    from tqdm import tqdm


def add_convert(commands: Any) -> None:
    """Describe the command and its options."""
    command = add_command(
        commands, "convert", _convert, "Write labels of one program as those of another"
    )
    command.add_argument(
        "labels",
        type=expand_path,
        help="an image of labels, ROIs of ImageJ (.zip), .geojson, COCO (.json), _seg.npy of "
        "Cellpose; or a folder of them, or of the frames of the Cell Tracking Challenge",
    )
    command.add_argument("output", type=expand_path, help="the file to write, or a folder")
    command.add_argument(
        "--to",
        metavar="KIND",
        help="kind of labels: tif, png, zarr, rois, geojson, coco, cellpose or ctc. Not given: by "
        "the name",
    )
    command.add_argument(
        "--image",
        type=expand_path,
        metavar="PATH",
        help="the image, or a folder with equal names: outlines do not say how large it is",
    )
    command.add_argument("--axes", metavar="A", help="a letter for each axis of the labels")
    add_labels_as(command)
    command.add_argument("--overwrite", action="store_true", help="replace existing files")


@dataclass(frozen=True)
class Conversion:
    """Labels to convert, and where they go; `image` is None if it is not known."""

    source: Path
    target: Path
    kind: str
    image: Path | None = None
    name: str | None = None


def _convert(values: Namespace) -> int:
    from napari_unet.core.io.files import check_input_stays
    from napari_unet.core.labels.label_export import export_labels

    conversions, many = _plan(values), values.labels.is_dir()

    def run(job: Conversion, bar: tqdm[Any]) -> None:
        bar.set_description(job.source.name, refresh=False)
        check_input_stays(job.source, job.target)
        stack, remarks = _read(job, values)
        for remark in remarks:
            say(f"warning: {remark}")
        line = export_labels(
            stack,
            job.target,
            job.kind,
            image=job.image,
            overwrite=values.overwrite,
            source=job.source,
        )
        print(line)

    failed = run_all(conversions, run, keep_going=many or len(conversions) > 1)
    return UNUSABLE if failed else 0


def _plan(values: Namespace) -> list[Conversion]:
    """Return what to convert: a file, those of a folder, or the images of a COCO JSON.

    Raises
    ------
    UnetError
        What is given does not fit together.
    """
    from napari_unet.core.io.files import check_exists, is_image_folder, make_folder
    from napari_unet.core.labels.coco import list_coco_images
    from napari_unet.core.labels.foreign import COCO, foreign_kind
    from napari_unet.core.labels.label_export import CHALLENGE, ENDINGS, kind_of_target
    from napari_unet.core.labels.pairing import (
        is_of_challenge,
        list_label_files,
        match_label_files,
        unique_stems,
    )

    source, output, image = values.labels, values.output, values.image
    check_exists(source, *([image] if image is not None else []))
    if values.to is not None and values.to not in ENDINGS:
        raise OutputError(f"--to is {values.to!r}; choose one of: {', '.join(ENDINGS)}.")
    folder = is_image_folder(source)
    files = list_label_files(source) if folder else [source]
    if not files:
        raise InputError(f"{source} holds no labels; give a file or folder of labels.")
    joined = folder and output.suffix and all(map(is_of_challenge, files))
    if (joined or not folder) and not (values.to and output.is_dir() and values.to != CHALLENGE):
        several = not folder and foreign_kind(source) == COCO and len(list_coco_images(source)) > 1
        if not several:
            kind = values.to or kind_of_target(output)
            return [Conversion(source, output, kind, image, None if image is None else image.name)]
    kind = values.to
    if kind == CHALLENGE:
        raise OutputError(
            f"{source} holds many labels, and the layout of the Cell Tracking Challenge is of one "
            "time series; give a file with a time axis, or frames named t000.tif, t001.tif, ..."
        )
    if kind is None:
        raise OutputError(f"{source} holds many labels; say what to make of each: --to KIND.")
    names = unique_stems(files) if folder else {}
    if not folder and foreign_kind(source) == COCO:
        names = {Path(name).stem: source for name in list_coco_images(source)}
    elif not folder:
        names = unique_stems(files)
    images: dict[str, Path] = {}
    if image is not None:
        images = match_label_files(names, image) if image.is_dir() else dict.fromkeys(names, image)
    make_folder(output)
    return [
        Conversion(path, output / f"{name}{ENDINGS[kind]}", kind, images.get(name), name)
        for name, path in names.items()
    ]


def _read(job: Conversion, values: Namespace) -> tuple[Any, list[str]]:
    """Return the labels as a stack, and what was noticed."""
    from dataclasses import replace

    from napari_unet.core.io.stack import Stack, open_stack
    from napari_unet.core.labels.foreign import foreign_kind
    from napari_unet.core.labels.label_export import read_challenge
    from napari_unet.core.labels.label_file import LabelReading, doubt_sentence, read_label_file
    from napari_unet.core.labels.pairing import list_label_files

    image = None if job.image is None else open_stack(job.image)
    size_um = None if image is None else image.voxel_size_um
    if job.source.is_dir() and job.source.suffix != ".zarr":
        frames = read_challenge(job.source, list_label_files(job.source))
        return Stack(frames, "TZYX" if frames.ndim == 4 else "TYX", size_um), []
    how = LabelReading(values.labels_as, values.axes, name=job.name)
    if image is not None:
        how = replace(how, image=(image.labels_shape, image.labels_axes))
    read = read_label_file(job.source, how)
    axes = read.axes
    if values.axes and foreign_kind(job.source):
        axes = open_stack(read.values, values.axes).axes
    place = image  # where the labels lie in the world, with the times of their frames
    if size_um is None and not foreign_kind(job.source):
        place = open_stack(job.source, values.axes)
        size_um = place.voxel_size_um
    transform = None if place is None else place.transform
    remarks = list(read.remarks)
    if read.doubt:
        remarks.append(doubt_sentence(job.source, read.doubt))
    transform = transform.select_axes(axes) if transform is not None else None
    return Stack(read.values, axes, size_um, transform=transform), remarks
