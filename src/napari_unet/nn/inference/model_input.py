"""What of a stack a model is shown: which channels, at what scale, with what normalisation."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from napari_unet.core.errors import InputError, SettingsError
from napari_unet.core.image.foreign_frame import ForeignFrame, ForeignNormaliser
from napari_unet.core.image.frames import Frame
from napari_unet.core.image.normalise import Normaliser
from napari_unet.core.progress import ImageRemark
from napari_unet.core.settings.foreign_spec import ForeignSpec
from napari_unet.nn.inference.runner import AUTO, FLIPS, OFF

if TYPE_CHECKING:
    from napari_unet.core.io.stack import Stack
    from napari_unet.core.settings.tasks import PredictSettings
    from napari_unet.core.tiles import Index
    from napari_unet.nn.inference.model import Model

MIRRORED_SHARE, MIRRORED_PIXELS = 0.5, 2**20
"""A plane is mirrored unasked if the network sees at most this share of its pixels, and so many:
the four views take no longer than two looks at the image's own pixels, or two seconds."""


def image_remarks(stack: Stack, model: Model, settings: PredictSettings) -> tuple[ImageRemark, ...]:
    """Return what to say of how the image was read, and of channels that are left out unasked."""
    texts = list(stack.remarks)
    used = get_channels(stack, model, settings)
    seen = min(stack.channels, 3) if stack.rgb else stack.channels
    if settings.channel is None and len(set(used)) < seen:
        names = stack.channel_names
        held = f" ({', '.join(names)})" if names else ""
        name = f" ({names[used[0]]})" if names and names[used[0]] else ""
        texts.append(
            f"{stack.name} has {stack.channels} channels{held}, of which channel {used[0]}{name} "
            f"is used. Choose another (channel, 0 to {stack.channels - 1}), or name the axes if "
            "they are planes."
        )
    return tuple(map(ImageRemark, texts))


def get_channels(stack: Stack, model: Model, settings: PredictSettings) -> tuple[int, ...]:
    """Return which channel of the image each input of the model is given."""
    return stack.pick_channels(model.spec.in_channels, settings.channel)


def check_fit(stack: Stack, model: Model) -> None:
    """Raise InputError if a model's axes cannot be found in a stack."""
    if model.spec.ndim == 3 and "Z" not in stack.axes:
        raise InputError(
            f"{stack.name or 'The image'} has axes {stack.axes}, but the model {model.name!r} "
            "needs volumes; give axes with a Z, or choose a 2D model."
        )


def open_frame(
    stack: Stack,
    model: Model,
    settings: PredictSettings,
    index: Index,
    *,
    normaliser: Normaliser | None = None,
    ndim: int | None = None,
) -> Frame:
    """Return one frame of a stack as a model sees it: its channels, percentiles and scale.

    Parameters
    ----------
    index
        The frame's position along the leading axes.
    normaliser
        Measured already, with an entry for each distinct channel; None: it is measured here.
    ndim
        2 for a plane, 3 for a volume; the model's own if not given.
    """
    channels = get_channels(stack, model, settings)
    if isinstance(model.spec, ForeignSpec):
        choose_scale(model, settings)  # raises if a diameter is given
        ndim = ndim or model.spec.ndim
        found = normaliser or measure_intensities(stack, model, index, channels)
        size = stack.frame_shape(ndim)
        return ForeignFrame(stack, index, channels, found, size, size)
    scale, ndim = choose_scale(model, settings), ndim or model.spec.ndim
    if normaliser is None:
        norm = model.card.normalisation
        limits = (norm["low"], norm["high"])
        return Frame.from_stack(stack, index, ndim, channels, percentiles=limits, scale=scale)
    size = stack.frame_shape(ndim)
    return Frame(stack, index, channels, normaliser, size, size).at(scale)


def measure_intensities(
    stack: Stack,
    model: Model,
    index: Index,
    channels: tuple[int, ...],
    ndim: int | None = None,
    skip: tuple[type[Exception], ...] = (),
) -> Normaliser:
    """Measure how the intensities of a frame are prepared for a model.

    Parameters
    ----------
    channels
        As `Stack.pick_channels` gives them.
    ndim
        2 for a plane, 3 for a volume; the model's own if not given.
    skip
        Errors at which a part of the frame is left out.
    """
    ndim = ndim or model.spec.ndim
    if isinstance(model.spec, ForeignSpec):
        steps = model.spec.preprocessing
        return ForeignNormaliser.measure(stack, index, ndim, channels, steps, skip)
    norm = model.card.normalisation
    distinct = tuple(sorted(set(channels)))
    limits = (norm["low"], norm["high"])
    return Normaliser.from_stack(stack, index, ndim, distinct, *limits, skip=skip)


def get_voxel_ratio(model: Model, stack: Stack) -> float:
    """Return how much longer a stack's voxels are in z than in the plane, for `model.diameter`.

    It is 1 for planes, and for models that were taught in volumes of unknown voxels: their
    diameters count voxels. A stack that does not know its voxels is taken to be like those that
    the model was taught with.
    """
    taught = model.card.training.get("voxel_ratio")
    if model.spec.ndim == 2 or not taught:
        return 1.0
    size = stack.voxel_size_um
    return size[0] / size[-1] if size else float(taught)


def choose_scale(model: Model, settings: PredictSettings) -> float:
    """Return network pixels a stack pixel, from the diameter in the settings.

    Raises
    ------
    SettingsError
        A diameter is given, but the model does not record the one that it was trained for.
    """
    if settings.diameter is None:
        return 1.0
    if model.diameter is None:
        raise SettingsError(
            f"diameter is {settings.diameter}, but the model {model.name!r} does not record the "
            "size of its training objects; leave diameter empty."
        )
    return model.diameter / settings.diameter


def choose_augment(settings: PredictSettings, frame: Frame) -> str:
    """Return which views of a frame its answers are averaged over: "auto" chooses.

    Mirrored copies of a plane that the network sees so small that they take little time.
    """
    if settings.augment != AUTO:
        return settings.augment
    seen, there = math.prod(frame.shape), math.prod(frame.size)
    few = seen <= MIRRORED_SHARE * there and seen <= MIRRORED_PIXELS
    return FLIPS if few and len(frame.size) == 2 else OFF
