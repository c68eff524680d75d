"""Whether a kill during edits of all objects alike, over files, loses one or leaves a half.

    python benchmarks/alike_kills.py [--kills 500] [--seed 0] [--json FILE]

A process deletes, splits, merges or accepts a few objects in each of some files of labels, one
edit a file, as *Alike* does over the files of a batch, and now and then takes the last edit back,
as *Undo in files* does. It says what the labels of a file will be before each of these, and that it
is done. It is killed (SIGKILL) at a random moment. Then, in each file and in its image's
journal, the labels must be those of before or after the edit that was under way, and after each one
that was done; a file is never ahead of its journal. Where the journal is ahead, which the window
offers to restore, the file is written anew from it. The next process goes on from there.

It is the code that the window runs in a job. POSIX only.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import os
import tempfile
import warnings
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import tifffile
from lab.kills import run_until_killed
from lab.report import write_results

from napari_unet.core.alike.descriptors import Candidate, join_masks, object_masks, touching_pairs
from napari_unet.core.alike.group_edits import ACCEPT, edit_all
from napari_unet.core.alike.result_file import ResultFile
from napari_unet.core.annotations.append_log import JournalWarning
from napari_unet.core.annotations.header import find_journals
from napari_unet.core.annotations.journal_reader import JournalReader
from napari_unet.core.instances.label_edits import DELETE, MERGE, SPLIT
from napari_unet.core.io.label_reader import fit_labels, read_labels
from napari_unet.core.io.label_writer import create_output
from napari_unet.core.io.provenance import hash_labels
from napari_unet.core.io.stack import open_stack
from napari_unet.core.progress import run_to_end

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.random import Generator

    from napari_unet.core.alike.group_edits import GroupEdit

FILES = 3
SHAPE = (96, 120)
AT_ONCE = 4
"""Objects that an edit changes in each file."""
LONGEST_S = 0.6
"""A process is killed within so many seconds of the processor."""
NEW_AFTER = 20
"""Kills until the files are made anew: journals grow, and with them the time to check them."""
PROVENANCE = {"model": "m", "model_hash": "0" * 64, "object_axes": "YX", "settings": {}}


def make_files(folder: Path, rng: Generator) -> list[tuple[Path, Path]]:
    """Make images of discs that touch in pairs, and their labels: some pairs are one object."""
    grid = np.indices(SHAPE)
    found = []
    for number in range(FILES):
        labels = np.zeros(SHAPE, np.uint16)
        for place in np.ndindex(SHAPE[0] // 12, SHAPE[1] // 20):
            first = int(labels.max()) + 1
            for half in (0, 1):
                middle = (place[0] * 12 + 6, place[1] * 20 + 6 + 8 * half)
                inside = np.hypot(grid[0] - middle[0], grid[1] - middle[1]) < 4.6
                labels[inside] = first + (half if place[1] % 2 else 0)
        source, target = folder / f"image{number}.tif", folder / f"labels{number}.tif"
        # No two images are the same: a journal is found by what the image shows.
        tifffile.imwrite(source, ((labels > 0) + rng.uniform(0, 0.3, SHAPE)).astype(np.float32))
        write_labels(target, labels)
        found.append((source, target))
    return found


def write_labels(target: Path, labels: np.ndarray) -> None:
    """Write labels as a run does."""
    with create_output(target, SHAPE, "YX", np.uint16, overwrite=True) as output:
        output.array[...] = labels.reshape(SHAPE)
        output.finish(np.uint16, PROVENANCE)


def next_edit(labels: np.ndarray, rng: Generator) -> GroupEdit:
    """Work out an edit of some objects of a file."""
    plane = labels.reshape(SHAPE)
    masks = object_masks(plane)
    kind = str(rng.choice([DELETE, SPLIT, MERGE, ACCEPT]))
    if kind == MERGE:
        pairs = touching_pairs(plane)
        chosen = [pairs[at] for at in rng.permutation(len(pairs))[:AT_ONCE]]
    else:
        chosen = [(label,) for label in rng.permutation(list(masks))[:AT_ONCE].tolist()]
    leading = (0,) * (labels.ndim - 2)
    items = [Candidate(leading, each, join_masks([masks[n] for n in each])) for each in chosen]
    return run_to_end(edit_all(labels, items, kind))


def edit_files(
    files: list[tuple[Path, Path]], rng: Generator, say: Callable[[str], object]
) -> None:
    """Edit some objects of each file for ever; every edit that deletes is taken back afterwards."""
    while True:
        changed = []
        for number, (source, target) in enumerate(files):
            file, _, labels = ResultFile.read(source, target)
            edit = next_edit(labels, rng)
            if not edit.done:
                continue
            before = file.state
            labels[edit.where] = edit.after
            say(f"will {number} {hash_labels(labels)}")
            file = file.change(edit, f"{edit.kind} alike")
            say(f"done {number}")
            if edit.kind == DELETE or rng.uniform() < 0.3:
                changed.append((number, file, before))
        for number, file, before in changed:
            say(f"will {number} {before}")
            file.undo()
            say(f"undone {number}")


class _WarmError(Exception):
    """All that a process does was done once."""


def warm_up(folder: Path, rng: Generator) -> None:
    """Do once what the processes do: what is loaded on the way need not be again."""

    def say(text: str) -> None:
        if text.startswith("undone"):
            raise _WarmError

    folder.mkdir()
    with contextlib.suppress(_WarmError):
        edit_files(make_files(folder, rng), rng, say)


def corrected_labels(source: Path) -> np.ndarray | None:
    """Return the labels that the journal of an image ends with; None if it has none."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", JournalWarning)  # of a record that was cut
        for found in find_journals(open_stack(source)):
            with JournalReader(found.path) as journal:
                return journal.replay()
    return None


