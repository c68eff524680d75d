"""The network of a bioimage.io package: its axes, sizes, halo, and what is done before and after.

What a network needs that cannot be done tile by tile is refused with the reason.
"""

from __future__ import annotations

from typing import Any

from napari_unet.core.errors import ModelError
from napari_unet.core.image.foreign_frame import AFTER, BEFORE
from napari_unet.core.models.output_meaning import with_meaning
from napari_unet.core.settings.foreign_spec import ForeignSpec, Operation

DEFAULT_HALO = {"z": 8, "y": 32, "x": 32}
"""What is taken for a halo where a network declares none: few see farther than they can say."""


def one_input(found: Any) -> Any:
    """Return the only input of a package.

    Raises
    ------
    ModelError
        There are several.
    """
    needed = [tensor for tensor in found.inputs if not tensor.optional]
    if len(needed) != 1 or len(found.inputs) != 1:
        raise ModelError(
            f"The network takes {len(found.inputs)} inputs; only networks of one can be run."
        )
    return needed[0]


def one_output(found: Any) -> Any:
    """Return the first output that is an image."""
    for tensor in found.outputs:
        if {"y", "x"} <= {str(axis.id) for axis in tensor.axes}:
            return tensor
    raise ModelError("The network gives no image: none of its outputs has the axes y and x.")


_LETTERS = {"batch": "b", "channel": "c", "time": "t", "index": "i"}


def _axes(tensor: Any) -> str:
    """Return a letter for each axis of a tensor."""
    letters = "".join(
        str(axis.id) if axis.type == "space" else _LETTERS[axis.type] for axis in tensor.axes
    )
    wrong = [str(axis.id) for axis in tensor.axes if axis.type == "space"]
    if len(set(letters)) != len(letters) or not set(wrong) <= set("zyx"):
        raise ModelError(f"The network's axes are {', '.join(str(a.id) for a in tensor.axes)}.")
    for axis in tensor.axes:
        if axis.type in ("time", "index") and getattr(axis, "size", 1) != 1:
            raise ModelError(
                f"The network takes several entries along {axis.id}; only single images can be run."
            )
    if not {"y", "x"} <= set(letters):
        raise ModelError(f"The network's axes are {letters!r}; y and x are needed.")
    return letters


def describe_network(found: Any, image: Any, maps: Any, runtime: str) -> ForeignSpec:
    """Return what is known of a package's network.

    Parameters
    ----------
    found
        The package's description, of the newest version.
    image, maps
        Its input and its output.
    runtime
        What runs its weights.

    Raises
    ------
    ModelError
        It asks for what cannot be done.
    """
    input_axes, output_axes = _axes(image), _axes(maps)
    letters = [letter for letter in "zyx" if letter in input_axes]
    if letters != [letter for letter in "zyx" if letter in output_axes]:
        raise ModelError(
            f"The network turns {input_axes!r} into {output_axes!r}; the output must be as flat or "
            "deep as the image."
        )
    sizes = {str(axis.id): _size(found, image, axis) for axis in image.axes if axis.type == "space"}
    halos = {str(axis.id): getattr(axis, "halo", 0) for axis in maps.axes}
    shrinks = {
        str(axis.id): _shrink(image, axis, sizes) for axis in maps.axes if axis.type == "space"
    }
    if not any(halos[letter] for letter in letters):
        halos = {
            letter: _default_halo(letter, *sizes[letter], shrinks[letter]) for letter in letters
        }
    inputs = _channel_names(image)
    names = _channel_names(maps)
    spatial = set(letters)
    before = [
        _operation(step, spatial, str(image.id), BEFORE, "preprocessing")
        for step in image.preprocessing
    ]
    after = [
        _operation(step, spatial, str(maps.id), AFTER, "postprocessing")
        for step in maps.postprocessing
    ]
    dtype = next((s.values["dtype"] for s in before[::-1] if s.name == "ensure_dtype"), "float32")
    spec = ForeignSpec(
        ndim=len(letters),
        in_channels=len(inputs),
        head="semantic",
        classes=max(2, len(names)),
        runtime=runtime,
        input_axes=input_axes,
        output_axes=output_axes,
        output=list(found.outputs).index(maps),
        minimum=tuple(sizes[letter][0] for letter in letters),
        step=tuple(sizes[letter][1] for letter in letters),
        halo=tuple(halos[letter] for letter in letters),
        shrink=tuple(shrinks[letter] for letter in letters),
        dtype=dtype if dtype != "bool" else "float32",
        preprocessing=tuple(before),
        postprocessing=tuple(after),
        names=tuple(names),
    )
    said = " ".join(map(str, (maps.description, found.name, found.description, *found.tags)))
    return with_meaning(spec, said)


