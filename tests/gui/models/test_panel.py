"""The Models step in a real window: models come, go, are renamed and chosen."""

from __future__ import annotations

import json
import shutil
import threading
import zipfile

import numpy as np
import pytest
from package_parts import make_package, write_onnx_net, write_script_net
from qtpy.QtCore import QMimeData, QPointF, Qt, QUrl
from qtpy.QtGui import QDropEvent
from qtpy.QtWidgets import QFileDialog, QInputDialog

from napari_unet.core.models.own_record import OwnScores, add_scores, read_record
from napari_unet.core.models.store import list_models, put_model
from napari_unet.core.settings.weight_options import WeightOptions
from napari_unet.gui.models import exchange, exchange_row
from napari_unet.gui.models import panel as models_panel
from napari_unet.gui.remembered import remembered

# bioimageio.spec leaves files open; with our own calls of it that is mended
pytestmark = pytest.mark.filterwarnings("ignore:unclosed file:ResourceWarning")


def own_models() -> list[str]:
    return [entry.name for entry in list_models() if not entry.bundled]


def card_of(name):
    return next(entry.card for entry in list_models() if entry.name == name)


@pytest.fixture
def whole(viewer, models):
    """The U-Net panel, at Models."""
    return viewer.window.add_plugin_dock_widget("napari-unet", "Models")[1]


@pytest.fixture
def step(whole):
    return whole.models


@pytest.fixture
def drop(step, qtbot):
    """Drop files on the step, and wait until something has come of it."""

    def dropped(*paths):
        data = QMimeData()
        data.setUrls([QUrl.fromLocalFile(str(path)) for path in paths])
        buttons, keys = Qt.MouseButton.LeftButton, Qt.KeyboardModifier.NoModifier
        event = QDropEvent(QPointF(5, 5), Qt.DropAction.CopyAction, data, buttons, keys)
        step.dropEvent(event)
        assert event.isAccepted()
        finish()

    def finish():
        qtbot.waitUntil(lambda: not step.at_work, timeout=60_000)

    dropped.finish = finish
    return dropped


def export(step, qtbot, monkeypatch, name, target, kind=exchange.OWN):
    step.tree.select(name)
    monkeypatch.setattr(QFileDialog, "getSaveFileName", lambda *_: (str(target), kind))
    step.exchange.give.widget.native.click()
    qtbot.waitUntil(lambda: not step.at_work, timeout=60_000)


def test_a_lab_walk_from_a_colleagues_zip_to_a_result(
    whole, step, viewer, tmp_path, threshold_model, drop, qtbot
):
    pytest.importorskip("bioimageio.spec", reason="needs the extra bioimageio")
    pytest.importorskip("onnxruntime", reason="needs the extra onnx")
    write_onnx_net(tmp_path / "weights.onnx")
    package = make_package(tmp_path / "colleague", tmp_path / "weights.onnx")
    image = np.zeros((48, 64), np.float32)
    image[10:20, 10:20] = image[30:40, 40:52] = 1
    viewer.add_image(image, name="im")
    drop(package)
    assert step.status.text() == "'discs of others' is imported."
    assert step.tree.current == "discs of others"
    shown = step.card.text.text()
    assert "built by others" in shown and "Somebody" in shown and "MIT" in shown
    step.use.click()
    assert whole.inputs.model.value == "discs of others" and step.use.text() == "In use"
    whole.segment.start.native.click()
    qtbot.waitUntil(lambda: whole.segment.active is None, timeout=60_000)
    assert viewer.layers["im discs of others"].data.max() == 2
    drop(package)
    assert own_models().count("discs of others") == 1 or "discs of others 2" in own_models()


def test_versions_are_a_tree_and_its_card_says_what_is_known(step, models, home):
    card = card_of("cells")
    training = {"images": 2, "objects": 30, "diameter_px": {"q05": 8.0, "q50": 12.0, "q95": 20.0}}
    tuning = {"metric": "F1", "before": 0.5, "after": 0.75, "verdict": "better"}
    child = card.replace(parent=card.hash, training=training, metrics={"tuning": tuning})
    put_model("cells-tuned", child, {"weight": np.ones(1, np.float16)})
    (home / "models" / "broken").mkdir()
    (home / "models" / "broken" / "model.json").write_text("{", encoding="utf-8")
    own = OwnScores("2027-01-02", "plate.tif", "true", "x", 9, 10, {"AP50": 0.8, "F1": 0.9})
    add_scores(card_of("cells-tuned").hash, own)
    step.refresh()
    parent = step.tree._items["cells"]
    assert [parent.child(n).text(0) for n in range(parent.childCount())] == ["cells-tuned"]
    step.tree.select("cells-tuned")
    shown = step.card.text.text()
    for text in (
        "30 objects in 2 parts of images", "8 to 20 px, usually 12 px", "F1 0.500 → 0.750",
        "plate.tif: AP50 0.800, F1 0.900; 9 found, 10 are there", "not stated", "cells",
        "a click head: Click cannot use it",
    ):  # fmt: skip
        assert text in shown
    step.tree.select("broken")
    assert "is not valid JSON" in step.card.text.text() and not step.use.isEnabled()
    step.tree.select("nuclei")
    assert not step.delete.isEnabled() and not step.rename.isEnabled()
    assert "21,774 objects in 517 images" in step.card.text.text()


