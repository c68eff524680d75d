"""Import and export of models: what is asked for, and the work in a job's thread."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari_unet.core.models.archive import export_steps, import_steps
from napari_unet.core.models.folder import CARD
from napari_unet.core.models.package_files import (
    ONNX_SUFFIXES,
    TORCHSCRIPT_SUFFIXES,
    is_foreign_source,
    is_web_address,
)
from napari_unet.core.progress import Progress

if TYPE_CHECKING:
    from collections.abc import Generator

    from napari_unet.core.models.store import ModelEntry
    from napari_unet.core.settings.weight_options import WeightOptions

WEIGHTS_ALONE = (*ONNX_SUFFIXES, *TORCHSCRIPT_SUFFIXES)
"""Files of weights that say nothing of themselves."""
OPENED = (
    "Models (*.zip rdf.yaml bioimageio.yaml model.yaml model.json "
    + " ".join(f"*{suffix}" for suffix in WEIGHTS_ALONE)
    + ")"
)
"""What can be imported, as a file dialog says it."""
OWN, BIOIMAGEIO = "model of napari-unet (*.zip)", "bioimage.io package (*.zip)"
"""What can be exported, as a file dialog says it."""


@dataclass(frozen=True)
class ImportRequest:
    """What is to be imported.

    Attributes
    ----------
    source
        A file, a folder or an address.
    options
        What plain weights do not say of themselves.
    trusted
        Whether a program may run.
    anyway
        Whether a network is kept that fails its own test.
    """

    source: str
    options: WeightOptions | None = None
    trusted: bool = False
    anyway: bool = False

    @property
    def needs_options(self) -> bool:
        """Whether the source says nothing of itself."""
        return not is_web_address(self.source) and self.source.lower().endswith(WEIGHTS_ALONE)


def import_work(request: ImportRequest) -> Generator[Progress, None, ModelEntry]:
    """Import a model of any kind, in a job's thread; return its entry in the store.

    Raises
    ------
    UntrustedError
        It is a program, and may not run.
    OwnTestError
        It fails its own test.
    UnetError
        It cannot be read or run.
    """
    yield Progress(0, 0, "looking at it")
    given = Path(request.source)
    source: Any = request.source
    if given.name == CARD and given.is_file():
        source = given.parent  # a file dialog chooses no folders
    if not is_web_address(request.source) and not is_foreign_source(Path(source)):
        return (yield from import_steps(source, another_name=True))
    from napari_unet.nn.exchange.foreign_import import import_foreign_steps

    return (
        yield from import_foreign_steps(
            source,
            ask=lambda question: request.trusted,
            anyway=request.anyway,
            options=request.options,
            another_name=True,
        )
    )


def export_work(
    name: str, target: str, kind: str, authors: list[str]
) -> Generator[Progress, None, Path]:
    """Write a model into one .zip file, in a job's thread; return the file.

    Parameters
    ----------
    kind
        `OWN` or `BIOIMAGEIO`.
    authors
        For a package of bioimage.io.

    Raises
    ------
    UnetError
        The model is damaged or was built by others, or the file cannot be written.
    """
    path = Path(target if target.lower().endswith(".zip") else f"{target}.zip")
    if kind == OWN:
        return (yield from export_steps(name, path, overwrite=True))
    yield Progress(0, 0, "preparing")
    from napari_unet.nn.exchange.bioimageio_export import export_bioimageio_steps

    steps = export_bioimageio_steps(name, path, authors=authors, overwrite=True)
    return (yield from steps)
