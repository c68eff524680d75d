"""Unfinished trainings: who may go on with them, and what new models are called."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from napari_unet.core.errors import InputError, OutputError
from napari_unet.core.settings.model_spec import ModelSpec
from napari_unet.core.training.run_state import (
    CHECKPOINT,
    RUN_STATE,
    RunState,
    forget_training,
    is_locked,
    list_unfinished,
    lock_training,
    propose_name,
    read_run_state,
    training_folder,
    write_run_state,
)

SPEC = ModelSpec(ndim=3, depth=1, pooling=((1, 2, 2),)).to_json()
HELD_OUT = {"validation": 0.2, "seed": 3}
MINE = RunState("parent", SPEC, "data", {"base": "nuclei"}, HELD_OUT)


@pytest.fixture
def folder(home):
    folder = training_folder("mine")
    folder.mkdir(parents=True)
    write_run_state(folder, MINE)
    (folder / CHECKPOINT).write_bytes(b"weights")
    return folder


def test_a_training_goes_on_with_the_same_plan_only(folder):
    noted = read_run_state(folder)
    assert noted is not None and noted.fits(MINE) and noted.request == {"base": "nuclei"}
    write_run_state(folder, RunState("parent", SPEC, "data", {}, HELD_OUT))
    with pytest.raises(InputError, match=r"begun with validation 0\.2 and seed 3; with others it"):
        write_run_state(folder, RunState("parent", SPEC, "data", {}, {**HELD_OUT, "seed": 4}))
    with pytest.raises(InputError, match="had another model or other images"):
        write_run_state(folder, RunState("parent", SPEC, "other data"))


def test_a_training_of_before_it_was_noted_what_is_held_out_goes_on(folder):
    noted = json.loads((folder / RUN_STATE).read_text())
    del noted["held_out"]
    (folder / RUN_STATE).write_text(json.dumps(noted))
    write_run_state(folder, MINE)


def test_without_a_checkpoint_the_plan_is_written_anew(folder):
    (folder / CHECKPOINT).unlink()
    write_run_state(folder, RunState("other", SPEC, "data"))
    assert read_run_state(folder).parent == "other"


def test_the_unfinished_are_listed_until_they_are_forgotten(folder):
    other = training_folder("damaged")
    other.mkdir()
    (other / CHECKPOINT).touch()
    (other / RUN_STATE).write_text("[1, 2")
    assert list(list_unfinished()) == ["mine"]
    (folder / "log.csv").touch()
    forget_training(folder)
    assert list_unfinished() == {} and [path.name for path in folder.iterdir()] == ["log.csv"]


def test_nobody_trains_where_somebody_does(folder):
    assert not is_locked(folder)
    lock = lock_training(folder)
    assert is_locked(folder) and list_unfinished() == {}
    code = (
        "from napari_unet.core.training.run_state import *\n"
        "from napari_unet.core.errors import InputError\n"
        "try: lock_training(training_folder('mine'))\n"
        "except InputError as error: print(error)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("A model 'mine' is being trained in another window or terminal")
    lock.release()
    assert not is_locked(folder) and list(list_unfinished()) == ["mine"]


def test_a_folder_that_cannot_be_made(home):
    (home / "training").write_text("in the way")
    with pytest.raises(OutputError, match="cannot be made"):
        lock_training(training_folder("mine"))


@pytest.mark.parametrize(
    ("base", "taken", "name"),
    [
        ("nuclei", (), "nuclei-tuned"),
        ("nuclei", ("Nuclei-Tuned",), "nuclei-tuned-2"),
        ("nuclei-tuned", ("nuclei-tuned", "nuclei-tuned-2"), "nuclei-tuned-3"),
        ("nuclei-tuned-7", (), "nuclei-tuned"),
        ("x" * 60, (), "x" * 54 + "-tuned"),
    ],
)
def test_names_of_tuned_models(base, taken, name):
    assert propose_name(base, taken) == name
