"""Review mode in a real window: keys, the journal, and the estimate."""

from __future__ import annotations

import time

import numpy as np
import pytest
import tune_parts as parts
from discs import disc

from napari_unet.core.annotations.header import find_journals
from napari_unet.core.annotations.journal import Journal
from napari_unet.core.annotations.journal_reader import JournalReader
from napari_unet.core.errors import OutputError
from napari_unet.core.review.order import OBJECT
from napari_unet.gui.correct import quality_line
from napari_unet.gui.jobs.job import HOST, Job, get_device_queue
from napari_unet.gui.layers.convert import layer_stack

SHAPE = (96, 200)
DEBRIS, CLUMP = 9, 8


@pytest.fixture
def correct(viewer, threshold_model):
    """The Correct step over four discs, a clump of two, and an object where there is nothing."""
    threshold_model("bright", 2)
    labels = np.zeros(SHAPE, np.uint16)
    for number in range(1, 5):
        labels[disc(SHAPE, (20, 40 * number), 9)] = number
    labels[disc(SHAPE, (70, 40), 9) | disc(SHAPE, (70, 56), 9)] = CLUMP
    image = viewer.add_image((labels > 0).astype(np.float32), name="im")
    labels[disc(SHAPE, (70, 150), 9)] = DEBRIS
    viewer.add_labels(labels, name="cells")
    panel = parts.panel_of(viewer)
    panel.inputs.choose_model("bright")
    panel.open_step("Correct")
    return panel.correct, image


def key_of(viewer, letter):
    return next((what for key, what in viewer.keymap.items() if str(key) == letter), None)


def test_keys_judge_one_object_after_the_other(viewer, correct, qtbot, monkeypatch):
    monkeypatch.setattr(quality_line, "LEAST_DRAWN", 1)
    section, image = correct
    review, layer = section.review, section.labels.value
    before = key_of(viewer, "Y")
    review.toggle.click()
    qtbot.waitUntil(lambda: review.plan is not None, timeout=60_000)
    assert section.uncertain.next.text() == "Next doubtful object", "its key is the review's"
    plan, seen = review.plan, 0
    while review.item is not None:
        item, seen = review.item, seen + 1
        assert viewer.layers["review"].data.any()
        label = plan.objects[item.number].labels[0] if item.kind == OBJECT else 0
        key_of(viewer, {DEBRIS: "H", CLUMP: "U"}.get(label, "Y"))(viewer)
        qtbot.waitUntil(lambda now=item: review.item is not now, timeout=20_000)
        assert seen < 60
    assert review.status.text() == "Everything was looked at."
    assert len(np.unique(layer.data)) == 7 and not layer.data[70, 150]
    qtbot.waitUntil(lambda: "AP50 is about <b>1.00</b>" in review.quality.text(), timeout=10_000)
    found = plan.order.quality()
    assert found.now.value == found.now.low == found.now.high == 1
    # Of six objects four are hits; the clump may be one of its two.
    assert found.found.value in (pytest.approx(4 / 8), pytest.approx(5 / 7))
    assert section.recording.wait(10)
    with JournalReader(find_journals(layer_stack(image))[0].path) as journal:
        sources = sorted(edit.source for edit in journal.history())
        assert sources == ["confirm"] * 4 + ["delete", "split"]
        assert np.array_equal(journal.replay(), layer.data)
    review.toggle.click()
    assert "review" not in viewer.layers
    assert key_of(viewer, "Y") is not None and key_of(viewer, "H") is None
    assert section.uncertain.next.text() == "Next doubtful object (N)"
    assert before is not None


def test_what_is_skipped_says_nothing(viewer, correct, qtbot):
    review = correct[0].review
    review.start()
    qtbot.waitUntil(lambda: review.plan is not None, timeout=60_000)
    for _ in range(5):
        review.next()
    assert review.plan.order.judged == 0
    assert "more that are drawn" in review.quality.text()


