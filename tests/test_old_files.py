"""Models, journals and results that lie on users' disks open, and say what they always said.

The files in `fixtures` were written by `fixtures/make_fixtures.py`, once, with the code of the day.
"""

from __future__ import annotations

import csv
import dataclasses
import json
import shutil

import numpy as np
import pytest
from contract_parts import FIXTURES, history_of, paint

import napari_unet as nu
from napari_unet.cli import main
from napari_unet.core.annotations.corrections import list_corrections
from napari_unet.core.annotations.header import find_journals
from napari_unet.core.annotations.journal import Journal
from napari_unet.core.annotations.journal_reader import JournalReader
from napari_unet.core.annotations.mask import read_annotation_mask
from napari_unet.core.annotations.training_set import to_samples
from napari_unet.core.instances.heads import InstanceHead, SemanticHead
from napari_unet.core.io.provenance import differing_settings, read_provenance
from napari_unet.core.progress import run_to_end
from napari_unet.core.settings.tasks import PredictSettings
from napari_unet.core.training.rehearsal import rehearsal_samples, unpack_rehearsal

MODEL, IMAGE = FIXTURES / "old_model", FIXTURES / "old_cells.tif"
RESULTS = ("old_labels.tif", "old_labels.ome.tif", "old_labels.png", "old_labels.zarr")
JOURNALS = ("cells", "volume")

NEWER = ("assumed", "background_weight", "pixel_um", "voxel_ratio")
"""What samples have since the file of answers was written."""
NAMES = {"scribbled": "sketched"}
"""What arrays are called in the file of answers, where the code says it otherwise since."""


@pytest.fixture(scope="module")
def answers():
    with np.load(FIXTURES / "old_answers.npz", allow_pickle=False) as arrays:
        return dict(arrays)


@pytest.fixture(scope="module")
def wanted():
    """What the journals said when they were written."""
    with np.load(FIXTURES / "old_journals.npz", allow_pickle=False) as arrays:
        return dict(arrays)


@pytest.fixture
def stacks(wanted):
    return {name: nu.open_stack(wanted[name], "ZYX") for name in JOURNALS}


@pytest.fixture
def old_home(home):
    """A user's folder with the old journals, and with the old model in its store."""
    shutil.copytree(FIXTURES / "old_home", home, dirs_exist_ok=True)
    shutil.copytree(MODEL, home / "models" / "old_model")
    return home


@pytest.fixture
def place(old_home, stacks):
    """Find the journal of an image."""

    def find(name):
        (found,) = find_journals(stacks[name])
        return found.path

    return find


