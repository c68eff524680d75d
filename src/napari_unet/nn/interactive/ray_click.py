"""Clicks in a 3D view: of the voxels along the line of sight, the one that is meant."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from napari_unet.core.errors import InputError
from napari_unet.core.progress import Progress
from napari_unet.core.prompts.clicks import Click
from napari_unet.core.prompts.rays import first_inside, values_along
from napari_unet.nn.interactive.interaction import take_click

if TYPE_CHECKING:
    from napari_unet.core.prompts.rays import Ray
    from napari_unet.core.tiles import Index, Window
    from napari_unet.nn.interactive.interaction import Steps
    from napari_unet.nn.interactive.session import ClickSession


def take_ray(
    session: ClickSession,
    ray: Ray,
    positive: bool = True,
    *,
    join: bool = False,
    grow: bool = False,
) -> Steps:
    """Click where a ray first meets an object, or else on the brightest voxel along it.

    The other parameters, and the answer, are those of `take_click`.

    Raises
    ------
    InputError
        The ray does not meet the image; see also `take_click`.
    """
    yield Progress(0, 0, "looking along the line of sight")
    click = Click(place_on_ray(session, ray), positive)
    return (yield from take_click(session, click, join=join, grow=grow))


def place_on_ray(session: ClickSession, ray: Ray) -> tuple[float, ...]:
    """Return the first voxel along a ray that is in an object, or else the brightest one.

    Objects are those of the labels, and the active one.

    Raises
    ------
    InputError
        The ray does not meet the image.
    """
    stack = session.stack
    voxels = ray.voxels(stack.labels_shape)
    if not len(voxels):
        raise InputError("The click lies beside the image.")
    place = first_inside(voxels, _active(session, voxels))
    if session.labels is not None:
        objects = values_along(voxels, lambda i, w: np.asarray(session.labels[(*i, *w)]))
        labelled = first_inside(voxels, objects)
        if place is None or (labelled and _depth(voxels, labelled) < _depth(voxels, place)):
            place = labelled
    if place is None:
        channels = stack.pick_channels(session.model.spec.in_channels, session.settings.channel)

        def read(index: Index, window: Window) -> np.ndarray:
            return np.asarray(stack.read(index, window, channels).mean(axis=0))

        brightest = int(np.argmax(values_along(voxels, read)))
        place = tuple(int(n) for n in voxels[brightest])
    return tuple(float(n) for n in place)


def _active(session: ClickSession, voxels: np.ndarray) -> np.ndarray:
    """Return which voxels are in the active object."""
    inside = np.zeros(len(voxels), bool)
    for index, mask in session.shown.masks.items():
        axes = len(index)
        starts = np.array([w.start for w in mask.window])
        offsets = voxels[:, axes:] - starts
        there = (voxels[:, :axes] == np.array(index, int)).all(axis=1)
        there &= ((offsets >= 0) & (offsets < np.array(mask.inside.shape))).all(axis=1)
        inside[there] |= mask.inside[tuple(offsets[there].T)]
    return inside


def _depth(voxels: np.ndarray, place: tuple[int, ...]) -> int:
    return int(np.flatnonzero((voxels == np.array(place)).all(axis=1))[0])
