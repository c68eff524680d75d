"""What a new version of a model changes in the other open images and in the files of the batch."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import tifffile
import tune_parts as parts
from discs import disc_labels
from napari.components import ViewerModel
from qtpy.QtWidgets import QWidget

from napari_unet.core.models.store import list_models
from napari_unet.gui.correct import image_opener
from napari_unet.gui.finetune.image_changes import list_other_images
from napari_unet.nn.inference.model import save_model

BRIGHT, DIM = 0.9, 0.6


@pytest.fixture
def panel(viewer, models, threshold_model):
    """The Fine-tune step; the version "strict" does not find dim discs any more."""
    model = threshold_model("all", 2)
    model.net.head.bias.data[0] = -15
    stored = next(entry.card for entry in list_models() if entry.name == "all")
    save_model(replace(model, card=stored.replace(parent=stored.hash)), "strict")
    panel = parts.panel_of(viewer)
    panel.inputs.choose_model("strict")
    panel.open_step("Fine-tune")
    return panel


def picture(dim: int) -> np.ndarray:
    """Discs, so many of which are dim."""
    labels = disc_labels(np.random.default_rng(0), (64, 140))
    values = np.where(labels > labels.max() - dim, DIM, BRIGHT)
    noise = np.random.default_rng(1).normal(0, 0.01, labels.shape)
    return (np.where(labels > 0, values, 0) + noise).astype(np.float32)


def names(strip) -> list[str]:
    return [strip.item(row).text() for row in range(strip.count())]


def test_the_image_with_most_changes_comes_first_and_is_opened_there(
    viewer, panel, qtbot, tmp_path, monkeypatch
):
    for name, dim in (("here", 4), ("few", 1), ("none", 0)):
        viewer.add_image(picture(dim), name=name)
    tifffile.imwrite(tmp_path / "many.tif", picture(5))
    (tmp_path / "broken.tif").write_bytes(b"no image")
    panel.open_step("Batch")
    panel.batch.add([tmp_path / "many.tif", tmp_path / "broken.tif"])
    panel.open_step("Fine-tune")
    panel.inputs.image.value = viewer.layers["here"]
    before = {layer.name: layer.data.copy() for layer in viewer.layers}
    others = panel.tune.others
    others.start.click()
    assert others.running and others.start.text() == "Cancel"
    qtbot.waitUntil(lambda: not others.running, timeout=60_000)
    assert names(others.strip) == ["many.tif\n5 changed", "few\n1 changed", "none\nthe same"]
    assert "Of 3 images, 2 would change." in others.status.text()
    assert "broken.tif:" in others.status.text()
    assert {layer.name for layer in viewer.layers} == set(before)
    assert all(np.array_equal(viewer.layers[name].data, values) for name, values in before.items())
    assert sorted(path.name for path in tmp_path.iterdir()) == ["broken.tif", "many.tif"]

    others.strip.itemClicked.emit(others.strip.item(1))
    assert panel.inputs.image.value is viewer.layers["few"]
    assert not viewer.layers["none"].visible and viewer.layers["few"].visible
    qtbot.waitUntil(lambda: others.start.isEnabled())
    others.strip.itemClicked.emit(others.strip.item(0))
    qtbot.waitUntil(lambda: "many" in viewer.layers, timeout=10_000)
    assert panel.inputs.image.value is viewer.layers["many"]
    centre = viewer.scene.camera.center[-2:]
    assert viewer.layers["many"].data[tuple(round(c) for c in centre)] < 0.8
    others.strip.itemClicked.emit(others.strip.item(0))
    assert len(viewer.layers) == 4, "it is opened once"
    listed = [image.name for image in list_other_images(viewer, None, *others.files())]
    assert "many" in listed and "broken.tif" in listed
    assert "many.tif" not in listed, "it is open now"
    volume = SimpleNamespace(labels_axes="ZYX")
    monkeypatch.setattr(image_opener, "layer_stack", lambda _: volume)
    others.strip.itemClicked.emit(others.strip.item(0))
    assert "axes of 'many' were changed" in others.status.text()


def test_it_can_be_cancelled_and_makes_room_for_others(viewer, panel, qtbot):
    for name in ("here", "one", "two"):
        viewer.add_image(picture(2), name=name)
    others = panel.tune.others
    others.start.click()
    others.start.click()
    assert not others.running and "2 of 2 not looked at" in others.status.text()
    qtbot.waitUntil(lambda: others.job is None, timeout=30_000)
    assert others.strip.count() == 0
    panel.inputs.choose_model("all")
    others.start.click()
    assert "no earlier version of 'all'" in others.status.text()


def test_a_picture_clicked_twice_opens_one_image_and_none_when_forgotten(qtbot, tmp_path):
    viewer, said, place = (
        ViewerModel(),
        [],
        SimpleNamespace(index=(), centre=(10.0, 10.0), extent=9),
    )
    for name in "ab":
        tifffile.imwrite(tmp_path / f"{name}.tif", picture(0))
    parent = QWidget()
    qtbot.addWidget(parent)
    opener = image_opener.ImageOpener(viewer, parent, said.append)
    jobs = []
    run = opener._jobs.run
    opener._jobs.run = lambda kind, job: jobs.append(job) or run(kind, job)
    for _ in range(2):  # the second click comes before the file is read
        opener.open("key", tmp_path / "a.tif", None, place)
    qtbot.waitUntil(lambda: not any(job.active for job in jobs), timeout=10_000)
    qtbot.waitUntil(lambda: bool(viewer.layers), timeout=10_000)
    assert [layer.name for layer in viewer.layers] == ["a"]
    opener.open("other", tmp_path / "b.tif", None, place)
    opener.forget()
    qtbot.waitUntil(lambda: not any(job.active for job in jobs), timeout=10_000)
    assert [layer.name for layer in viewer.layers] == ["a"]
    assert not said
