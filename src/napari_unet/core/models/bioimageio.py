"""Packages of bioimage.io: their descriptions and files, and which of their weights are run.

The specification is read by `bioimageio.spec`, which brings older versions forward. No file is
opened but those that are used, nothing is fetched, and no code of a package is run here.
"""

from __future__ import annotations

import gc
import hashlib
import re
import warnings
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from napari_unet.core.errors import ModelError
from napari_unet.core.garbage import old_objects_spared
from napari_unet.core.io.files import UNREADABLE, first_line
from napari_unet.core.models.folder import CARD, REPLAY, THUMBNAIL, WEIGHTS
from napari_unet.core.models.package_network import describe_network, one_input, one_output
from napari_unet.core.settings.foreign_spec import ONNX, TORCHSCRIPT

if TYPE_CHECKING:
    from collections.abc import Iterator

    from napari_unet.core.settings.foreign_spec import ForeignSpec

NATIVE_FILES = (CARD, WEIGHTS, REPLAY, THUMBNAIL)
"""Files of a model's own folder, which exported packages carry along."""
DESCRIPTIONS = ("rdf.yaml", "bioimageio.yaml", "model.yaml")
"""Names of a package's description."""
NEWEST = (0, 5)
"""The newest version of the specification whose packages can be read."""


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

    with warnings.catch_warnings(), old_objects_spared():
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
    image, maps = one_input(found), one_output(found)
    spec = describe_network(found, image, maps, runtime)
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
