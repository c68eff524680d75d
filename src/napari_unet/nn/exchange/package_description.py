"""What a bioimage.io package says of one of our models: its description and its README."""

from __future__ import annotations

import contextlib
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, get_args

import torch

from napari_unet import __version__
from napari_unet.core.image.normalise import RANGE
from napari_unet.core.instances.heads import get_head
from napari_unet.core.text import pluralise
from napari_unet.nn.unet.convert import OPSET, portable_arguments

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from napari_unet.core.models.card import ModelCard
    from napari_unet.nn.inference.model import Model

INPUT, OUTPUT = "image", "maps"
"""The tensors' names."""


@dataclass(frozen=True)
class PackageFiles:
    """The files of a package, and the numbers that describe them.

    Attributes
    ----------
    folder
        Where they lie.
    halo, minimum
        How far a pixel sees and the smallest image, along each axis, in pixels.
    attachments
        Names of the model's own files.
    """

    folder: Path
    halo: tuple[int, ...]
    minimum: tuple[int, ...]
    attachments: tuple[str, ...]

    def path(self, name: str) -> Path:
        """Return a file's path."""
        return self.folder / name


def describe_package(model: Model, files: PackageFiles, authors: Sequence[str]) -> Any:
    """Return the package's description, checked against the specification.

    To be called in a `package_context`.
    """
    from bioimageio.spec.model import v0_5

    spec: Any = v0_5
    card = model.card
    license_id = licence_id(card.licence)
    writers = [spec.Author(name=name) for name in authors]
    return spec.ModelDescr(
        name=_package_name(card.name),
        description=_one_sentence(card),
        authors=writers,
        license=license_id,
        covers=[spec.FileDescr(source=files.path("cover.png"))],
        documentation=spec.FileDescr(source=files.path("README.md")),
        id=spec.ModelId(package_id(card.hash)),
        parent=spec.LinkedModel(id=spec.ModelId(package_id(card.parent))) if card.parent else None,
        version="0.1.0",
        tags=_tags(card),
        cite=[
            spec.CiteEntry(
                text="Falk et al. 2019, U-Net: deep learning for cell counting, detection, and "
                "morphometry",
                doi=spec.Doi("10.1038/s41592-018-0261-2"),
            )
        ],
        inputs=[_input(card, files, spec)],
        outputs=[_output(card, files, spec)],
        weights=_weights(card, files, spec),
        # Of a tuned model the licence is that of the weights: nobody said whose the images are.
        training_data=_training_data(card, None if card.parent else license_id),
        attachments=[spec.FileDescr(source=files.path(name)) for name in files.attachments],
        config=spec.Config.model_validate({"napari_unet": _own_words(card)}),
    )


def _own_words(card: ModelCard) -> dict[str, Any]:
    return {"version": __version__, "model_hash": card.hash, "decode": card.decode}


def _input(card: ModelCard, files: PackageFiles, spec: Any) -> Any:
    axes = [spec.BatchAxis(), spec.ChannelAxis(channel_names=_channels(card.spec.in_channels))]
    steps = card.spec.stride
    letters = "zyx"[-card.spec.ndim :]
    for letter, minimum, step in zip(letters, files.minimum, steps, strict=True):
        size = spec.ParameterizedSize(min=minimum, step=step)
        axes.append(spec.SpaceInputAxis(id=spec.AxisId(letter), size=size))
    norm = card.normalisation
    return spec.InputTensorDescr(
        id=spec.TensorId(INPUT),
        description=f"intensities of any range; {card.spec.in_channels} channels",
        axes=axes,
        test_tensor=spec.FileDescr(source=files.path("test_input.npy")),
        data=spec.IntervalOrRatioDataDescr(type="float32"),
        preprocessing=[
            spec.EnsureDtypeDescr(kwargs=spec.EnsureDtypeKwargs(dtype="float32")),
            spec.ScaleRangeDescr(
                kwargs=spec.ScaleRangeKwargs(
                    axes=[spec.AxisId(letter) for letter in letters],
                    min_percentile=norm["low"],
                    max_percentile=norm["high"],
                    eps=1e-6,
                )
            ),
            spec.ClipDescr(kwargs=spec.ClipKwargs(min=RANGE[0], max=RANGE[1])),
        ],
    )


def _output(card: ModelCard, files: PackageFiles, spec: Any) -> Any:
    names = [name.replace(" ", "_") for name in get_head(card.spec).names]
    axes = [spec.BatchAxis(), spec.ChannelAxis(channel_names=names)]
    for letter, halo in zip("zyx"[-card.spec.ndim :], files.halo, strict=True):
        size = spec.SizeReference(tensor_id=spec.TensorId(INPUT), axis_id=spec.AxisId(letter))
        if halo:
            axis = spec.SpaceOutputAxisWithHalo(id=spec.AxisId(letter), size=size, halo=halo)
        else:
            axis = spec.SpaceOutputAxis(id=spec.AxisId(letter), size=size)
        axes.append(axis)
    softmax = spec.SoftmaxDescr(kwargs=spec.SoftmaxKwargs(axis=spec.AxisId("channel")))
    semantic = card.spec.head == "semantic"
    return spec.OutputTensorDescr(
        id=spec.TensorId(OUTPUT),
        description="class probabilities" if semantic else _MAPS,
        axes=axes,
        test_tensor=spec.FileDescr(source=files.path("test_output.npy")),
        data=spec.IntervalOrRatioDataDescr(type="float32"),
        postprocessing=[softmax] if semantic else [],
    )


