"""What a user adds to a model: a note, and the scores of their own evaluations of it.

It lies beside the models, in a file that is named by the hash of the weights: so it stays with a
model that is renamed, and can be added to models that cannot be written.
"""

from __future__ import annotations

import dataclasses
import json
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from napari_unet.core.errors import ModelError
from napari_unet.core.io.files import atomic_file, make_folder
from napari_unet.core.models.store import home

if TYPE_CHECKING:
    from pathlib import Path

RECORD_SCHEMA = 1
"""Version of the file that this version of the package writes."""
MOST_SCORES = 200
"""So many evaluations are kept, the newest."""
LONGEST_NOTE = 20_000
"""Letters of a note."""


@dataclass(frozen=True)
class OwnScores:
    """What came of one of the user's own evaluations.

    Attributes
    ----------
    date
        Such as "2027-03-01".
    image, truth
        Names of the image and of the true labels.
    data
        Hash of both: an evaluation of the same replaces the one before.
    objects, true_objects
        How many were found, and how many there are.
    scores
        By name, such as "AP50".
    """

    date: str
    image: str
    truth: str
    data: str
    objects: int
    true_objects: int
    scores: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class OwnRecord:
    """What a user has added to a model: a note, and evaluations, the newest last."""

    note: str = ""
    evaluations: tuple[OwnScores, ...] = ()


def read_record(model_hash: str) -> OwnRecord:
    """Return what was added to the model whose weights have a hash; empty if nothing was.

    Raises
    ------
    ModelError
        The file cannot be read, or is of a newer version.
    """
    path = record_path(model_hash)
    if path is None or not path.is_file():
        return OwnRecord()
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        if values["schema"] > RECORD_SCHEMA:
            raise ModelError(f"{path} was written by a newer napari-unet; update napari-unet.")
        known = {item.name for item in dataclasses.fields(OwnScores)}
        found = [{k: v for k, v in part.items() if k in known} for part in values["evaluations"]]
        return OwnRecord(str(values["note"]), tuple(OwnScores(**part) for part in found))
    except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
        raise ModelError(
            f"Your note and scores in {path} cannot be read ({error}); mend or delete the file."
        ) from error


def write_note(model_hash: str, note: str) -> None:
    """Replace a model's note.

    Raises
    ------
    ModelError
        What was added before cannot be read, or the model has no hash.
    OutputError
        The store cannot be written.
    """
    record = read_record(model_hash)
    note = note.strip()[:LONGEST_NOTE]
    if note != record.note:
        _write(model_hash, dataclasses.replace(record, note=note))


def add_scores(model_hash: str, scores: OwnScores) -> None:
    """Add an evaluation; one of the same data is replaced. Raises as `write_note` does."""
    record = read_record(model_hash)
    others = [known for known in record.evaluations if known.data != scores.data]
    kept = (*others, scores)[-MOST_SCORES:]
    _write(model_hash, dataclasses.replace(record, evaluations=kept))


def record_path(model_hash: str) -> Path | None:
    """Return the file of a model; None if it has no hash that can name one."""
    if not re.fullmatch(r"[0-9a-f]{64}", model_hash):
        return None
    return home() / "records" / f"{model_hash}.json"


def _write(model_hash: str, record: OwnRecord) -> None:
    path = record_path(model_hash)
    if path is None:
        raise ModelError("The model's card has no hash; import the model again.")
    values: dict[str, Any] = {"schema": RECORD_SCHEMA, **dataclasses.asdict(record)}
    make_folder(path.parent)
    with atomic_file(path) as partial:
        partial.write_text(json.dumps(values, indent=1) + "\n", encoding="utf-8", newline="\n")