def kill_test(kills: int, seed: int, folder: Path) -> Counter[str]:
    """Kill many times; count kills, edits, and what was lost, half or ahead of its journal."""
    rng = np.random.default_rng(seed)
    found = Counter(dict.fromkeys(("kills", "edits", "undone", "behind", "lost", "half"), 0))
    files: list[tuple[Path, Path]] = []
    warm_up(folder / "warm", rng)
    for kill in range(kills):
        if kill % NEW_AFTER == 0:
            place = folder / str(kill)
            place.mkdir()
            files = make_files(place, rng)
        shapes = [open_stack(source).labels_shape for source, _ in files]
        states = [
            hash_labels(fit_labels(read_labels(target), shape))
            for (_, target), shape in zip(files, shapes, strict=True)
        ]
        work = functools.partial(edit_files, files, np.random.default_rng([seed, kill]))
        said = [line.split() for line in run_until_killed(work, rng.uniform(0, LONGEST_S))]
        found["kills"] += 1
        found["edits"] += sum(words[0] == "done" for words in said)
        found["undone"] += sum(words[0] == "undone" for words in said)
        for number, (source, target) in enumerate(files):
            state, begun = states[number], ""
            for words in [each for each in said if each[1] == str(number)]:
                if words[0] == "will":
                    begun = words[2]
                else:
                    state, begun = begun, ""
            allowed = {state, begun} - {""}
            labels, journaled = read_labels(target), corrected_labels(source)
            on_disk = hash_labels(fit_labels(labels, shapes[number]))
            in_journal = state if journaled is None else hash_labels(
                journaled.reshape(shapes[number]).astype(labels.dtype)
            )  # fmt: skip
            found["half"] += on_disk not in allowed or in_journal not in allowed
            found["lost"] += bool(not begun and {on_disk, in_journal} != {state})
            found["half"] += bool(begun and on_disk == begun != in_journal)
            if on_disk != in_journal and journaled is not None:
                found["behind"] += 1
                write_labels(target, journaled)
    return found


def main() -> int:
    """Kill, print and judge; status 1 if anything was lost or half."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        os.environ["NAPARI_UNET_HOME"] = str(Path(folder) / "home")
        found = kill_test(arguments.kills, arguments.seed, Path(folder))
    write_results(dict(found), arguments.json)
    return int(found["lost"] + found["half"] > 0)


if __name__ == "__main__":
    raise SystemExit(main())
