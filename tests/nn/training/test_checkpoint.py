"""A training that is killed, at any moment and again and again, ends as if nothing had happened."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import time
from pathlib import Path

import drive_training
import pytest
import torch
from PIL import Image
from safetensors import safe_open

from napari_unet.core.training.log import CURVE, TABLE, read_table

PROGRAM = Path(drive_training.__file__)

CHECKPOINT = drive_training.CHECKPOINT


class KilledError(BaseException):
    """Stands for the end of the process."""


def outcome(folder):
    """All that a training leaves, but the time that it took."""
    with safe_open(folder / CHECKPOINT, "pt") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}
        notes = json.loads(file.metadata()["state"])
    rows = [{k: v for k, v in row.items() if k != "seconds"} for row in read_table(folder / TABLE)]
    del notes["seconds"]
    with Image.open(folder / CURVE) as image:
        image.load()
    return tensors, notes, rows, sorted(path.name for path in folder.iterdir())


def check_same(folder, wanted):
    tensors, *rest = outcome(folder)
    assert rest == list(wanted[1:])
    assert tensors.keys() == wanted[0].keys()
    for name, value in tensors.items():
        assert torch.equal(value, wanted[0][name]), name


def test_an_uninterrupted_run_leaves_every_row_once(tmp_path):
    list(drive_training.go_on(tmp_path, 12))
    tensors, notes, rows, names = outcome(tmp_path)
    assert [row["step"] for row in rows] == [2, 4, 5, 6, 8, 10, 12]
    assert [row["step"] for row in rows if "val_AP50" in row] == [5, 10, 12]
    assert names == [CHECKPOINT, CURVE, TABLE]
    assert notes["step"] == 12
    assert {name.split("/")[0] for name in tensors} == {"net", "average", "best", "optimizer"}


def test_every_file_operation_may_be_the_last(tmp_path, monkeypatch):
    """The end comes before a file is synced, and before it takes its name."""
    moments = []

    def at(operation):
        def counted(*arguments):
            moments.append(operation)
            if len(moments) == last:
                raise KilledError
            return operation(*arguments)

        return counted

    monkeypatch.setattr(os, "fsync", at(os.fsync))
    monkeypatch.setattr(Path, "replace", at(Path.replace))
    last = 0
    list(drive_training.go_on(tmp_path / "whole", 8))
    wanted, count = outcome(tmp_path / "whole"), len(moments)
    assert count > 12
    for last in range(1, count + 1):
        folder = tmp_path / str(last)
        moments.clear()
        with pytest.raises(KilledError):
            list(drive_training.go_on(folder, 8))
        list(drive_training.go_on(folder, 8))
        check_same(folder, wanted)


@pytest.mark.slow
def test_killed_again_and_again(tmp_path):
    """SIGKILL at random moments of a real process: in a step, a validation, a file."""
    steps, chance = 40, random.Random(0)
    whole, folder = tmp_path / "whole", tmp_path / "killed"
    run_program(whole, steps)
    for _ in range(6):
        with subprocess.Popen(command(folder, steps), stdout=subprocess.PIPE) as process:
            for _ in range(chance.randint(1, 12)):
                process.stdout.readline()
            time.sleep(chance.random() * 0.2)
            process.kill()
    run_program(folder, steps)
    check_same(folder, outcome(whole))


def command(folder, steps):
    return [sys.executable, str(PROGRAM), str(folder), str(steps)]


def run_program(folder, steps):
    run = subprocess.run(command(folder, steps), capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
