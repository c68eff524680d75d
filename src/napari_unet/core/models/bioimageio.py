"""Packages of bioimage.io: what of them napari-unet can run, and how their networks are described.

The specification is read by `bioimageio.spec`, which brings older versions forward. No file is
opened but those that are used, nothing is fetched, and no code of a package is run here.
"""

from __future__ import annotations

import gc
import hashlib
import re
import warnings
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from napari_unet.core.errors import ModelError
from napari_unet.core.image.foreign_frame import AFTER, BEFORE
from napari_unet.core.io.files import UNREADABLE, first_line
from napari_unet.core.models.folder import CARD, REPLAY, THUMBNAIL, WEIGHTS
from napari_unet.core.settings.foreign_spec import (
    CLASSES,
    IMAGE,
    OBJECTS,
    ONNX,
    TORCHSCRIPT,
    ForeignSpec,
    Operation,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

NATIVE_FILES = (CARD, WEIGHTS, REPLAY, THUMBNAIL)
"""Files of a model's own folder, which exported packages carry along."""
DESCRIPTIONS = ("rdf.yaml", "bioimageio.yaml", "model.yaml")
"""Names of a package's description."""
NEWEST = (0, 5)
"""The newest version of the specification whose packages can be read."""
DEFAULT_HALO = {"z": 8, "y": 32, "x": 32}
"""What is taken for a halo where a network declares none: few see farther than they can say."""


@dataclass(frozen=True)
class Package:
    """A network of others, before it is tried.

    Attributes
    ----------
    name
        Its title.
    spec
        What is known of the network.
    weights
        The file, checked against the description's SHA-256.
    test_input, test_output
        Test tensors (.npy), None where there are none.
    tolerance
        Absolute and relative difference that is allowed between the test output and ours.
    card
        What goes into the card: licence, training, parent.
    cover
        A picture (.png), None where there is none.
    """

    name: str
    spec: ForeignSpec
    weights: Path
    test_input: Path | None = None
    test_output: Path | None = None
    tolerance: tuple[float, float] = (1e-3, 1e-3)
    card: dict[str, Any] = field(default_factory=dict)
    cover: Path | None = None


def import_spec() -> Any:
    """Return the package `bioimageio.spec`.

    Raises
    ------
    ModelError
        It is not installed.
    """
    try:
        import bioimageio.spec
        from loguru import logger
    except ImportError as error:
        raise ModelError(
            "Packages of bioimage.io need bioimageio.spec, which is not installed; run: "
            "pip install 'napari-unet[bioimageio]'."
        ) from error
    logger.disable("bioimageio")  # what matters is said in errors of one line
    return bioimageio.spec


@contextmanager
def package_context(folder: Path, *, files: bool = True) -> Iterator[None]:
    """Resolve a description's files in a folder; without `files` none is opened or fetched.

    The library leaves files open and warns of what a user cannot mend.
    """
    from bioimageio.spec import ValidationContext

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            with ValidationContext(root=folder, perform_io_checks=files, warning_level=50):
                yield
        finally:
            gc.collect()  # closes them


def find_description(folder: Path) -> Path | None:
    """Return the description of an unpacked package, None if there is none."""
    return next((folder / name for name in DESCRIPTIONS if (folder / name).is_file()), None)


def read_package(description: Path, *, onnx: bool) -> Package:
    """Read a package's description, whose files lie beside it.

    Parameters
    ----------
    onnx
        Whether ONNX can be run here; it is preferred to TorchScript, which is code.

    Raises
    ------
    ModelError
        The package is damaged, no model, of a newer specification, or asks for what cannot be done.
    """
    library = import_spec()
    content = _read_yaml(description)
    _check_version(content)
    with package_context(description.parent, files=False):
        try:
            found = library.build_description(content, format_version="latest")
        except Exception as error:  # what the library raises on odd YAML has no common type
            raise ModelError(f"{description} cannot be read ({first_line(error)}).") from error
    if isinstance(found, library.InvalidDescr):
        raise ModelError(f"{description} is no valid description: {_first_problem(found)}")
    folder = description.parent
    runtime, entry = _choose_weights(found.weights, onnx)
    weights = _checked_file(folder, entry, "weights")
    image, maps = _one_input(found), _one_output(found)
    spec = _network(found, image, maps, runtime)
    cover = next((c for c in found.covers if str(_source(c)).lower().endswith(".png")), None)
    return Package(
        name=str(found.name),
        spec=spec,
        weights=weights,
        test_input=_tensor(folder, image),
        test_output=_tensor(folder, maps),
        tolerance=_tolerance(found),
        card=_card_entries(found),
        cover=None if cover is None else _local(folder, _source(cover)),
    )


def _read_yaml(path: Path) -> dict[str, Any]:
    from ruyaml import YAML
    from ruyaml.error import YAMLError

    try:
        content = YAML(typ="safe").load(path.read_text(encoding="utf-8"))
    except (YAMLError, *UNREADABLE) as error:
        raise ModelError(f"{path} is no readable YAML ({first_line(error)}).") from error
    if not isinstance(content, dict):
        raise ModelError(f"{path} describes nothing; give a package of bioimage.io.")
    return content


def _check_version(content: dict[str, Any]) -> None:
    kind, version = content.get("type", "model"), str(content.get("format_version", ""))
    if kind != "model":
        raise ModelError(f"The package is a {kind}, not a model; give a model of bioimage.io.")
    numbers = re.match(r"(\d+)\.(\d+)", version)
    if not numbers:
        raise ModelError(f"The package's format_version is {version!r}; it should be like 0.5.3.")
    if (int(numbers[1]), int(numbers[2])) > NEWEST:
        raise ModelError(
            f"The package follows version {version} of the specification, napari-unet knows up to "
            f"{'.'.join(map(str, NEWEST))}; update napari-unet."
        )


def _first_problem(found: Any) -> str:
    errors = [e for d in found.validation_summary.details for e in d.errors]
    if not errors:
        return "unknown reason."
    place = ".".join(str(part) for part in errors[0].loc if str(part).isidentifier())
    return f"{place}: {first_line(Exception(errors[0].msg))}."


def _choose_weights(weights: Any, onnx: bool) -> tuple[str, Any]:
    """Return the form of the weights to run, and their entry."""
    there = {form for form in type(weights).model_fields if getattr(weights, form) is not None}
    order = [ONNX, TORCHSCRIPT] if onnx else [TORCHSCRIPT]
    for form in order:
        if form in there:
            return form, getattr(weights, form)
    if ONNX in there:
        raise ModelError(
            "The package's weights are ONNX, for which ONNX Runtime is not installed; run: "
            "pip install 'napari-unet[onnx]'."
        )
    why = (
        "a state dict needs the author's code and is a pickle, which could do anything"
        if "pytorch_state_dict" in there
        else "only ONNX and TorchScript can be run"
    )
    raise ModelError(
        f"The package's weights are {', '.join(sorted(there))}, which are not opened ({why}); ask "
        "its authors for ONNX or TorchScript."
    )


def _source(entry: Any) -> Any:
    return getattr(entry, "source", entry)


def _local(folder: Path, source: Any) -> Path | None:
    """Return a description's file beside it; None if it is missing or lies outside the folder."""
    name = PurePosixPath(str(getattr(source, "path", source)))
    inside = folder.resolve()
    path = (inside / name).resolve()
    return path if path.is_relative_to(inside) and path.is_file() else None


def _checked_file(folder: Path, entry: Any, what: str) -> Path:
    """Return a file that is there and is what the description says.

    Raises
    ------
    ModelError
        It is missing, elsewhere, or its SHA-256 differs.
    """
    source = str(_source(entry))
    if re.match(r"\w+://", source):
        raise ModelError(
            f"The package's {what} lie at {source} and are not fetched; download the whole "
            "package (.zip), or import it by its address."
        )
    path = _local(folder, _source(entry))
    if path is None:
        raise ModelError(f"The package lacks {source}; download it once more.")
    wanted = getattr(entry, "sha256", None)
    with path.open("rb") as file:
        if wanted and hashlib.file_digest(file, "sha256").hexdigest() != str(wanted):
            raise ModelError(
                f"{source} is not what the package's description says (its SHA-256 differs); "
                "download it once more."
            )
    return path


def _tensor(folder: Path, tensor: Any) -> Path | None:
    entry = tensor.test_tensor
    return None if entry is None else _checked_file(folder, entry, "test tensors")


def _one_input(found: Any) -> Any:
    needed = [tensor for tensor in found.inputs if not tensor.optional]
    if len(needed) != 1 or len(found.inputs) != 1:
        raise ModelError(
            f"The network takes {len(found.inputs)} inputs; only networks of one can be run."
        )
    return needed[0]


def _one_output(found: Any) -> Any:
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


def _network(found: Any, image: Any, maps: Any, runtime: str) -> ForeignSpec:
    """Describe the network."""
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


def with_meaning(spec: ForeignSpec, said: str = "", wanted: str = "auto") -> ForeignSpec:
    """Return a spec with what its output means, from the names of its channels or what is said.

    Parameters
    ----------
    said
        Descriptions, in which foreground and boundary may be named.
    wanted
        "auto", or one of the meanings.
    """
    names = [name.casefold() for name in spec.names]
    inside = r"(?!.*(bound|border|contour|edge|membrane|outline|dist|back.?ground)).*"
    foreground = _find(names, f"^{inside}(fore.?ground|^fg|interior|nucle|cell|mask|object|body)")
    boundary = _find(names, r"bound|border|contour|edge|membrane|outline")
    distance = _find(names, r"dist")
    text = said.casefold()
    if foreground is None and boundary is None and len(names) == 2:
        both = re.search(r"fore.?ground", text) and re.search(r"boundar|border|contour", text)
        if both and re.fullmatch(r"channel.?0", names[0]):
            foreground, boundary = 0, 1
    last = [step.name for step in spec.postprocessing]
    meaning = IMAGE
    if foreground is not None and (boundary is not None or distance is not None):
        meaning = OBJECTS
    elif "softmax" in last or (len(names) > 1 and _find(names, r"back.?ground|^bg\b") is not None):
        meaning = CLASSES
    elif len(names) == 1 and distance is None:
        tells = foreground is not None or boundary is not None
        said_so = re.search(r"probab|segmentation|foreground|mask", text)
        meaning = CLASSES if "sigmoid" in last or tells or said_so else IMAGE
    if wanted != "auto":
        meaning = wanted
        if wanted == OBJECTS and foreground is None:
            foreground = 0
    if meaning != OBJECTS:
        classes = max(2, len(names))
        return replace(spec, head="semantic", classes=classes, meaning=meaning)
    return replace(
        spec,
        head="instance",
        classes=1,
        meaning=OBJECTS,
        foreground=foreground,
        boundary=boundary if distance is None else None,
        distance=distance,
    )


def _find(names: Sequence[str], pattern: str) -> int | None:
    return next((at for at, name in enumerate(names) if re.search(pattern, name)), None)


def _tolerance(found: Any) -> tuple[float, float]:
    stated = getattr(found.config.bioimageio, "reproducibility_tolerance", ())
    absolute = max([1e-3, *(float(entry.absolute_tolerance) for entry in stated)])
    return absolute, max([1e-3, *(float(entry.relative_tolerance) for entry in stated)])


def _card_entries(found: Any) -> dict[str, Any]:
    """Return what the package says of itself, for the model's card."""
    licence = found.license
    training: dict[str, Any] = {
        "source": "bioimage.io",
        "title": str(found.name),
        "description": str(found.description),
        "authors": [str(author.name) for author in found.authors],
        "cite": [str(entry.doi or entry.url or entry.text) for entry in found.cite],
        "tags": [str(tag) for tag in found.tags],
    }
    for key, value in (("id", found.id), ("version", found.version)):
        if value is not None:
            training[f"package_{key}"] = str(value)
    if found.training_data is not None:
        data = found.training_data
        training["data"] = str(getattr(data, "name", None) or getattr(data, "id", ""))
    if found.parent is not None:
        training["package_parent"] = str(found.parent.id)
    return {"licence": str(licence) if isinstance(licence, str) else "", "training": training}
