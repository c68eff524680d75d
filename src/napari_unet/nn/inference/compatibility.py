"""Where a stack meets a model: its axes, its channels, its scale."""

from __future__ import annotations

from typing import TYPE_CHECKING

from napari_unet.core.errors import InputError, SettingsError
from napari_unet.core.image.frames import Frame

if TYPE_CHECKING:
    from napari_unet.core.io.stack import Stack
    from napari_unet.core.settings.tasks import PredictSettings
    from napari_unet.nn.inference.model import Model


def check_fit(stack: Stack, model: Model) -> None:
    """Raise InputError if a model's axes cannot be found in a stack."""
    if model.spec.ndim == 3 and "Z" not in stack.axes:
        raise InputError(
            f"{stack.name or 'The image'} has axes {stack.axes}, but the model {model.name!r} "
            "needs volumes; give axes with a Z, or choose a 2D model."
        )


def open_frame(
    stack: Stack, model: Model, settings: PredictSettings, index: tuple[int, ...]
) -> Frame:
    """Prepare one frame of a stack for a model: channels, percentiles and scale."""
    norm = model.card.normalisation
    return Frame.from_stack(
        stack,
        index,
        model.spec.ndim,
        stack.pick_channels(model.spec.in_channels, settings.channel),
        percentiles=(norm["low"], norm["high"]),
        scale=choose_scale(model, settings),
    )


def choose_scale(model: Model, settings: PredictSettings) -> float:
    """Return network pixels a stack pixel, from the diameter that was asked for.

    Raises
    ------
    SettingsError
        A diameter was given, but the model does not say for which one it was trained.
    """
    if settings.diameter is None:
        return 1.0
    if model.diameter is None:
        raise SettingsError(
            f"diameter is {settings.diameter}, but the model {model.name!r} does not record the "
            "size of its training objects; leave diameter empty."
        )
    return model.diameter / settings.diameter
