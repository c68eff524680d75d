"""Linking the objects of a segmented time-lapse: by overlap, or by trackastra where it is there."""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_unet.core.errors import InputError, ModelError
from napari_unet.core.labels.object_check import background_below_zero, whole_numbers
from napari_unet.core.progress import Progress, run_to_end
from napari_unet.core.settings.tasks import LinkSettings
from napari_unet.core.tracking import AUTO, OVERLAP, TRACKASTRA, Linker

if TYPE_CHECKING:
    from collections.abc import Generator

    from numpy.typing import NDArray

    from napari_unet.core.tracking import Tracks

_MODELS = {2: "general_2d", 3: "ctc"}
"""The models of trackastra that suit planes and volumes."""


@dataclass(frozen=True, eq=False)
class Linked:
    """Labels whose ids are those of tracks, uint32 (T, [Z,] Y, X), and the tracks."""

    labels: np.ndarray
    tracks: Tracks


def link_frames(
    labels: np.ndarray | Any,
    axes: str | None = None,
    settings: LinkSettings | None = None,
    *,
    voxel_size_um: tuple[float, float, float] | None = None,
    image: np.ndarray | Any = None,
) -> Linked:
    """Link the objects of a time-lapse: the same id for the same object at all times.

    Parameters
    ----------
    labels
        Whole numbers (T, [Z,] Y, X), each frame segmented on its own; 0 and below is background.
    axes
        A letter for each axis; TYX or TZYX if not given.
    settings
        How objects are linked.
    voxel_size_um
        (z, y, x), so that distances along z are right.
    image
        What the labels were found in, of the same shape; only trackastra needs it.

    Raises
    ------
    UnetError
        There is no time axis, the values are no whole numbers, or trackastra is requested and
        cannot be used.
    """
    axes = axes or ("TYX" if np.ndim(labels) == 3 else "TZYX")
    out = np.zeros(labels.shape, np.uint32)
    steps = link_steps(labels, axes, settings, voxel_size_um=voxel_size_um, image=image, out=out)
    return Linked(out, run_to_end(steps))


def link_steps(
    labels: Any,
    axes: str,
    settings: LinkSettings | None = None,
    *,
    out: Any,
    voxel_size_um: tuple[float, float, float] | None = None,
    image: Any = None,
) -> Generator[Progress, None, Tracks]:
    """Link the objects of a time-lapse, yielding after every frame.

    Frames are read and written one after the other, and two are held at a time; `out` may be
    `labels` itself. trackastra needs memory for all frames at once.

    Parameters
    ----------
    labels, axes, settings, voxel_size_um, image
        As for `link_frames`.
    out
        Where the labels by track go, indexed by integers along T.

    Returns
    -------
    Tracks
        The tracks, in pixels.
    """
    settings = settings or LinkSettings()
    if axes not in ("TYX", "TZYX") or len(labels.shape) != len(axes):
        raise InputError(
            f"Labels of shape {tuple(labels.shape)} with axes {axes} have no frames to link; "
            "give labels with the axes TYX or TZYX."
        )
    count, origins = labels.shape[0], None
    if _choose_method(settings, len(axes) - 1, image) == TRACKASTRA:
        yield Progress(0, count, "frames looked at by trackastra")
        origins = trackastra_origins(labels, image, trackastra_folder(len(axes) - 1))
    ratio = 1.0 if voxel_size_um is None else voxel_size_um[0] / voxel_size_um[1]
    linker = Linker(settings, ratio)
    for t in range(count):
        frame, _ = background_below_zero(whole_numbers(np.asarray(labels[t]), f"Time {t}"))
        out[t] = linker.add(frame, None if origins is None else origins[t])
        yield Progress(t + 1, count, "frames linked")
    return linker.finish()


def trackastra_folder(ndim: int) -> Path:
    """Return where trackastra keeps its model for planes (2) or volumes (3)."""
    from platformdirs import user_data_dir

    return Path(user_data_dir("trackastra")) / "models" / _MODELS[ndim]


def trackastra_origins(labels: Any, image: Any, folder: Path) -> list[NDArray[np.int64]]:
    """Link by trackastra (Gallusser and Weigert 2024, Trackastra: Transformer-based cell tracking).

    Returns
    -------
    list of np.ndarray
        For each frame what `match_frames` of core returns.
    """
    from trackastra.model import Trackastra  # type: ignore[import-not-found]

    frames = np.asarray(labels)
    graph, _ = Trackastra.from_folder(folder, device="automatic").track(
        np.asarray(image), frames, mode="greedy"
    )
    ids = [np.unique(frame[frame > 0]) for frame in frames]
    origins = [np.full(len(found), -1, np.int64) for found in ids]
    for source, target in graph.edges:
        before, now = graph.nodes[source], graph.nodes[target]
        t = int(now["time"])
        if int(before["time"]) == t - 1:
            origin = np.searchsorted(ids[t - 1], before["label"])
            origins[t][np.searchsorted(ids[t], now["label"])] = origin
    return origins


def _choose_method(settings: LinkSettings, ndim: int, image: Any) -> str:
    """Return what links the objects: `OVERLAP` or `TRACKASTRA`.

    Raises
    ------
    ModelError, InputError
        trackastra is requested, but it, its model or the image is missing.
    """
    requested = settings.link_by
    if requested == OVERLAP:
        return OVERLAP
    present = importlib.util.find_spec("trackastra") is not None
    folder = trackastra_folder(ndim)
    if requested == AUTO:
        return TRACKASTRA if present and folder.is_dir() and image is not None else OVERLAP
    if not present:
        raise ModelError(
            "trackastra is not installed; run `pip install trackastra`, or link by overlap."
        )
    if not folder.is_dir():
        raise ModelError(
            f"trackastra's model {folder.name!r} is not in {folder.parent}, and nothing is "
            "downloaded unasked; let trackastra fetch it once (Trackastra.from_pretrained), or "
            "link by overlap."
        )
    if image is None:
        raise InputError("trackastra looks at the image, too; give it, or link by overlap.")
    return TRACKASTRA
