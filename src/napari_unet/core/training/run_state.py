"""Trainings that did not finish: where they lie, what they need to go on, who works at them.

What a training works with lies in ``training/NAME`` in the user's folder: checkpoint, plan, log and
curve. The checkpoint and the plan go when its model was stored.
"""

from __future__ import annotations

import json
import re
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from filelock import FileLock, Timeout

from napari_unet.core.errors import InputError, OutputError
from napari_unet.core.io.files import make_folder, write_text
from napari_unet.core.models.store import home

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

CHECKPOINT, PLAN, LOCK = "checkpoint.safetensors", "plan.json", ".lock"
_NUMBERED = re.compile(r"(?P<stem>.*?)(-tuned(-(?P<number>\d+))?)?")
_LONGEST = 60


@dataclass(frozen=True)
class RunState:
    """What is trained on what.

    Attributes
    ----------
    parent
        Hash of the model that is tuned; "" from scratch.
    spec
        Of the network, as JSON values.
    data
        Hash of the samples.
    request
        What was asked for, so that the window can offer to go on; empty: it does not.
    """

    parent: str
    spec: dict[str, Any]
    data: str
    request: dict[str, Any] = field(default_factory=dict)

    def fits(self, other: RunState) -> bool:
        """Whether a training can go on from the other's checkpoint."""
        mine, others = (json.dumps([plan.parent, plan.spec, plan.data]) for plan in (self, other))
        return mine == others


def training_folder(name: str) -> Path:
    """Return the folder of a model's training; it need not exist."""
    return home() / "training" / name


def write_run_state(folder: Path, plan: RunState) -> None:
    """Note a plan, or hold it against that of the checkpoint which is there.

    Raises
    ------
    InputError
        The checkpoint is that of another plan.
    OutputError
        The folder cannot be written.
    """
    if not (folder / CHECKPOINT).exists():
        write_text(folder / PLAN, json.dumps(asdict(plan), indent=2) + "\n")
        return
    noted = read_run_state(folder)
    if noted is None or not noted.fits(plan):
        raise InputError(
            f"The unfinished training of {folder.name!r} had another model or other images; give "
            f"the same ones, or delete {folder} to start again."
        )


def read_run_state(folder: Path) -> RunState | None:
    """Return the plan of an unfinished training; None if there is none that can be read."""
    try:
        return RunState(**json.loads((folder / PLAN).read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return None


def unfinished() -> dict[str, RunState]:
    """Return, by name, the trainings that stopped and can go on; the last one first."""
    folders = [path.parent for path in (home() / "training").glob(f"*/{CHECKPOINT}")]
    folders.sort(key=lambda folder: -_modified(folder / CHECKPOINT))
    found = {}
    for folder in folders:
        plan = read_run_state(folder)
        if plan is not None and not is_locked(folder):
            found[folder.name] = plan
    return found


def forget(folder: Path) -> None:
    """Delete the checkpoint and plan of a training; its log and curve stay.

    Raises
    ------
    OutputError
        They cannot be deleted.
    """
    try:
        for name in (CHECKPOINT, PLAN):
            (folder / name).unlink(missing_ok=True)
    except OSError as error:
        raise OutputError(f"{folder} cannot be cleared: {error.strerror or error}.") from error


def lock_training(folder: Path) -> FileLock:
    """Keep others from training in a folder, which is made; release the lock when done.

    Raises
    ------
    InputError
        Somebody trains there already.
    OutputError
        The folder cannot be written.
    """
    make_folder(folder)
    lock = FileLock(folder / LOCK, thread_local=False)
    try:
        lock.acquire(timeout=0)
    except Timeout as error:
        raise InputError(
            f"A model {folder.name!r} is being trained in another window or terminal; choose "
            "another name."
        ) from error
    except OSError as error:
        reason = error.strerror or error
        raise OutputError(f"{folder} cannot be written: {reason}; make room for it.") from error
    return lock


def is_locked(folder: Path) -> bool:
    """Tell whether somebody trains in a folder right now."""
    if not (folder / LOCK).exists():
        return False
    try:
        lock_training(folder).release()
    except InputError:
        return True
    except OutputError:
        return False
    return False


def next_name(base: str, taken: Iterable[str]) -> str:
    """Propose a name for a tuned model: of "nuclei" it is "nuclei-tuned", then "nuclei-tuned-2"."""
    taken = {name.casefold() for name in taken}
    found = _NUMBERED.fullmatch(base)
    stem = found["stem"] if found else base
    number = 1
    while True:
        ending = "-tuned" if number == 1 else f"-tuned-{number}"
        name = stem[: _LONGEST - len(ending)] + ending
        if name.casefold() not in taken:
            return name
        number += 1


def _modified(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except OSError:
        return 0.0
