"""A training that is killed, at any moment and again and again, ends as if nothing had happened."""

from __future__ import annotations

import contextlib
import json
import multiprocessing
import os
import random
import time
from pathlib import Path

import drive_training
import pytest
import torch
from PIL import Image
from safetensors import safe_open

from napari_unet.core.training.log import CURVE, TABLE, read_table

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

    def blank(figure, path, **_):  # drawing takes most of the time, and is tested elsewhere
        Image.new("L", (1, 1)).save(path, format="png")

    monkeypatch.setattr("matplotlib.figure.Figure.savefig", blank)
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
    steps, chance = 20, random.Random(0)
    whole, folder = tmp_path / "whole", tmp_path / "killed"
    run_program(whole, steps)
    for _ in range(3):
        process, reports = start_program(folder, steps)
        with contextlib.suppress(EOFError):  # it has come to its end
            for _ in range(chance.randint(1, 10)):
                reports.recv()
        time.sleep(chance.random() * 0.2)
        process.kill()
        process.join()
    run_program(folder, steps)
    check_same(folder, outcome(whole))


def start_program(folder, steps):
    """Start the training in a process that has torch already, where processes can be forked."""
    methods = multiprocessing.get_all_start_methods()
    context = multiprocessing.get_context("forkserver" if "forkserver" in methods else "spawn")
    context.set_forkserver_preload(["matplotlib.figure", "napari_unet.nn.training.held_out"])
    reports, theirs = context.Pipe(duplex=False)
    process = context.Process(target=drive_training.main, args=(folder, steps, theirs))
    process.start()
    theirs.close()
    return process, reports


def run_program(folder, steps):
    process, reports = start_program(folder, steps)
    with contextlib.suppress(EOFError):  # a full pipe would hold the process up
        while True:
            reports.recv()
    process.join()
    assert process.exitcode == 0
