"""What a click among objects means, without a window."""

from __future__ import annotations

import numpy as np
import pytest

from napari_unet.core.errors import InputError
from napari_unet.core.instances.label_edits import MERGE, SPLIT
from napari_unet.core.progress import run_to_end
from napari_unet.core.prompts.clicks import Click
from napari_unet.core.settings.tasks import PredictSettings
from napari_unet.nn.interactive import interaction as clickflow
from napari_unet.nn.interactive.session import ClickSession


@pytest.fixture
def session(clicking_model):
    y, x = np.ogrid[:60, :130]
    image = sum(((y - 30) ** 2 + (x - cx) ** 2 < 100).astype(np.float32) for cx in (30, 90))
    return ClickSession(clicking_model(), image, np.zeros((60, 130), np.uint16))


def test_a_click_apart_keeps_the_object_and_asks_to_be_done_again(session):
    first = run_to_end(clickflow.take_click(session, Click((30, 30))))
    assert first.change is None and not first.again
    held = session.shown
    second = run_to_end(clickflow.take_click(session, Click((30, 90))))
    assert second.again and second.source == "click" and second.change.label == 1
    assert session.shown is held and not session.labels.any()  # nothing is done to either yet
    second.change.apply(session.labels)
    run_to_end(clickflow.reset(session))
    run_to_end(clickflow.take_click(session, Click((30, 90))))
    assert session.mask[30, 90] and not session.mask[30, 30]


def test_the_preview_shows_both_objects_where_a_click_would_begin_another(session):
    run_to_end(clickflow.take_click(session, Click((30, 30))))
    alone = session.mask
    shown = run_to_end(clickflow.preview(session, Click((30, 90))))[()]
    whole = shown.within((slice(0, 60), slice(0, 130)))
    assert whole[30, 90] and np.array_equal(whole[:, :60], alone[:, :60])
    assert np.array_equal(session.mask, alone)


def test_undo_with_nothing_at_hand_is_for_the_labels(session):
    run_to_end(clickflow.take_click(session, Click((30, 30))))
    assert run_to_end(clickflow.undo(session)).moved
    answer = run_to_end(clickflow.undo(session))
    assert (answer.moved, answer.source) == (False, "undo")
    assert not run_to_end(clickflow.redo(session)).moved  # the click is not done again any more


def test_two_clicks_of_an_edit_lie_on_objects_of_one_plane(clicking_model):
    session = ClickSession(
        clicking_model(), np.zeros((3, 40, 40), np.float32), np.ones((3, 40, 40), np.uint8)
    )
    clicks = (Click((0, 10, 10)), Click((1, 20, 20)))
    with pytest.raises(InputError, match="different slices"):
        run_to_end(clickflow.edit_objects(session, MERGE, clicks))
    with pytest.raises(InputError, match="one object already"):
        run_to_end(clickflow.edit_objects(session, MERGE, clicks, volume=True))


def bar_with_a_dark_line(at):
    """An image, bright but for a line, and labels with one straight bar: it has no waist."""
    x = np.arange(120, dtype=np.float32)
    image = np.tile(np.minimum(np.abs(x - at) / 10, 1), (60, 1))
    labels = np.zeros(image.shape, np.uint16)
    labels[20:40, 20:100] = 1
    return image, labels


def seeing(model):
    """Let a model take everything for foreground, and brightness for distance."""
    import torch

    net = model.net
    with torch.no_grad():
        for module in net.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                module.running_mean.zero_()
                module.running_var.fill_(1)
            elif isinstance(module, torch.nn.Conv2d | torch.nn.ConvTranspose2d):
                module.weight.zero_()
        for block in (net.encoder[0], net.decoder[0]):
            for unit in block.units:
                unit.conv.weight[0, 0, 1, 1] = 1
        net.head.bias.copy_(torch.tensor([10.0, 0.0]))
        net.head.weight[1, 0] = 1
    return model


@pytest.mark.parametrize("scale", [1.0, 0.5])
def test_a_split_follows_what_the_model_sees(clicking_model, scale):
    image, labels = bar_with_a_dark_line(at=44)
    model = seeing(clicking_model(depth=1, card={"training": {"working_diameter_px": 20}}))
    settings = PredictSettings(diameter=20 / scale)
    session = ClickSession(model, image, labels, settings=settings)
    clicks = (Click((30, 35)), Click((30, 90)))
    answer = run_to_end(clickflow.edit_objects(session, SPLIT, clicks))
    answer.change.apply(labels)
    assert abs(int(np.flatnonzero(labels[30] == 2).min()) - 44) <= 2
    assert (labels[20:40, 20:40] == 1).all() and (labels[20:40, 50:100] == 2).all()


def test_a_split_by_a_model_of_classes_goes_by_the_shape(clicking_model):
    _, labels = bar_with_a_dark_line(at=44)
    model = clicking_model(head="semantic", classes=2)
    session = ClickSession(model, np.zeros(labels.shape, np.float32), labels)
    answer = run_to_end(clickflow.edit_objects(session, SPLIT, (Click((30, 25)), Click((30, 95)))))
    answer.change.apply(labels)
    assert abs(int(np.flatnonzero(labels[30] == 2).min()) - 60) <= 2


def test_an_object_far_away_is_another_one(clicking_model):
    y, x = np.ogrid[:60, :2540]
    image = sum(((y - 30) ** 2 + (x - cx) ** 2 < 100).astype(np.float32) for cx in (30, 2500))
    labels = np.zeros(image.shape, np.uint16)
    session = ClickSession(clicking_model(), image, labels)
    run_to_end(clickflow.take_click(session, Click((30, 30))))
    first = session.mask
    seen = run_to_end(clickflow.preview(session, Click((30, 2500))))
    assert seen[()].area > 1.5 * first.sum()
    kept = run_to_end(clickflow.take_click(session, Click((30, 2500))))
    assert kept.again and np.array_equal(kept.change.after > 0, first[kept.change.window])
    joined = run_to_end(clickflow.take_click(session, Click((30, 2500)), join=True))
    assert not joined.again and session.mask[30, 30] and session.mask[30, 2500]
