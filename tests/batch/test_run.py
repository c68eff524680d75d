"""A list of files, one after the other, without a window."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
import tifffile

import napari_unet as nu
from napari_unet.batch.file_job import plan_files
from napari_unet.batch.run import DONE, FAILED, RUNNING, batch_steps, find_images
from napari_unet.core.errors import InputError, OutputError
from napari_unet.core.io.provenance import read_provenance
from napari_unet.nn.inference.runner import Runner

if TYPE_CHECKING:
    from pathlib import Path

SETTINGS = nu.PredictSettings(tile=32, certify=False, survey=False)


@pytest.fixture
def images(tmp_path: Path) -> list[Path]:
    """Three images, of which the second is damaged."""
    (tmp_path / "in").mkdir()
    for number, name in enumerate("abc"):
        values = np.random.default_rng(number).integers(0, 255, (70, 50)).astype(np.uint8)
        tifffile.imwrite(tmp_path / "in" / f"{name}.tif", values)
    (tmp_path / "in" / "b.tif").write_bytes(b"II*\0nonsense")
    return find_images([tmp_path / "in"])


@pytest.fixture
def model(make_model):
    return make_model(depth=1, gain=6.0)


@pytest.fixture
def work(images, model, tmp_path):
    """Begin to work through the images; say how often the model was loaded."""
    out = tmp_path / "out"
    out.mkdir()
    loaded = []

    def load():
        loaded.append(model)
        return model

    def begin(settings=SETTINGS, **options):
        jobs = plan_files(images, out)
        return batch_steps(jobs, model.card, load, settings, **options)

    begin.loaded = loaded
    return begin


def ends(steps):
    """Return what became of each file: its state, and its objects or the reason."""
    last = {}
    for step in steps:
        assert step.number == 0 or step.number - 1 in last, "one after the other"
        last[step.number] = step
    return [last[number] for number in sorted(last)]


def test_what_fails_is_told_and_the_rest_goes_on(work, images, tmp_path):
    steps = list(work())
    states = [[s.state for s in steps if s.number == number] for number in range(3)]
    assert states[0][-1] == DONE and set(states[0][:-1]) == {RUNNING}
    assert states[1][-1] == FAILED and states[2][-1] == DONE
    tiles = [step for step in steps if step.number == 0 and step.what == "tiles"]
    assert [tile.done for tile in tiles] == list(range(1, tiles[-1].total + 1))
    assert "b.tif" in steps[[s.state for s in steps].index(FAILED)].reason
    out = tmp_path / "out"
    assert sorted(path.name for path in out.iterdir()) == ["a.tif", "c.tif"]
    objects = [step.objects for step in steps if step.state == DONE]
    assert objects == [read_provenance(out / f"{name}.tif")["objects"] for name in "ac"]
    assert max(objects) > 0 and len(work.loaded) == 1


def test_running_again_does_what_is_missing(work, images, tmp_path):
    first = ends(work())
    values = np.random.default_rng(9).integers(0, 255, (70, 50)).astype(np.uint8)
    tifffile.imwrite(images[1], values)
    times = [(tmp_path / "out" / f"{name}.tif").stat().st_mtime_ns for name in "ac"]
    again = ends(work())
    assert [step.state for step in again] == [DONE] * 3
    assert again[0].objects == first[0].objects
    assert times == [(tmp_path / "out" / f"{name}.tif").stat().st_mtime_ns for name in "ac"]
    work.loaded.clear()
    assert [step.state for step in ends(work())] == [DONE] * 3
    assert not work.loaded, "nothing was left to do"


def test_other_settings_and_other_images_are_no_finished_work(work, images, tmp_path):
    ends(work())
    other = nu.PredictSettings(**{**vars(SETTINGS), "threshold": 0.9})
    step = ends(work(other))[0]
    assert step.state == FAILED and "exists already" in step.reason
    assert ends(work(other, overwrite=True))[0].state == DONE
    assert read_provenance(tmp_path / "out" / "a.tif")["settings"]["threshold"] == 0.9
    tifffile.imwrite(images[0], np.zeros((70, 50), np.uint8))
    assert ends(work(other))[0].state == FAILED


def test_labels_from_elsewhere_are_left_alone(work, tmp_path):
    mine = np.ones((70, 50), np.uint16)
    tifffile.imwrite(tmp_path / "out" / "a.tif", mine)
    assert ends(work())[0].state == FAILED
    assert np.array_equal(tifffile.imread(tmp_path / "out" / "a.tif"), mine)


def test_closing_it_keeps_the_finished_files_and_nothing_of_the_rest(work, tmp_path):
    steps = work()
    for step in steps:
        if step.number == 2 and step.what == "tiles":
            break
    steps.close()
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["a.tif"]


def test_an_error_that_nobody_foresaw_is_the_file_s(work, model, monkeypatch, caplog):
    def broken(*_):
        raise RuntimeError("the device is on fire")

    monkeypatch.setattr(Runner, "__call__", broken)
    states = ends(work())
    assert [step.state for step in states] == [FAILED] * 3
    assert states[0].reason == "RuntimeError: the device is on fire"
    assert "the device is on fire" in caplog.text


def test_a_model_that_does_not_load_ends_it(images, model, tmp_path):
    def load():
        raise nu.ModelError("The model is damaged.")

    steps = batch_steps(plan_files(images, tmp_path), model.card, load, SETTINGS)
    with pytest.raises(nu.ModelError, match="damaged"):
        list(steps)


def test_files_and_folders_are_listed_once(images, tmp_path):
    assert [path.name for path in images] == ["a.tif", "b.tif", "c.tif"]
    assert find_images([images[1], tmp_path / "in", images[1]]) == [
        images[1], images[0], images[2]
    ]  # fmt: skip
    with pytest.raises(InputError, match="does not exist"):
        find_images([tmp_path / "nowhere.tif"])


def test_equal_names_get_labels_of_their_own(tmp_path):
    images = [tmp_path / name for name in ("x/a.tif", "x/a.png", "y/a.tif", "y/b.tif")]
    names = [job.target.name for job in plan_files(images, tmp_path / "out")]
    assert names == ["x a.tif.tif", "a.png.tif", "y a.tif.tif", "b.tif"]
    suffixed = [tmp_path / name for name in ("a.bmp", "a.png", "a.png.bmp", "A.PNG.gif")]
    names = [job.target.name for job in plan_files(suffixed, tmp_path / "out")]
    assert len({name.casefold() for name in names}) == 4
    accents = [tmp_path / "\u00e9.tif", tmp_path / "e\u0301.png"]  # one name to a Mac
    names = [job.target.name for job in plan_files(accents, tmp_path / "out")]
    assert [name[-8:] for name in names] == [".tif.tif", ".png.tif"]
    twice = [tmp_path / name for name in ("1/x/a.tif", "2/x/a.tif")]
    assert len({job.target for job in plan_files(twice, tmp_path)}) == 2


def test_labels_never_take_the_place_of_an_image(images, tmp_path):
    with pytest.raises(OutputError, match="is an image of the list; choose another folder"):
        plan_files(images, tmp_path / "in")