_MAPS = "foreground probability; distance to the object's border, 1 in its middle"


def _weights(card: ModelCard, files: PackageFiles, spec: Any) -> Any:
    version = re.match(r"\d+\.\d+\.\d+", torch.__version__)
    torch_version = version.group() if version else "2.4.0"
    architecture = spec.ArchitectureFromFileDescr(
        source=files.path("architecture.py"),
        callable="PortableUNet",
        kwargs=portable_arguments(card.spec),
    )
    return spec.WeightsDescr(
        pytorch_state_dict=spec.PytorchStateDictWeightsDescr(
            source=files.path("weights.pt"),
            architecture=architecture,
            pytorch_version=torch_version,
        ),
        torchscript=spec.TorchscriptWeightsDescr(
            source=files.path("weights.torchscript"),
            pytorch_version=torch_version,
            parent="pytorch_state_dict",
        ),
        onnx=spec.OnnxWeightsDescr(
            source=files.path("weights.onnx"), opset_version=OPSET, parent="pytorch_state_dict"
        ),
    )


def _training_data(card: ModelCard, license_id: Any) -> Any:
    """Describe the training images, as far as the card knows them."""
    from bioimageio.spec.dataset.v0_3 import DatasetDescr

    seen = card.training
    if not seen.get("images"):
        return None
    parts = [pluralise(int(seen["images"]), "image")]
    if seen.get("objects"):
        parts.append(pluralise(int(seen["objects"]), "object"))
    if seen.get("data_hash"):
        parts.append(str(seen["data_hash"]))
    return DatasetDescr(
        name=f"Training images of {_package_name(card.name)}"[:128],
        description=", ".join(parts),
        license=license_id,
    )


def licence_id(licence: str) -> Any:
    """Return the SPDX identifier at the beginning of a card's licence, if there is one."""
    from bioimageio.spec.generic.v0_3 import LicenseId

    first = re.match(r"[\w.+-]*", licence)
    known = {name.casefold(): name for name in get_args(LicenseId)}
    if not known:  # a type built in another way by some versions
        with contextlib.suppress(Exception):
            return str(LicenseId(first.group() if first else ""))
    return known.get(first.group().casefold()) if first else None


def package_id(model_hash: str) -> str:
    """Return the identifier of a model's package: children name their parents by it."""
    return f"napari-unet-{model_hash[:12]}"


def _package_name(name: str) -> str:
    """Return a name that the specification allows: 5 to 128 letters, digits, spaces, _ + - ()."""
    plain = re.sub(r"[^A-Za-z0-9_+\- ()]", "-", name)
    return plain if len(plain) >= 5 else f"{plain} U-Net"


def _channels(count: int) -> list[str]:
    return ["red", "green", "blue"] if count == 3 else [f"channel{k}" for k in range(count)]


def _tags(card: ModelCard) -> list[str]:
    kind = "instance-segmentation" if card.spec.head == "instance" else "semantic-segmentation"
    return ["unet", f"{card.spec.ndim}d", "pytorch", kind, "segmentation", "napari-unet"]


def _one_sentence(card: ModelCard) -> str:
    spec, seen = card.spec, card.training
    what = "separate objects" if spec.head == "instance" else f"{spec.classes} classes of pixels"
    learned = (
        f", trained on {pluralise(int(seen['images']), 'image')}" if seen.get("images") else ""
    )
    return f"A {spec.ndim}D U-Net of napari-unet for {what}{learned}."


def readme_text(model: Model) -> str:
    """Return the package's documentation, from the card."""
    card = model.card
    size = model.diameter
    lines = [f"# {card.name}", "", _one_sentence(card), "", "## How to use it", ""]
    lines += [f"The output holds, for each pixel: {', '.join(get_head(card.spec).names)}."]
    if card.spec.head == "instance":
        found = model.decoding
        lines += [
            f"Objects are where the foreground exceeds {found.threshold:g}; a watershed on the "
            "distance divides those that touch "
            f"(passes shallower than {found.merge:g} of an object's height do not divide; objects "
            f"below {found.min_size} pixels are dropped).",
        ]
    if size:
        lines += [
            "",
            f"It was taught objects of about {size:.0f} pixels in diameter: rescale other images "
            "until theirs are as large. napari-unet does that by itself.",
        ]
    lines += ["", "## Training data", ""]
    lines += [f"- {key}: {value}" for key, value in card.training.items() if key != "statistics"]
    lines += ["", "## Validation", ""]
    lines += [f"- {key}: {value}" for key, value in card.metrics.items()] or ["Not measured."]
    lines += ["", "Run it on images with known objects and compare: `napari-unet evaluate`."]
    lines += ["", "## Licence", "", card.licence or "Not stated; ask the authors."]
    if card.parent:
        lines += ["", f"Tuned from the model with the hash {card.parent}."]
    lines += ["", f"Hash of this model: {card.hash}; written by napari-unet {__version__}."]
    return "\n".join(lines) + "\n"
