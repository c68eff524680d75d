"""The Fine-tune section in a real window, with the real engine and small models."""

from __future__ import annotations

import errno
import json
from pathlib import Path

import numpy as np
import pytest
import tune_parts as parts
from napari.utils.notifications import notification_manager

from napari_unet.core.models.folder import WEIGHTS, read_card
from napari_unet.core.models.store import list_models
from napari_unet.core.training.run_state import (
    CHECKPOINT,
    list_unfinished,
    lock_training,
    training_folder,
)
from napari_unet.gui.layers.overlay_layer import SHOWS
from napari_unet.gui.layers.result_info import RESULT_KEY
from napari_unet.nn.inference.model import load_model

LONG, SHORT = 5.0, 0.02  # minutes


@pytest.fixture
def tiny(home):
    parts.tiny_model()


@pytest.fixture
def image(viewer):
    data, labels = parts.discs()
    layer = viewer.add_image(data, name="im")
    layer.metadata["labels"] = labels
    return layer


@pytest.fixture
def section(viewer, tiny, image):
    section = parts.panel_of(viewer).tune
    section.form.choose("tiny")
    section.form.device.value = "cpu"
    section.form.first.settings["minutes"].set(SHORT)
    section.form.advanced.settings["batch"].set(1)
    return section


@pytest.fixture
def journal(section, image):
    return parts.corrected(image.data, image.metadata["labels"])


@pytest.fixture
def over(section, qtbot):
    """Wait until training and comparison are over."""

    def wait():
        qtbot.waitUntil(
            lambda: section.active is None and section.review.comparison is None, timeout=60_000
        )

    return wait


@pytest.fixture
def tuned(section, journal, over):
    section.start.native.click()
    over()
    return section


def started(section, qtbot, steps=2):
    """Begin a long training and wait for its first steps."""
    section.form.first.settings["minutes"].set(LONG)
    section.start.native.click()
    qtbot.waitUntil(
        lambda: section.active.work.usable and section.active.work.tuning.state.step >= steps,
        timeout=60_000,
    )
    return section.active


def kept(section, qtbot):
    section.review.keep.native.click()
    qtbot.waitUntil(lambda: section.review.work is None, timeout=30_000)
    qtbot.waitUntil(lambda: section.start.enabled)


def reopened(viewer):
    """Open the panel again after it was deleted."""
    viewer.window.remove_dock_widget("all")
    return parts.panel_of(viewer)


def names():
    return [entry.name for entry in list_models() if not entry.bundled]


def changes_layers(viewer):
    return [layer for layer in viewer.layers if SHOWS in layer.metadata.get(RESULT_KEY, {})]


def test_a_round_from_corrections_to_a_kept_child(viewer, tuned, qtbot, image):
    section = tuned
    assert section.status.text() == "Learned from 32 objects of 1 image."
    assert "held out" in section.review.summary.text()
    loss, score = section.plot.lines
    assert loss.points and loss.label == "loss"
    assert score.label == "AP50 held out" and score.points[0][0] == 0
    assert names() == ["tiny"] and not section.start.enabled
    kept(section, qtbot)
    assert names() == ["tiny", "tiny-tuned"]
    parent, child = (read_card(entry.path) for entry in list_models() if not entry.bundled)
    assert child.parent == parent.hash and child.training["objects"] == 32
    assert child.training["data_hash"].startswith("sha256:")
    assert child.metrics["tuning"]["metric"] == "AP50"
    assert section.review.summary.text().startswith("Kept as 'tiny-tuned'")
    assert section.form.base.value == "tiny-tuned" and section.form.name.value == "tiny-tuned-2"
    assert not (training_folder("tiny-tuned") / CHECKPOINT).exists()
    assert section.versions.advice.text().startswith("Too early to tell")


def test_discarding_leaves_everything_as_it_was(viewer, tuned):
    tuned.review.discard.native.click()
    assert names() == ["tiny"] and list_unfinished() == {} and not changes_layers(viewer)
    assert tuned.review.summary.text() == "Discarded; 'tiny' is as it was."
    assert tuned.start.enabled and tuned.form.base.value == "tiny"