def _size(found: Any, image: Any, axis: Any) -> tuple[int, int]:
    """Return the minimum and step of an axis's size; step 0 for a single size."""
    size = axis.size
    if isinstance(size, int):
        return size, 0
    if hasattr(size, "min") and hasattr(size, "step"):
        return int(size.min), int(size.step)
    if hasattr(size, "axis_id"):
        other = next(
            (a for a in image.axes if a.id == size.axis_id and size.tensor_id == image.id), None
        )
        if other is not None and other is not axis and size.offset == 0:
            return _size(found, image, other)
    raise ModelError(f"The size of the network's input along {axis.id} cannot be understood.")


def _shrink(image: Any, axis: Any, sizes: dict[str, tuple[int, int]]) -> int:
    """Return by how many pixels the output is smaller than the input at each end of an axis.

    Raises
    ------
    ModelError
        It is larger, of another scale, or not said.
    """
    letter, size = str(axis.id), axis.size
    minimum, step = sizes[letter]
    other = next(a for a in image.axes if str(a.id) == letter)
    scaled = getattr(axis, "scale", 1.0) != getattr(other, "scale", 1.0)
    if isinstance(size, int) and not step:
        difference = minimum - size
    elif hasattr(size, "axis_id") and size.axis_id == other.id and not scaled:
        difference = -int(size.offset)
    else:
        difference = -1
    if difference < 0 or difference % 2:
        raise ModelError(
            f"The network's output has another size than its input along {letter}; only networks "
            "whose output lies on the image's pixels can be run."
        )
    return difference // 2


def _default_halo(letter: str, minimum: int, step: int, shrink: int) -> int:
    """Return a halo for an axis that declares none; of a single size at most a quarter."""
    if shrink:
        return 0  # it crops what it does not know
    return DEFAULT_HALO[letter] if step else min(DEFAULT_HALO[letter], minimum // 4)


def _channel_names(tensor: Any) -> list[str]:
    for axis in tensor.axes:
        if axis.type == "channel":
            return [str(name) for name in axis.channel_names]
    return [str(tensor.id)]


def _operation(
    step: Any, spatial: set[str], tensor: str, known: tuple[str, ...], where: str
) -> Operation:
    """Return one step in our words.

    Raises
    ------
    ModelError
        It is unknown, or needs more than a frame's statistics.
    """
    name = str(step.id)
    values = step.kwargs.model_dump(mode="json") if getattr(step, "kwargs", None) else {}
    axes, reference = values.pop("axes", None), values.pop("reference_tensor", None)
    along = values.pop("axis", None)
    percentiles = {"min_percentile", "max_percentile"} & {k for k, v in values.items() if v}
    if name not in known or (where == "postprocessing" and percentiles):
        raise ModelError(
            f"The package's {where} {name!r} cannot be done"
            f"{' tile by tile' if name in BEFORE or percentiles else ''}; known are: "
            f"{', '.join(known)}."
        )
    if reference not in (None, tensor) or along not in (None, "channel"):
        raise ModelError(f"The package's {where} {name!r} refers to {reference or along}.")
    if axes is not None and not spatial <= set(axes):
        raise ModelError(
            f"The package's {where} {name!r} is done along {', '.join(axes)} only; it can be done "
            "for whole frames."
        )
    if name in ("scale_range", "zero_mean_unit_variance") or (name == "clip" and percentiles):
        values["joint"] = axes is None or "channel" in axes
    return Operation(name, {key: value for key, value in values.items() if value is not None})