def test_answers_wait_for_the_disk_and_a_review_ends_with_its_labels(
    viewer, correct, qtbot, monkeypatch
):
    section, _ = correct
    review, layer, go_on = section.review, section.labels.value, []

    def export():
        while not go_on:
            yield time.sleep(0.01)

    get_device_queue(HOST).submit(Job(export))  # no answer waits for it

    def begin():
        review.start()
        qtbot.waitUntil(lambda: review.plan is not None, timeout=60_000)
        while review.item.kind != OBJECT:
            review.next()
        return review.plan.query.recording._queue, review.item

    def delete(queue):
        with monkeypatch.context() as patch:
            patch.setattr(queue, "start", lambda: None)  # the disk is slow
            review.delete()
            qtbot.waitUntil(lambda: queue.pending == 1, timeout=10_000)

    queue, first = begin()
    plan, judged = review.plan, []
    monkeypatch.setattr(plan, "settle", lambda item, _: judged.append(item))
    delete(queue)
    review.next()
    review.accept()
    assert review.item is first, "what comes next is not shown before the answer counts"
    queue.start()
    qtbot.waitUntil(lambda: review.item is not first, timeout=10_000)
    assert judged == [first]
    review.stop()
    queue, _ = begin()
    delete(queue)
    review.stop()
    queue.start()
    qtbot.waitUntil(lambda: not queue.pending, timeout=10_000)
    _, item = begin()
    layer.data_setitem((np.array([0]), np.array([0])), 30)
    qtbot.waitUntil(lambda: not queue.pending, timeout=10_000)
    assert review.item is item, "a stroke is no answer"
    viewer.layers.remove("review")
    assert review.plan is None, "nobody sees any more what is asked"
    begin()
    viewer.layers.remove(layer)
    assert review.plan is None and not review.toggle.isChecked()
    assert "its labels were removed" in review.status.text()
    go_on.append(True)
    qtbot.waitUntil(lambda: get_device_queue(HOST).running is None)


def test_a_review_says_why_an_answer_is_not_saved(correct, qtbot, monkeypatch):
    review = correct[0].review

    def refuse(*_, **__):
        raise OutputError("The disk is full.")

    def go_to_object():
        while review.item.kind != OBJECT:
            review.next()
        return review.item

    review.start()
    qtbot.waitUntil(lambda: review.plan is not None, timeout=60_000)
    recording, first = review.plan.query.recording, go_to_object()
    with monkeypatch.context() as patch:
        patch.setattr(Journal, "begin", refuse)
        review.delete()
        qtbot.waitUntil(lambda: "Not saved yet, but kept" in review.status.text(), timeout=10_000)
    assert review.item is first and "The disk is full." in review.status.text()
    recording.retry()
    qtbot.waitUntil(lambda: review.item is not first, timeout=10_000)
    second = go_to_object()
    with monkeypatch.context() as patch, JournalReader(recording.journal.path) as journal:
        patch.setattr(recording, "journal", journal)
        review.delete()
        assert "Another window works on these corrections" in review.status.text()
        review.next()
        assert review.item is not second


def test_what_another_step_took_the_place_of_says_so(correct, qtbot):
    section, _ = correct
    review, alike, queue = section.review, section.alike, get_device_queue("auto")
    go_on = []

    def busy():
        while not go_on:
            yield time.sleep(0.01)

    queue.submit(Job(busy))
    review.toggle.click()
    alike.find_button.click()
    assert review.status.text() == "Another step came first; press Review again."
    assert not review.toggle.isChecked()
    section.uncertain.next.click()
    assert alike.status.text() == "Another step came first; press A again."
    queue.submit(Job(lambda: iter(())))
    assert section.uncertain.status.text() == "Another step came first; press N again."
    section.uncertain.next.click()
    section.uncertain.cancel()
    assert section.uncertain.status.text() == "", "the user need not be told"
    go_on.append(True)
    qtbot.waitUntil(lambda: queue.running is None)