def test_the_segment_panel_sees_the_kept_model_at_once(viewer, panel, tuned, qtbot):
    kept(tuned, qtbot)
    assert "tiny-tuned" in panel.form.model.choices
    assert panel.form.model.value == "tiny-tuned"
    tuned.versions.rows["tiny"].click()
    assert panel.form.model.value == tuned.form.base.value == "tiny"
    assert tuned.versions.rows["tiny"] is None and tuned.versions.rows["tiny-tuned"] is not None


def test_the_segment_panel_opens_with_the_kept_model(viewer, tuned, qtbot):
    kept(tuned, qtbot)
    panel = viewer.window.add_plugin_dock_widget("napari-unet", "Segment")[1].segment
    assert panel.form.model.value == "tiny-tuned"


def test_cancelling_keeps_the_best_so_far(section, journal, over, qtbot):
    started(section, qtbot)
    qtbot.waitUntil(lambda: "left" in section.status.text(), timeout=60_000)
    assert section.bar.value() < 100 and section.bar.isVisibleTo(section.footer)
    section.stop.native.click()
    over()
    assert section.review.summary.text().startswith("Stopped; this is the best so far.")
    kept(section, qtbot)
    assert names() == ["tiny", "tiny-tuned"]


def test_cancelling_before_the_first_step(section, journal, over):
    section.start.native.click()
    section.stop.native.click()
    over()
    assert section.status.text() == "Cancelled before anything was learned."
    assert section.review.work is None and section.start.enabled and list_unfinished() == {}


def test_without_corrections_one_sentence_says_so(section, over):
    with notification_manager:
        notification_manager.records.clear()
        section.start.native.click()
        over()
        messages = [str(note.message) for note in notification_manager.records]
    assert section.status.text().startswith("There are no corrections to learn from; correct some")
    assert messages == [section.status.text()] and section.start.enabled


def test_a_single_object_cannot_be_judged_but_decided_on(section, image, over):
    labels = image.metadata["labels"].copy()
    labels[labels != 1] = 0
    parts.corrected(image.data, labels)
    section.start.native.click()
    over()
    text = section.review.summary.text()
    assert text.startswith("Not measurable whether it is better. With 1 known object nothing can")
    assert section.review.keep.enabled


def test_a_worse_model_is_not_offered(section, image, threshold_model, over):
    """A training that destroys what the model could do is found out by the objects held out."""
    threshold_model("good", 2, training={"working_diameter_px": 14.0})
    parts.corrected(image.data, image.metadata["labels"], "good")
    section.form.choose("good")
    section.form.first.settings["minutes"].set(None)
    section.form.advanced.restore({"epochs": 40.0, "learning_rate": 1.0})
    section.start.native.click()
    over()
    text = section.review.summary.text()
    assert text.startswith("Worse: 'good' stays as it is. It finds 0 objects where ")
    assert not section.review.pending and not section.review.keep.native.isVisible()
    assert "stayed the same" in section.review.difference.text(), "it is compared all the same"
    assert list_unfinished() == {} and section.start.enabled and "good-tuned" not in names()
    section.review.discard.native.click()
    assert section.review.work is None and "good-tuned" not in names()


def test_a_store_that_cannot_be_written(section, journal, over, home):
    (home / "training").write_text("in the way")
    section.start.native.click()
    over()
    assert "cannot be made" in section.status.text() and section.start.enabled


def test_keeping_where_the_store_is_full_can_be_tried_again(tuned, qtbot, home):
    store = home / "models"
    store.rename(home / "aside")
    store.write_text("in the way")
    tuned.review.keep.native.click()
    qtbot.waitUntil(lambda: tuned.review.keep.enabled, timeout=30_000)
    assert tuned.review.work is not None and tuned.review.difference.text()
    store.unlink()
    (home / "aside").rename(store)
    kept(tuned, qtbot)
    assert names() == ["tiny", "tiny-tuned"]


