"""Unfinished trainings: their folder, their lock, and what they were begun with.

The files of a training lie in ``training/NAME`` in the user's folder: checkpoint, run state, log
and curve. Checkpoint and run state are deleted when the model is stored.
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

CHECKPOINT, RUN_STATE, LOCK = "checkpoint.safetensors", "plan.json", ".lock"
_NUMBERED = re.compile(r"(?P<stem>.*?)(-tuned(-(?P<number>\d+))?)?")
_LONGEST = 60  # characters of a model's name, see `check_name`


@dataclass(frozen=True)
class RunState:
    """What a training was begun with; a checkpoint may only be resumed with the same.

    The fields are the keys of `plan.json`.

    Attributes
    ----------
    parent
        Hash of the model that is tuned; "" from scratch.
    spec
        Spec of the network, as JSON values.
    data
        Hash of the samples.
    request
        What the user asked for, so that the window can offer to resume; empty: it does not.
    held_out
        The settings by which samples are held out; empty in files of before they were noted.
    """

    parent: str
    spec: dict[str, Any]
    data: str
    request: dict[str, Any] = field(default_factory=dict)
    held_out: dict[str, float] = field(default_factory=dict)

    def fits(self, other: RunState) -> bool:
        """Tell whether a training can be resumed from the other's checkpoint."""
        mine, others = (
            json.dumps([state.parent, state.spec, state.data]) for state in (self, other)
        )
        return mine == others


def training_folder(name: str) -> Path:
    """Return the folder of a model's training; it need not exist."""
    return home() / "training" / name


def write_run_state(folder: Path, state: RunState) -> None:
    """Write the run state, or compare it with that of an existing checkpoint.

    Raises
    ------
    InputError
        The checkpoint was begun with something else, or other samples were held out.
    OutputError
        The folder cannot be written.
    """
    if not (folder / CHECKPOINT).exists():
        write_text(folder / RUN_STATE, json.dumps(asdict(state), indent=2) + "\n")
        return
    noted = read_run_state(folder)
    if noted is None or not noted.fits(state):
        raise InputError(
            f"The unfinished training of {folder.name!r} had another model or other images, or "
            f"was begun by another version; give the same ones, or delete {folder} to start again."
        )
    if noted.held_out and noted.held_out != state.held_out:
        begun = " and ".join(f"{name} {value:g}" for name, value in noted.held_out.items())
        raise InputError(
            f"The unfinished training of {folder.name!r} was begun with {begun}; with others it "
            f"would be judged by images that it has learned from. Give the same ones, or delete "
            f"{folder} to start again."
        )


def read_run_state(folder: Path) -> RunState | None:
    """Return the state of an unfinished training; None if there is none that can be read."""
    try:
        return RunState(**json.loads((folder / RUN_STATE).read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return None


def list_unfinished() -> dict[str, RunState]:
    """Return the stopped trainings that can be resumed, by name; the last one first."""
    folders = [path.parent for path in (home() / "training").glob(f"*/{CHECKPOINT}")]
    folders.sort(key=lambda folder: -_modified(folder / CHECKPOINT))
    found = {}
    for folder in folders:
        state = read_run_state(folder)
        if state is not None and not is_locked(folder):
            found[folder.name] = state
    return found


def forget_training(folder: Path) -> None:
    """Delete the checkpoint and run state of a training; its log and curve stay.

    Raises
    ------
    OutputError
        They cannot be deleted.
    """
    try:
        for name in (CHECKPOINT, RUN_STATE):
            (folder / name).unlink(missing_ok=True)
    except OSError as error:
        raise OutputError(f"{folder} cannot be cleared: {error.strerror or error}.") from error


def lock_training(folder: Path) -> FileLock:
    """Lock the folder of a training, which is created; release the lock when done.

    Raises
    ------
    InputError
        Another window or terminal trains there.
    OutputError
        The folder cannot be written.
    """
    make_folder(folder)
    # thread_local would allow only this thread to release it; the window does so in another.
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
    """Tell whether a training is running in a folder."""
    if not (folder / LOCK).exists():
        return False
    try:
        lock_training(folder).release()
    except InputError:
        return True
    except OutputError:
        return False
    return False


def propose_name(base: str, taken: Iterable[str]) -> str:
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
