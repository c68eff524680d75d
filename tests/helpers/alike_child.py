"""Deletes objects of a label file, one edit after the other, until it is killed."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

from napari_unet.core.alike.group_edits import GroupEdit
from napari_unet.core.alike.result_file import ResultFile
from napari_unet.core.instances.label_edits import DELETE

file, _, labels = ResultFile.read(Path(sys.argv[1]), Path(sys.argv[2]))
print("begun", flush=True)
for label in range(1, int(labels.max()) + 1):
    where = np.nonzero(labels == label)
    gone = np.full(len(where[0]), label)
    file = file.change(GroupEdit(DELETE, where, gone, 0 * gone, done=1), "delete alike")
    print("deleted", label, flush=True)