class TestModel:
    def test_its_card_says_what_its_file_says(self):
        model = nu.load_model(MODEL, "cpu")
        values = json.loads((MODEL / "model.json").read_text(encoding="utf-8"))
        assert model.card.to_json() == values
        assert (model.name, model.spec.depth, model.spec.width) == ("old_model", 2, 4)
        assert model.diameter == values["training"]["working_diameter_px"]

    def test_it_finds_the_same_objects(self, answers):
        model = nu.load_model(MODEL, "cpu")
        labels, maps = nu.segment(IMAGE, model), nu.predict(IMAGE, model)
        assert answers["labels"].max() == 9
        assert labels.dtype == np.uint16 and np.array_equal(labels, answers["labels"])
        np.testing.assert_allclose(maps, answers["maps"], atol=2e-3)

    def test_it_answers_the_same_clicks(self, answers):
        session = nu.ClickSession(nu.load_model(MODEL, "cpu"), IMAGE)
        y, x = answers["place"]
        first = session.add(nu.Click((y, x)))
        second = session.add(nu.Click((y + 3, x), positive=False))
        assert np.array_equal(first, answers["first"])
        assert np.array_equal(second, answers["second"])

    def test_it_is_imported_listed_shown_exported_and_runs_by_name(
        self, home, tmp_path, capsys, answers
    ):
        assert main(["models", "import", str(MODEL), "--name", "mine"]) == 0
        out = capsys.readouterr().out
        assert out == f"mine: imported into {home / 'models' / 'mine'}\n"
        for name in ("model.safetensors", "thumbnail.png", "replay.npz"):
            assert (home / "models" / "mine" / name).read_bytes() == (MODEL / name).read_bytes()
        assert main(["models", "list"]) == 0
        assert "\nmine " in capsys.readouterr().out
        assert main(["models", "show", "mine"]) == 0
        assert main(["models", "export", "mine", str(tmp_path / "mine.zip")]) == 0
        assert main(["models", "import", str(tmp_path / "mine.zip"), "--name", "again"]) == 0
        target = tmp_path / "labels.tif"
        assert main(["segment", str(IMAGE), str(target), "--model", "again"]) == 0
        assert np.array_equal(nu.open_stack(target).data[:], answers["labels"])

    def test_what_it_was_trained_on_is_seen_as_it_was(self):
        crops = unpack_rehearsal((MODEL / "replay.npz").read_bytes())
        samples = rehearsal_samples(crops, InstanceHead(), 1)
        with np.load(MODEL / "replay.npz", allow_pickle=False) as kept:
            assert len(samples.items) == len(kept["diameters"]) > 2
            for number, item in enumerate(samples.items):
                image = kept[f"image{number}"] / 255 * 1.55 - 0.2  # 8 bits, from -0.2 to 1.35
                np.testing.assert_allclose(item.image, image, atol=1e-5)
                assert np.array_equal(item.labels, kept[f"labels{number}"])
                bits = np.packbits(item.known)
                assert np.array_equal(bits, kept[f"known{number}"])
                assert item.diameter == kept["diameters"][number]

    def test_it_is_tuned_on_and_keeps_what_it_was_trained_on_before(self, answers, home):
        model = nu.load_model(MODEL, "cpu")
        samples = nu.Samples.from_labels([(IMAGE, answers["labels"])], channels=1)
        settings = nu.TrainSettings(steps=1, crop=32, batch=2)
        tuning = nu.Tuning(model, samples, settings)
        run_to_end(tuning.steps())
        assert tuning.judgement.replay_before == 1.0
        folder = tuning.save("child")
        child = nu.load_model("child", "cpu")
        assert child.card.parent == model.card.hash and child.click is not None
        with np.load(MODEL / "replay.npz") as old, np.load(folder / "replay.npz") as new:
            assert np.array_equal(old["image0"], new["image0"])
            assert len(new["diameters"]) > len(old["diameters"])


class TestResults:
    @pytest.mark.parametrize("name", RESULTS)
    def test_it_is_read_with_its_passport(self, name, answers):
        stack = nu.open_stack(FIXTURES / name)
        assert np.array_equal(stack.data[:], answers["labels"])
        assert stack.voxel_size_um == pytest.approx((1, 0.5, 0.5), rel=1e-3)
        passports = json.loads((FIXTURES / "old_passports.json").read_text(encoding="utf-8"))
        assert read_provenance(FIXTURES / name) == passports[name]

    @pytest.mark.parametrize("name", RESULTS)
    def test_it_is_scored_and_measured(self, name, answers, tmp_path, capsys):
        table = tmp_path / "objects.csv"
        command = ["measure", str(FIXTURES / name), str(IMAGE), "--csv", str(table)]
        assert main(command) == 0
        with table.open(newline="") as file:
            rows = list(csv.DictReader(file))
        pixels = np.bincount(answers["labels"].ravel())[1:] * 0.25
        assert [float(row["area_um2"]) for row in rows] == pytest.approx(pixels, rel=1e-3)
        scores = tmp_path / "scores.csv"
        truth = str(FIXTURES / "old_labels.tif")
        assert main(["evaluate", str(FIXTURES / name), truth, "--csv", str(scores)]) == 0
        assert "1.000" in capsys.readouterr().out

    def test_the_same_run_again_is_known_to_be_the_same(self, tmp_path):
        target = tmp_path / "labels.tif"
        assert main(["segment", str(IMAGE), str(target), "--model", str(MODEL),
                     "--device", "cpu", "--no-survey"]) == 0  # fmt: skip
        old, new = read_provenance(FIXTURES / "old_labels.tif"), read_provenance(target)
        for key in ("model", "model_hash", "data_hash", "objects", "remarks"):
            assert new[key] == old[key], key
        assert new["settings"] == old["settings"] | {"augment": "auto"}  # the default is another
        same = differing_settings(old, new["model_hash"], PredictSettings(**new["settings"]))
        assert not list(same)


