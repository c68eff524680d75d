"""After a fine-tuning: the verdict in plain words, a next step, and never a worse model."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from napari.components import ViewerModel

from napari_unet.core.training.model_comparison import TaughtScores, compare_models
from napari_unet.gui.finetune.review import CHECK, CORRECT, LONGER, ReviewBox
from napari_unet.gui.jobs.job import DONE

BETTER = compare_models("AP50", (0.5, 0.7), None, 30)
WORSE = compare_models("AP50", (0.7, 0.5), (0.9, 0.9), 30)
WORSE_OF_FEW = compare_models("AP50", (0.7, 0.2), None, 5)
CHANCE = compare_models("AP50", (0.7, 0.7), None, 30)
UNKNOWN = compare_models("AP50", None, None, 0, "With 1 known object nothing can be held out.")
GAINED = compare_models(
    "AP50", None, None, 0, "Too little is known.", taught=TaughtScores(0.1, 0.6, 8, 90, 80, 85)
)
COLLAPSED = compare_models(
    "AP50", None, None, 0, "Too little is known.", taught=TaughtScores(0.1, 0.6, 8, 90, 80, 5)
)
FORGOT = compare_models("AP50", (0.5, 0.7), (0.9, 0.7), 30)


def ended(judgement, steps=600):
    done = []
    state = SimpleNamespace(step=steps)
    config = SimpleNamespace(minutes=3.0)
    tuning = SimpleNamespace(judgement=judgement, config=config, state=state)
    work = SimpleNamespace(tuning=tuning, request=SimpleNamespace(base="nuclei", name="mine"))
    work.forget = lambda: done.append("forget")
    work.discard = lambda: done.append("discard")
    work.release = lambda: None
    return SimpleNamespace(judgement=judgement, work=work, request=work.request), done


@pytest.fixture
def box(qtbot):
    box = ReviewBox(ViewerModel())
    qtbot.addWidget(box)
    return box


@pytest.mark.parametrize(
    ("judgement", "button"),
    [
        (BETTER, ""), (WORSE, LONGER), (WORSE_OF_FEW, CORRECT), (CHANCE, CORRECT),
        (UNKNOWN, CHECK), (FORGOT, LONGER),
        (GAINED, CHECK), (COLLAPSED, CHECK),
    ],
)  # fmt: skip
def test_there_is_a_next_step_and_figures_only_in_their_fold(box, judgement, button):
    run, _ = ended(judgement)
    box.show_run(run, DONE)
    assert box.work is run.work, "it can be compared, whatever it is"
    assert box.keep.native.isVisibleTo(box) == judgement.keep == box.pending
    assert box.more.native.isVisibleTo(box) == bool(button)
    assert not button or box.more.text == button
    assert "AP50" not in box.summary.text() + box.advice.text()
    measured = judgement is not UNKNOWN
    assert box.figures.text().startswith("AP50") == measured
    assert not box.figures.isVisibleTo(box), "until the fold is opened"


def test_where_there_was_time_for_few_steps_more_time_is_what_helps(box):
    for judgement, button in ((CHANCE, LONGER), (UNKNOWN, LONGER), (BETTER, "")):
        box.show_run(ended(judgement, steps=35)[0], DONE)
        assert (box.more.text if box.advice.text() else "") == button
        assert ("35 steps only" in box.advice.text()) == bool(button)


def test_a_worse_model_is_forgotten_on_the_disk_and_gone_with_the_next_step(box, qtbot):
    run, done = ended(WORSE)
    box.show_run(run, DONE)
    assert done == ["forget"] and not box.pending
    with qtbot.waitSignal(box.minutes_wanted) as wanted:
        box.more.native.click()
    assert wanted.args == [6.0] and done == ["forget", "discard"] and box.work is None
