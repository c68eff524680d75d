"""What a table of objects was measured from, in a file beside it: the table itself stays plain CSV.

Files are named as they lie below the table's folder or the one above, or by their name alone:
results are passed on, and paths tell who made them where.
"""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING, Any

from napari_unet import __version__
from napari_unet.core.io.files import write_text
from napari_unet.core.io.provenance import find_provenance, hash_stack, table_provenance_path

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from napari_unet.core.regionprops.measure import MeasureInput


def describe_measured(
    table: Path, name: str, labels: Path, image: Path | None, opened: MeasureInput
) -> dict[str, Any]:
    """Return what a table needs to say of one label file that was measured.

    Parameters
    ----------
    table
        The CSV file.
    name
        What the table calls the file, where it is of several.
    labels, image
        The files.
    opened
        Both, as they were measured.
    """
    return {
        "name": name,
        "labels": _place(labels, table),
        "labels_hash": hash_stack(opened.labels),
        "image": None if image is None else _place(image, table),
        "image_hash": None if opened.image is None else hash_stack(opened.image),
        "made": find_provenance(labels),
    }


def write_table_provenance(
    table: Path, text: str, options: Mapping[str, Any], files: Sequence[Mapping[str, Any]]
) -> None:
    """Write the provenance of a table beside it, whole or not at all.

    Parameters
    ----------
    text
        The table.
    options
        How it was measured.
    files
        Of what: from `describe_measured`, or in the same words.
    """
    provenance = {
        "table_hash": hash_table(text),
        "measured": dict(options),
        "files": list(files),
        "versions": {"napari-unet": __version__},
    }
    write_text(table_provenance_path(table), json.dumps(provenance, indent=1) + "\n")


def hash_table(text: str) -> str:
    """Hash a table's text; it tells whether a file still holds it as it was written."""
    return f"sha256:{hashlib.sha256(text.encode()).hexdigest()}"


def _place(path: Path, table: Path) -> str:
    folder, place = table.absolute().parent, path.absolute()
    for start, up in ((folder, ""), (folder.parent, "../")):
        if place.is_relative_to(start):
            return f"{up}{place.relative_to(start).as_posix()}"
    return place.name
