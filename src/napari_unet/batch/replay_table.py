"""Measure again what a table was measured from, and say whether it is the same."""

from __future__ import annotations

import csv
import io
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari_unet.core.errors import InputError
from napari_unet.core.io.files import expand_path, image_exists
from napari_unet.core.io.provenance import hash_stack, read_provenance
from napari_unet.core.regionprops.measure import MeasureInput, measure_steps
from napari_unet.core.regionprops.table import Table, stack_tables, table_text
from napari_unet.core.regionprops.table_provenance import hash_table
from napari_unet.core.text import pluralise

if TYPE_CHECKING:
    from collections.abc import Generator

    from napari_unet.core.progress import Progress


@dataclass(frozen=True)
class TableReplay:
    """What came of it.

    Attributes
    ----------
    rows, before
        Number of objects now and in the table.
    different
        Rows that are not as they were.
    columns
        In which they differ.
    reasons
        What may explain it.
    text
        The table as it is now.
    """

    rows: int
    before: int
    different: int
    columns: tuple[str, ...]
    reasons: tuple[str, ...]
    text: str

    @property
    def identical(self) -> bool:
        """Whether every value is the same."""
        return not self.different and self.rows == self.before and not self.columns

    def line(self) -> str:
        """Return the verdict in a sentence."""
        if self.identical:
            return f"identical: {pluralise(self.rows, 'object')}, every value"
        if self.rows != self.before:
            return f"different: {self.before} objects were measured, now there are {self.rows}"
        return (
            f"different: {self.different} of {pluralise(self.rows, 'object')}, in "
            f"{', '.join(self.columns)}"
        )


def is_table(path: Path) -> bool:
    """Return whether a result is a table of objects."""
    return path.suffix.lower() == ".csv"


def replay_table_steps(
    table: Path, given: Path | None = None
) -> Generator[Progress, None, TableReplay]:
    """Measure again; yield progress, and return what differs.

    Parameters
    ----------
    table
        The CSV file, with its provenance beside it.
    given
        A folder in which labels and images are looked for first.

    Raises
    ------
    InputError
        The table does not say what it was measured from, or a file is not found.
    """
    table = expand_path(table)
    provenance = read_provenance(table)
    options, files = provenance.get("measured"), provenance.get("files")
    if not isinstance(options, dict) or not isinstance(files, list):
        raise InputError(f"{table} does not record what it was measured from; measure once more.")
    before = table.read_text(encoding="utf-8")
    reasons = []
    if hash_table(before) != provenance.get("table_hash"):
        reasons.append("the table was changed since it was written")
    tables: dict[str, Table] = {}
    for entry in files:
        if entry.get("labels") is None:
            raise InputError(
                f"{table} was measured in the window; save the labels, and measure the file: "
                "napari-unet measure LABELS IMAGE --csv TABLE."
            )
        labels = _find(table, given, entry["labels"])
        named = entry.get("image")
        apart = labels if entry.get("image_hash") != entry.get("labels_hash") else None
        image = None if named is None else _find(table, given, named, but=apart)
        opened = MeasureInput.open(labels, image, **_options(options))
        pairs = (("labels", labels, opened.labels), ("image", image, opened.image))
        for kind, path, stack in pairs:
            known = entry.get(f"{kind}_hash")
            if stack is not None and known is not None and hash_stack(stack) != known:
                reasons.append(f"{path} is not what was measured")
        tables[str(entry.get("name", ""))] = yield from measure_steps(opened)
    several = before.startswith("image,") or len(tables) > 1
    found = stack_tables(tables) if several else next(iter(tables.values()))
    return compare_tables(before, table_text(found), tuple(reasons))


def compare_tables(before: str, now: str, reasons: tuple[str, ...] = ()) -> TableReplay:
    """Compare the text of a table with that of its replay, row by row."""
    old, new = (list(csv.reader(io.StringIO(text))) for text in (before, now))
    names = dict.fromkeys([*(old[0] if old else []), *new[0]])
    then, today = ([dict(zip(t[0], row, strict=False)) for row in t[1:]] for t in (old, new))
    wrong = [
        {name for name in names if a.get(name) != b.get(name)}
        for a, b in zip(then, today, strict=False)
    ]
    columns = tuple(name for name in names if any(name in row for row in wrong))
    if old[:1] != new[:1] and not columns:
        columns = tuple(name for name in names if (name in old[0]) != (name in new[0]))
    different = sum(bool(row) for row in wrong)
    return TableReplay(len(today), len(then), different, columns, reasons, now)


def _options(recorded: dict[str, Any]) -> dict[str, Any]:
    known = ("axes", "frames", "solidity", "labels_as", "image_axes", "voxel_size_um")
    options = {name: recorded[name] for name in known if recorded.get(name) is not None}
    if "voxel_size_um" in options:
        options["voxel_size_um"] = tuple(options["voxel_size_um"])
    return options


def _find(table: Path, given: Path | None, name: str, but: Path | None = None) -> Path:
    """Return a recorded file, in the folder that is given or beside the table.

    An image may have the name of its labels, which lie in another folder: they are `but`.
    """
    places = [] if given is None else [given / name, given / Path(name).name, given]
    folders = (table.absolute().parent, table.absolute().parent.parent, Path.cwd())
    places += [folder / name for folder in folders]
    for place in places:
        fits = place.name == Path(name).name and image_exists(place)
        if fits and not (but is not None and place.exists() and place.samefile(but)):
            return place
    raise InputError(
        f"{table} cannot be replayed: {name} is not beside it; give its folder as second argument."
    )
