"""A program that is killed while it learns loses nothing that it said was saved."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from live_child import holds_whole_edits

from napari_unet.core.annotations.header import find_journals
from napari_unet.core.annotations.journal_reader import JournalReader
from napari_unet.core.models.store import list_models
from napari_unet.nn.inference.model import load_model

HELPERS = Path(__file__).parents[2] / "helpers"
pytestmark = pytest.mark.slow


@pytest.mark.parametrize("last", ["saved 3", "learned 1", "kept", "learned 3"])
def test_a_kill_loses_no_correction_and_leaves_no_half_edit_or_model(home, last):
    paths = [str(HELPERS), *sys.path]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(paths), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, HELPERS / "live_child.py"]
    said = []
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as child:
        for line in child.stdout:
            said.append(line.strip())
            if said[-1].startswith(last):
                break
        child.kill()
        said += [line.strip() for line in child.stdout]  # what it said until it was killed
    assert any(line.startswith(last) for line in said)
    saved = max(int(line.split()[1]) for line in said if line.startswith("saved"))
    with JournalReader(find_journals()[0].path) as journal:
        assert len(journal.history()) >= saved
        assert holds_whole_edits(journal)
    names = {entry.name for entry in list_models()}
    assert names >= {line for line in said if line.startswith("kept")}
    for name in names:
        if name.startswith("kept"):
            assert load_model(name, "cpu").card.parent
