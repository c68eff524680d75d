"""A model as a bioimage.io package, which Fiji, ilastik, QuPath and others run.

The package holds the weights three times (a state dict with its architecture file, TorchScript,
ONNX), a test image with the answer to it, and in the words of the specification how an image is
normalised, how large it must be, and how far each pixel sees. The model's own folder lies beside
them, so that napari-unet gets back exactly what it gave.
"""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from napari_unet.core.errors import ModelError, OutputError
from napari_unet.core.io.files import atomic_file, expand_path
from napari_unet.core.io.sample_images import SAMPLES, blobs, sample_path
from napari_unet.core.io.stack import open_stack
from napari_unet.core.models.bioimageio import NATIVE_FILES, import_spec, package_context
from napari_unet.core.models.folder import THUMBNAIL
from napari_unet.core.models.foreign_folder import check_is_ours
from napari_unet.core.models.store import BUNDLED, find_model
from napari_unet.core.progress import Progress, run_to_end
from napari_unet.core.settings.tasks import PredictSettings
from napari_unet.core.tiles import receptive_field
from napari_unet.nn.exchange.package_description import (
    PackageFiles,
    describe_package,
    readme_text,
)
from napari_unet.nn.inference.map_source import predict
from napari_unet.nn.inference.model import Model, load_model
from napari_unet.nn.unet import portable
from napari_unet.nn.unet.convert import (
    example_input,
    to_portable,
    write_onnx,
    write_torchscript,
)

if TYPE_CHECKING:
    import os
    from collections.abc import Generator, Sequence


TEST_EDGE = {2: 256, 3: 64}
"""Smallest edge length of the test image, in pixels."""


def export_bioimageio(
    name_or_path: str | os.PathLike[str],
    target: str | os.PathLike[str],
    *,
    authors: Sequence[str] = (),
    overwrite: bool = False,
) -> Path:
    """Do what `export_bioimageio_steps` does."""
    steps = export_bioimageio_steps(name_or_path, target, authors=authors, overwrite=overwrite)
    return run_to_end(steps)


def export_bioimageio_steps(
    name_or_path: str | os.PathLike[str],
    target: str | os.PathLike[str],
    *,
    authors: Sequence[str] = (),
    overwrite: bool = False,
) -> Generator[Progress, None, Path]:
    """Write a model as a bioimage.io package (specification 0.5) and return the file's path.

    Parameters
    ----------
    authors
        Their names, for the package's description.

    Raises
    ------
    ModelError
        There is no such model, it is damaged, or the packages that write it are not installed.
    OutputError
        The file exists already, or cannot be written.
    """
    target = expand_path(target)
    if target.suffix.lower() != ".zip":
        raise OutputError(f"{target} is no name for an exported model; let it end in .zip.")
    if target.exists() and not overwrite:
        raise OutputError(f"{target} exists already; choose another name or delete it first.")
    if wrong := [name for name in authors if "/" in name or not name.strip()]:
        raise ModelError(f"{wrong[0]!r} is no author's name; give one without a slash.")
    import_spec()
    folder = find_model(name_or_path)
    check_is_ours(folder)
    yield Progress(0, 0, "loading the model")
    model = load_model(folder, "cpu")
    if folder.parent == BUNDLED and not authors:
        authors = ("napari-unet developers",)
    with tempfile.TemporaryDirectory() as scratch:
        package = Path(scratch) / "package"
        package.mkdir()
        files = yield from _write_files(model, folder, package)
        yield Progress(0, 0, "writing the description")
        with package_context(package):
            description = describe_package(model, files, authors)
            made = _save(description, Path(scratch) / "made.zip")
            del description  # the files that it holds open
        yield Progress(0, 0, f"writing {target.name}")
        with atomic_file(target) as partial:
            shutil.copyfile(made, partial)
    return target


def _save(description: Any, path: Path) -> Path:
    from bioimageio.spec import save_bioimageio_package

    save_bioimageio_package(description, output_path=path)
    return path


def minimum_size(model: Model) -> tuple[int, ...]:
    """Return the smallest image of which anything is left without the halo, on the pooling grid."""
    spec = model.spec
    return tuple(
        -(-(2 * reach + 1) // step) * step
        for reach, step in zip(receptive_field(spec), spec.stride, strict=True)
    )


def example_image(model: Model) -> np.ndarray:
    """Return a test image, float32 (C, [Z,] Y, X): a sample of the package, or round objects."""
    spec, edge = model.spec, TEST_EDGE[model.spec.ndim]
    shape = tuple(
        max(minimum, -(-edge // step) * step)
        for minimum, step in zip(minimum_size(model), spec.stride, strict=True)
    )
    sample = open_stack(sample_path(next(iter(SAMPLES))))
    grey = np.asarray(sample.data[(slice(None),) * len(sample.axes)])
    fits = spec.ndim == 2 and all(n <= m for n, m in zip(shape, grey.shape, strict=False))
    image = grey[tuple(slice(0, n) for n in shape)] if fits else blobs(shape)
    return np.repeat(image[None].astype(np.float32), spec.in_channels, axis=0)


def _write_files(
    model: Model, source: Path, folder: Path
) -> Generator[Progress, None, PackageFiles]:
    """Write everything but the description."""
    net, example = to_portable(model.net), example_input(model.spec)
    torch.save(net.state_dict(), folder / "weights.pt")
    yield Progress(0, 0, "writing the weights as TorchScript")
    write_torchscript(net, example, folder / "weights.torchscript")
    yield Progress(0, 0, "writing the weights as ONNX")
    write_onnx(net, example, folder / "weights.onnx")
    shutil.copyfile(portable.__file__, folder / "architecture.py")
    yield Progress(0, 0, "running the test image")
    image = example_image(model)
    # In one piece, at the scale of the image: what other programs are to give.
    settings = PredictSettings(survey=False, precision="float32", diameter=model.diameter)
    maps = predict(open_stack(image, "C" + "ZYX"[-model.spec.ndim :]), model, settings)
    np.save(folder / "test_input.npy", image[None])
    np.save(folder / "test_output.npy", maps[None])
    _write_cover(source / THUMBNAIL, folder / "cover.png", image, maps)
    (folder / "README.md").write_text(readme_text(model), encoding="utf-8", newline="\n")
    attachments = []
    for name in NATIVE_FILES:
        if (source / name).is_file():
            shutil.copyfile(source / name, folder / name)
            attachments.append(name)
    return PackageFiles(
        folder, receptive_field(model.spec), minimum_size(model), tuple(attachments)
    )


def _write_cover(thumbnail: Path, target: Path, image: np.ndarray, maps: np.ndarray) -> None:
    """Write the model's picture, or else the test image beside the answer to it."""
    if thumbnail.is_file():
        shutil.copyfile(thumbnail, target)
        return
    import imagecodecs

    halves = [image[0], maps[-1]]
    halves = [part if part.ndim == 2 else part[len(part) // 2] for part in halves]
    shown = [np.clip((p - p.min()) / max(float(np.ptp(p)), 1e-6) * 255, 0, 255) for p in halves]
    target.write_bytes(imagecodecs.png_encode(np.hstack(shown).astype(np.uint8)))