def test_a_disk_that_is_full_while_the_model_is_stored(tuned, qtbot, home, monkeypatch):
    write = Path.write_bytes

    def full(path, content):
        if path.name != WEIGHTS:
            return write(path, content)
        write(path, content[: len(content) // 2])
        raise OSError(errno.ENOSPC, "No space left on device")

    store = home / "models"
    before = sorted(path.name for path in store.iterdir())
    with monkeypatch.context() as patch, notification_manager:
        patch.setattr(Path, "write_bytes", full)
        tuned.review.keep.native.click()
        qtbot.waitUntil(lambda: tuned.review.keep.enabled, timeout=30_000)
    said = tuned.review.difference.text()
    assert "tiny-tuned" in said and "No space left on device" in said and "make room" in said
    assert sorted(path.name for path in store.iterdir()) == before, "nothing half written is left"
    assert (training_folder("tiny-tuned") / CHECKPOINT).exists() and tuned.review.work
    kept(tuned, qtbot)
    assert names() == ["tiny", "tiny-tuned"]
    assert load_model("tiny-tuned", "cpu").card.parent == read_card(store / "tiny").hash


def test_a_name_that_is_taken(section, journal, over):
    section.form.name.value = "tiny"
    section.start.native.click()
    over()
    assert "There is a model 'tiny' already" in section.status.text()


def test_the_window_closed_meanwhile_and_resumed(viewer, section, journal, qtbot, over):
    run = started(section, qtbot)
    folder = training_folder("tiny-tuned")
    qtbot.waitUntil(lambda: (folder / CHECKPOINT).exists(), timeout=60_000)
    step = run.work.tuning.state.step
    parts.delete_panel(section)
    qtbot.waitUntil(lambda: run.job.cancelled, timeout=5000)
    qtbot.waitUntil(lambda: not run.job.active, timeout=10_000)
    assert list(list_unfinished()) == ["tiny-tuned"] and names() == ["tiny"]
    again = reopened(viewer).tune
    assert "'tiny-tuned' was not finished" in again._resume_text.text()
    again.resume.native.click()
    qtbot.waitUntil(
        lambda: again.active.work.usable and again.active.work.tuning.state.step > 1,
        timeout=60_000,
    )
    assert again.active.request.settings.minutes == LONG
    again.cancel()
    qtbot.waitUntil(lambda: again.active is None and again.review.comparison is None)
    assert again.review.work is not None and step > 0
    again.review.discard.native.click()
    assert list_unfinished() == {}


def test_an_undecided_model_is_offered_again(viewer, tuned, qtbot):
    parts.delete_panel(tuned)
    qtbot.waitUntil(lambda: list(list_unfinished()) == ["tiny-tuned"], timeout=5000)
    again = reopened(viewer).tune
    again.resume.native.click()
    qtbot.waitUntil(
        lambda: again.active is None and again.review.comparison is None, timeout=60_000
    )
    kept(again, qtbot)
    assert names() == ["tiny", "tiny-tuned"]


def test_forgetting_an_unfinished_training(section, journal, over, qtbot):
    started(section, qtbot)
    qtbot.waitUntil(lambda: (training_folder("tiny-tuned") / CHECKPOINT).exists(), timeout=60_000)
    section.active.abandon()
    job = section.active.job
    qtbot.waitUntil(lambda: not job.active, timeout=10_000)
    section.active = None
    section._look_for_unfinished()
    assert section.form.name.value == "tiny-tuned"
    section.forget.native.click()
    assert list_unfinished() == {} and not section._resume_row.isVisible()


def test_layers_deleted_and_images_switched_meanwhile(viewer, section, journal, over, qtbot):
    started(section, qtbot)
    viewer.layers.clear()
    viewer.add_image(np.zeros((3, 40, 40), np.float32), name="other")
    section.cancel()
    over()
    assert section.review.work is not None
    kept(section, qtbot)
    assert names() == ["tiny", "tiny-tuned"]


def test_no_image_to_compare_on(viewer, section, journal, over, qtbot):
    started(section, qtbot)
    viewer.layers.clear()
    section.cancel()
    over()
    assert section.review.difference.text() == "Open an image to see what changed."


def test_two_windows_do_not_train_one_model(section, journal, over):
    lock = lock_training(training_folder("tiny-tuned"))
    section.start.native.click()
    over()
    assert "is being trained in another window" in section.status.text()
    lock.release()


def test_the_training_is_the_users_in_every_setting(section, journal, over, qtbot):
    section.form.network.restore({"scratch": True, "depth": 1, "width": 3})
    section.form.advanced.restore({"freeze": "all but the head", "validation": 0.0})
    section.start.native.click()
    over()
    tuning = section.review.work.tuning
    assert tuning.scratch and (tuning.model.spec.depth, tuning.model.spec.width) == (1, 3)
    assert tuning.config.freeze == "all but the head" and tuning.split.validation is None
    assert "n view" in section.review.difference.text(), "compared with the base model"
    kept(section, qtbot)
    assert {entry.name: entry for entry in list_models()}["tiny-tuned"].card.parent is None


def test_volumes(viewer, section, over, qtbot):
    """A model of volumes is tuned on a volume, and compared on the part that is in view."""
    plane, labels = parts.discs((64, 120))
    parts.tiny_model("deep", ndim=3, depth=1, width=2)
    image = viewer.add_image(np.stack([plane] * 6), name="volume")
    viewer.layers.selection.active = image
    parts.corrected(image.data, np.stack([labels] * 6), "deep")
    section.form.choose("deep")
    section.start.native.click()
    over()
    assert section.review.work.tuning.model.spec.ndim == 3
    assert "n view" in section.review.difference.text()
    for layer in changes_layers(viewer):
        assert layer.data.shape == image.data.shape
    kept(section, qtbot)
    assert "deep-tuned" in names()


def test_new_classes_get_a_new_head(viewer, section, image, over, qtbot):
    classes = (image.metadata["labels"] > 0).astype(np.uint8)
    classes[:, 150:] *= 2
    parts.tiny_model("kinds", head="semantic", classes=2)
    parts.corrected(image.data, classes, "kinds", head="semantic")
    section.form.choose("kinds")
    section.form.network.restore({"classes": 3})
    section.start.native.click()
    over()
    assert section.review.work.tuning.model.spec.classes == 3
    assert "pixel" in section.review.difference.text()
    kept(section, qtbot)


def test_classes_are_painted_on_labels_of_objects(viewer, section, image, over, qtbot):
    """The shipped model finds objects; painted classes go onto a new head all the same."""
    classes = (image.metadata["labels"] > 0).astype(np.uint8)
    classes[:, 150:] *= 2
    parts.corrected(image.data, classes)
    section.form.network.restore({"classes": 3})
    section.start.native.click()
    over()
    spec = section.review.work.tuning.model.spec
    assert (spec.head, spec.classes) == ("semantic", 3)
    labels = section.review.work.tuning.samples.items[0].labels
    assert np.array_equal(labels, classes), "they are no objects to be counted anew"
    assert "finds something else than 'tiny'" in section.review.difference.text()
    kept(section, qtbot)


def test_an_image_in_memory_is_learned_from_only_while_it_is_there_or_kept(section, journal, over):
    """The journal keeps the frames of an image that lies in no file."""
    section._viewer.layers.clear()
    section.start.native.click()
    over()
    assert section.status.text() == "Learned from 32 objects of 1 image."


def test_settings_are_remembered(viewer, section, home):
    section.form.advanced.settings["batch"].set(3)
    section.form.save()
    parts.delete_panel(section)
    again = reopened(viewer).tune
    assert again.form.advanced.values()["batch"] == 3
    assert again.form.first.values()["minutes"] == SHORT
    assert json.loads((home / "window.json").read_text())["tune"]["device"] == "cpu"


def test_a_name_of_ones_own_stays(section, journal):
    parts.tiny_model("other")
    section.form.name.value = "my cells"
    section.form.choose("other")
    assert section.form.name.value == "my cells"
    section.form.name.value = ""
    section.form.choose("tiny")
    assert section.form.name.value == "tiny-tuned"