def test_a_labs_models_are_shown_and_left_alone(step, home, tmp_path, monkeypatch):
    shutil.copytree(home / "models" / "cells", tmp_path / "lab" / "ours")
    monkeypatch.setenv("NAPARI_UNET_MODELS", str(tmp_path / "lab"))
    step.refresh()
    step.tree.select("ours")
    assert step.tree._items["ours"].text(1) == "shared"
    assert "the shared folder" in step.card.text.text() and step.use.isEnabled()
    assert not step.delete.isEnabled() and not step.rename.isEnabled()


def test_text_of_a_strangers_card_is_no_rich_text(step, models):
    put_model("odd", card_of("cells").replace(licence="<b>mine</b>"), {"weight": np.ones(1)})
    step.refresh()
    step.tree.select("odd")
    assert "&lt;b&gt;mine" in step.card.text.text()


def test_rename_delete_and_undo(whole, step, home):
    whole.inputs.model.value = "cells"
    step.tree.select("cells")
    before = card_of("cells")
    step.default.click()
    step.tree._items["cells"].setText(0, "my cells")
    assert step.tree.current == whole.inputs.model.value == "my cells"
    assert card_of("my cells") == before.replace(name="my cells")
    assert remembered("models")["model"] == "my cells"
    step.tree._items["my cells"].setText(0, "a/b")
    assert "cannot be named 'a/b'" in step.status.text() and "my cells" in step.tree.names
    step.delete.click()
    assert "my cells" not in own_models() and whole.inputs.model.value != "my cells"
    step.undo.click()
    assert "my cells" in own_models() and step.tree.current == "my cells"
    assert not step.undo.isVisibleTo(step.footer)
    assert not any((home / "models" / ".trash").iterdir())


def test_new_windows_begin_with_the_default(whole, step, viewer, make_napari_viewer):
    step.tree.select("volumes")
    step.default.click()
    whole.inputs.model.value = "cells"
    whole.segment.form.save()
    other = make_napari_viewer()
    again = other.window.add_plugin_dock_widget("napari-unet", "U-Net")[1]
    assert again.inputs.model.value == "volumes"


def test_a_note_is_kept_with_the_weights(step, qtbot):
    step.tree.select("cells")
    step.card.note.setPlainText("for the big microscope")
    step.tree.select("nuclei")
    assert step.card.note.toPlainText() == ""
    step.tree.select("cells")
    assert step.card.note.toPlainText() == "for the big microscope"
    assert read_record(card_of("cells").hash).note == "for the big microscope"


def test_a_model_travels_and_a_name_that_is_taken_gets_a_number(
    step, real, tmp_path, qtbot, monkeypatch, drop, threshold_model
):
    step.refresh()
    export(step, qtbot, monkeypatch, "real", tmp_path / "real")
    assert step.status.text() == f"Written to {tmp_path / 'real.zip'}."
    drop(tmp_path / "real.zip")
    assert step.status.text() == "'real' is there already."
    step.delete.click()
    threshold_model("real", 2, licence="another")  # its weights are the same, its name is taken
    put_model("real", card_of("real"), {"weight": np.zeros(1)}, overwrite=True)
    drop(tmp_path / "real.zip")
    assert step.tree.current == "real 2" and card_of("real 2").name == "real 2"


def test_a_program_is_asked_about_once(step, tmp_path, drop, monkeypatch):
    write_script_net(tmp_path / "mine.torchscript")
    options = WeightOptions(decode="objects", boundary=1)
    monkeypatch.setattr(exchange_row, "ask_weight_options", lambda *_: options)
    drop(tmp_path / "mine.torchscript")
    assert "a program that runs with your rights" in step.question.text.text()
    assert "mine" not in own_models() and step.busy
    step.question.no.click()
    assert "mine" not in own_models() and not step.busy and not step.status.text()
    drop(tmp_path / "mine.torchscript")
    step.question.yes.click()
    drop.finish()
    assert "mine" in own_models()
    step.delete.click()
    drop(tmp_path / "mine.torchscript")
    assert step.tree.current == "mine", "it is trusted by now"