@pytest.mark.parametrize("name", JOURNALS)
class TestJournal:
    def test_it_is_found_by_its_image_and_says_the_same(self, name, place):
        history = json.loads((FIXTURES / "old_history.json").read_text(encoding="utf-8"))
        with JournalReader(place(name)) as journal:
            found = history_of(journal)
        assert found["about"].pop("channel") is None  # it was not noted yet
        assert found.keys() == history[name].keys()
        for key, value in history[name].items():
            assert found[key] == value, key

    def test_its_labels_and_what_is_known_of_them(self, name, place, wanted):
        with JournalReader(place(name)) as journal:
            assert journal.replay().dtype == wanted[f"{name}_labels"].dtype
            assert np.array_equal(journal.replay(), wanted[f"{name}_labels"])
            scribbles = journal.replay(canvas="scribbles")
            assert scribbles.any() and np.array_equal(scribbles, wanted[f"{name}_scribbles"])
            truths = [read_annotation_mask(journal, index) for index in journal.frames()]
        for part in ("known", "scribbled"):
            found = np.stack([getattr(truth, part) for truth in truths])
            assert np.array_equal(found, wanted[f"{name}_{NAMES.get(part, part)}"]), part
        assert wanted[f"{name}_known"].any() and not wanted[f"{name}_known"].all()

    def test_it_is_gone_on_with(self, name, place, stacks, wanted):
        path, labels = place(name), wanted[f"{name}_labels"].copy()
        with Journal.open(path, stacks[name]) as journal:
            done = journal.undoable
            paint(journal, labels, np.s_[1:2, 0:2, 0:3], 11, source="paint")
            assert (journal.undoable, journal.redoable) == (done + 1, 0)
        with Journal.open(path, stacks[name]) as journal:
            assert np.array_equal(journal.replay(), labels)
            while step := journal.undo():
                if step.edit.canvas == "labels":
                    labels[step.where] = step.values
            assert np.array_equal(journal.replay(), labels)
            assert (journal.undoable, journal.redoable) == (0, done + 1)
        if name == "cells":  # all labels of the beginning are in the journal
            assert np.array_equal(labels, wanted["cells_begin"])


class TestJournalOfPlanes:
    def test_what_was_undone_last_is_done_again(self, place, wanted):
        with Journal.open(place("cells")) as journal:
            step = journal.redo()
            assert step.edit.source == "erase" and not step.values.any()
            assert [(int(w.min()), int(w.max())) for w in step.where] == [(2, 2), (6, 13), (6, 13)]


class TestTrainingSet:
    def rows(self):
        return {row.journal.header.ndim: row for row in list_corrections()}

    def test_the_corrections_of_all_images_are_listed(self, old_home):
        rows = self.rows()
        planes, volume = rows[2], rows[3]
        assert (planes.frames, planes.objects, planes.dropped) == (((0,), (1,), (2,)), 5, True)
        assert planes.problem == ""
        assert (volume.frames, volume.path) == (((),), "/images/volume.tif")
        assert volume.problem == "Its image /images/volume.tif is gone; put it back or open it."

    def test_samples_are_the_same(self, old_home, stacks, wanted):
        rows = self.rows()
        planes, remarks = run_to_end(to_samples([rows[2]], channels=1))
        how = {"ndim": 3, "channels": 1, "opened": [stacks["volume"]]}
        volumes, more = run_to_end(to_samples([rows[3]], SemanticHead(3), **how))
        items = [*planes.items, *volumes.items]
        assert remarks == more == []
        assert len(items) == sum(key.endswith("_image") for key in wanted) > 3
        for number, item in enumerate(items):
            for part in dataclasses.fields(item):
                key = f"sample{number}_{NAMES.get(part.name, part.name)}"
                value = getattr(item, part.name)
                if key not in wanted:
                    assert value is None or part.name in NEWER, key
                elif part.name == "diameter" and value:  # of all labels now, not of the corrected
                    areas = np.unique(item.labels[item.labels > 0], return_counts=True)[1]
                    assert value == pytest.approx(np.median(np.sqrt(4 / np.pi * areas)))
                elif np.asarray(value).dtype.kind == "f":
                    np.testing.assert_allclose(value, wanted[key], atol=1e-5, err_msg=key)
                else:
                    assert np.array_equal(value, wanted[key]), key
