"""A kill in the middle of edits of a label file leaves no half edit, and loses none."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import tifffile

from napari_unet.core.annotations.header import find_journals
from napari_unet.core.annotations.journal_reader import JournalReader
from napari_unet.core.io.label_reader import read_labels
from napari_unet.core.io.label_writer import create_output
from napari_unet.core.io.stack import open_stack

HELPERS = Path(__file__).parents[2] / "helpers"
OBJECTS = 60
pytestmark = pytest.mark.slow


@pytest.mark.parametrize("delay_ms", [3, 21, 50])
def test_the_file_is_whole_and_at_most_one_edit_behind_its_journal(home, tmp_path, delay_ms):
    source, target = tmp_path / "a.tif", tmp_path / "labels.tif"
    labels = np.repeat(np.arange(1, OBJECTS + 1, dtype=np.uint16), 40).reshape(OBJECTS, 40)
    tifffile.imwrite(source, labels.astype(np.float32))
    with create_output(target, labels.shape, "YX", np.uint16) as output:
        output.array[...] = labels
        output.finish(np.uint16, {"model": "m", "model_hash": "0" * 64, "object_axes": "YX"})
    paths = [str(HELPERS), *sys.path]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(paths), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, HELPERS / "alike_child.py", source, target]
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout.readline() == "begun\n"
        said = [child.stdout.readline()]
        time.sleep(delay_ms / 1000)
        child.kill()
        said += child.stdout.readlines()
    deleted = int(said[-1].split()[1])
    found = read_labels(target)
    (journal_file,) = find_journals(open_stack(source))
    with JournalReader(journal_file.path) as journal:
        corrected, edits = journal.replay(), journal.undoable
    done = int(found[found > 0].min()) - 1 if found.any() else OBJECTS
    assert np.array_equal(found, np.where(labels <= done, 0, labels)), "no half edit"
    assert np.array_equal(corrected, np.where(labels <= edits, 0, labels))
    assert deleted <= done <= edits <= done + 1, "what was said to be done is in both"
