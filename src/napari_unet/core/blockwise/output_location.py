"""Where a label image goes: a ``.zarr`` of its own, or into the OME-Zarr that holds the data."""

from __future__ import annotations

import os
import re
import shutil
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NoReturn

from napari_unet.core.blockwise.run_plan import PLAN
from napari_unet.core.errors import OutputError
from napari_unet.core.io.files import expand_path, is_zarr
from napari_unet.core.io.label_writer import DISK_ERRORS
from napari_unet.core.io.ome_zarr import containing_ome_zarr
from napari_unet.core.io.ome_zarr_labels import get_zarr_format, register_label
from napari_unet.core.io.zarr_groups import LABELS, count_levels, image_group, is_group

if TYPE_CHECKING:
    from collections.abc import Iterator

    from napari_unet.core.blockwise.run_directory import RunDirectory


NAME_LENGTH = 60
"""Characters of the name of labels inside an image, at most; those of a model's name, too."""


def folder_name(name: str) -> str:
    """Return the folder of labels of a name, which a stranger may have given to a model.

    Whatever would lead to another folder, or no system takes as a name, becomes ``_``.
    """
    plain = re.sub(r"[^\w.+ -]", "_", name)[:NAME_LENGTH].strip(" .")
    return plain or LABELS


@dataclass(frozen=True)
class OutputLocation:
    """Where a label image goes.

    Attributes
    ----------
    path
        The folder that the image becomes.
    image
        The OME-Zarr that holds it, if one does.
    """

    path: Path
    image: Path | None = None

    @classmethod
    def resolve(cls, output: str | Path | None, source: Any, name: str) -> OutputLocation:
        """Find out where labels go.

        Parameters
        ----------
        output
            What the user gave: a ``.zarr``, or ``IMAGE.zarr/labels/NAME``. None: into the source,
            as labels called `name`, see `folder_name`.
        source
            The path of the data, if they have one.

        Raises
        ------
        OutputError
            The output is no Zarr, or is missing and the source is no OME-Zarr on this computer.
        """
        if output is None:
            path = expand_path(source) if isinstance(source, (str, Path)) else None
            if path is None or not is_group(path) or "://" in str(source):
                raise OutputError(
                    "there is no OME-Zarr on this computer to put the labels into; give an output, "
                    "see `napari-unet segment --help`."
                )
            path = image_group(path)
            return cls(path / LABELS / folder_name(name), path)
        path = expand_path(output)
        if path.parent.name == LABELS and is_group(path.parent.parent):
            image = image_group(path.parent.parent)
            return cls(image / LABELS / path.name, image)
        if path.suffix.lower() != ".zarr":
            raise OutputError(f"{path} is no place for blocks; give one that ends with .zarr.")
        return cls(path)

    @classmethod
    def beside(cls, source: Path, name: str) -> OutputLocation:
        """Find out where the labels of a Zarr on this computer go.

        Those of an OME-Zarr, or of its full resolution, go into it, as labels called `name`; those
        of an array in no group go beside it.

        Raises
        ------
        OutputError
            It is neither.
        """
        if is_group(source):
            return cls.resolve(None, source, name)
        if (image := containing_ome_zarr(source)) is not None:
            return cls.resolve(None, image, name)
        if not is_zarr(source) or is_zarr(source.parent):
            raise OutputError(f"{source} has no place for labels; give an output.")
        return cls(source.with_name(f"{source.stem} {folder_name(name)}.zarr"))

    @property
    def name(self) -> str:
        """The image's name."""
        return self.path.name.split(".")[0]

    @property
    def zarr_format(self) -> Literal[2, 3]:
        """Zarr format of the labels: that of the image that holds them, else 3."""
        return get_zarr_format(self.image) if self.image else 3

    @property
    def levels(self) -> int | None:
        """How many levels the labels have: as many as the image that holds them, if one does."""
        return count_levels(self.image) if self.image else None

    @property
    def source(self) -> str | None:
        """Relative path from the labels to the image that holds them, for the metadata."""
        return "../../" if self.image else None

    @property
    def unfinished(self) -> Path:
        """The folder of an unfinished run."""
        return self.path.with_name(f".{self.path.name[:100]}.unfinished")

    @property
    def is_unfinished(self) -> bool:
        """Whether there is a run to go on with, not only what a cleaning that was killed left."""
        return (self.unfinished / PLAN).exists()

    def check(self, may_exist: bool) -> None:
        """Raise OutputError if the image cannot go there."""
        path, problem = self.path, ""
        parent = self.image or path.parent
        if not parent.is_dir():
            problem = f"cannot be written: there is no folder {parent}; create it first"
        elif path.exists() and not may_exist:
            problem = "exists already; choose another name, or overwrite it (--overwrite)"
        elif path.exists() and (path.is_file() or (any(path.iterdir()) and not is_zarr(path))):
            problem = "is no Zarr, and not overwritten; choose another name"
        elif not os.access(parent, os.W_OK):
            problem = f"cannot be written: {parent} may not be written; choose another place"
        if problem:
            raise OutputError(f"{path} {problem}.")

    def make_folder(self) -> None:
        """Make the folder of the unfinished run."""
        try:
            self.unfinished.mkdir(parents=self.image is not None, exist_ok=True)
        except OSError as error:
            raise OutputError(
                f"{self.path} cannot be written: {error.strerror or error}; choose another place."
            ) from error

    def publish(self, directory: RunDirectory) -> None:
        """Sync a finished image to the disk and move it to its path in one step."""
        try:
            for file in directory.result.rglob("*.json" if self.zarr_format == 3 else ".z*"):
                with open(file, "rb+") as handle:
                    os.fsync(handle.fileno())
            old = directory.folder / "old"
            if self.path.exists():
                shutil.rmtree(old, ignore_errors=True)
                self.path.rename(old)
            directory.result.rename(self.path)
            shutil.rmtree(old, ignore_errors=True)
            if self.image:
                register_label(self.image / LABELS, self.path.name)
        except OSError as error:
            raise OutputError(
                f"{self.path} cannot be written: {error.strerror or error}; choose another place, "
                "the unfinished run is kept."
            ) from error

    @contextmanager
    def naming_errors(self) -> Iterator[None]:
        """Raise what the operating system refuses as an error of the image, not of one file."""
        try:
            yield
        except OutputError as error:
            cause = error.__cause__
            if not isinstance(cause, OSError):
                raise
            self._raise(cause)
        except OSError as error:  # zarr passes these on as they are
            if error.errno not in DISK_ERRORS:
                raise
            self._raise(error)

    def _raise(self, cause: OSError) -> NoReturn:
        raise OutputError(
            f"{self.path} cannot be written: {cause.strerror or cause}; free some space, or "
            "choose another place."
        ) from cause

    def open(self, level: int = 0) -> Any:
        """Open an array of the finished image for reading."""
        import zarr

        return zarr.open_array(str(self.path / str(level)), mode="r")

    def open_levels(self) -> list[Any]:
        """Open the arrays of all levels for reading, the full resolution first."""
        levels: list[Any] = []
        while (self.path / str(len(levels))).is_dir():
            levels.append(self.open(len(levels)))
        return levels


def is_output_location(path: Path) -> bool:
    """Tell whether a path is one for an OME-Zarr label image."""
    inside = path.parent.name == LABELS and is_group(path.parent.parent)
    return inside or path.suffix.lower() == ".zarr"