def test_what_fails_its_own_test_can_be_kept_and_is_marked(step, tmp_path, drop):
    pytest.importorskip("bioimageio.spec", reason="needs the extra bioimageio")
    pytest.importorskip("onnxruntime", reason="needs the extra onnx")
    write_onnx_net(tmp_path / "weights.onnx")
    rng = np.random.default_rng(0)
    test = (rng.random((1, 1, 32, 32), np.float32), rng.random((1, 2, 32, 32), np.float32))
    package = make_package(tmp_path / "package", tmp_path / "weights.onnx", test=test)
    drop(package)
    assert "fails its own test" in step.question.text.text()
    assert "--anyway" not in step.question.text.text()
    step.question.yes.click()
    drop.finish()
    assert "failed, imported anyway" in step.card.text.text()


@pytest.mark.parametrize("kind", ["no zip", "missing weights", "other weights", "future"])
def test_bad_packages_are_one_line_and_leave_nothing(step, tmp_path, drop, home, kind):
    pytest.importorskip("bioimageio.spec", reason="needs the extra bioimageio")
    path = tmp_path / "bad.zip"
    if kind == "no zip":
        path.write_bytes(b"hello")
        wanted = "No model can be imported"
    else:
        write_onnx_net(tmp_path / "weights.onnx")
        good = make_package(tmp_path / "package", tmp_path / "weights.onnx")
        with zipfile.ZipFile(good) as source, zipfile.ZipFile(path, "w") as target:
            for info in source.infolist():
                data = source.read(info)
                if info.filename.endswith(".onnx"):
                    if kind == "missing weights":
                        continue
                    data += b"x" * (kind == "other weights")
                if info.filename.endswith(".yaml") and kind == "future":
                    data = data.replace(b"format_version: 0.5", b"format_version: 9.5")
                target.writestr(info.filename, data)
        wanted = {
            "missing weights": "lacks",
            "other weights": "its SHA-256 differs",
            "future": "update napari-unet",
        }[kind]
    before = own_models()
    drop(path)
    assert wanted in step.status.text() and "\n" not in step.status.text()
    assert own_models() == before and not list((home / "models").glob(".import*"))


def test_a_cancelled_import_leaves_nothing(step, tmp_path, drop, home, monkeypatch, qtbot):
    seen, never = [], threading.Event()

    def endless(source, *, another_name):
        try:
            while not never.wait(0.01):
                seen.append(source)
                yield exchange.Progress(0, 0, "unpacking")
        finally:
            seen.append("closed")

    monkeypatch.setattr(exchange, "import_steps", endless)
    (tmp_path / "model").mkdir()
    step.exchange.import_models([str(tmp_path / "model")])
    qtbot.waitUntil(lambda: bool(seen), timeout=20_000)
    assert step.busy and not step.exchange.more.isEnabled()
    step.exchange.take.widget.native.click()
    qtbot.waitUntil(lambda: not step.at_work, timeout=20_000)
    assert step.status.text() == "Cancelled." and seen[-1] == "closed"


def test_the_trash_is_emptied_after_some_weeks(step, home, monkeypatch):
    step.tree.select("cells")
    step.delete.click()
    models_panel.empty_trash()
    assert len(list((home / "models" / ".trash").iterdir())) == 1
    models_panel.empty_trash(days=-1)
    assert not list((home / "models" / ".trash").iterdir())
    step.refresh()
    assert not step.undo.isVisibleTo(step.footer)


def test_an_address_is_asked_for(step, monkeypatch):
    asked = iter([("nonsense", True), ("", False)])
    monkeypatch.setattr(QInputDialog, "getText", lambda *_, **__: next(asked))
    step.exchange.ask_for_address()
    assert "nonsense is no address" in step.status.text()
    step.exchange.ask_for_address()
    assert not step.at_work


def test_the_record_of_a_newer_version_is_left_alone(step, home):
    (home / "records").mkdir()
    path = home / "records" / f"{card_of('cells').hash}.json"
    path.write_text(json.dumps({"schema": 99}), encoding="utf-8")
    step.tree.select("cells")
    step.refresh()
    assert "update napari-unet" in step.card.text.text() and not step.card.note.isEnabled()
