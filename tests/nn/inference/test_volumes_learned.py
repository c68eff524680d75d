"""What was segmented in volumes by a 2D model is corrected, clicked and learned from as ever."""

from __future__ import annotations

import numpy as np
import pytest
from lab.synthetic_volumes import make_volume
from scipy import ndimage

import napari_unet as nu
from napari_unet.core.instances.heads import get_head
from napari_unet.core.training.pairs import Labelled, samples_of


@pytest.mark.parametrize("way", ["joined", "orthogonal"])
def test_corrected_volumes_train_the_2d_model_plane_by_plane(make_model, way):
    scene = make_volume(0, (8, 48, 48), anisotropy=2.0, diameter=14, crowding=0.3)
    stack = nu.open_stack(scene.image, "ZYX", scene.voxel_size_um)
    model = make_model(gain=6.0, card={"decode": {"min_size": 0}})
    settings = nu.PredictSettings(volumes=way, certify=False, survey=False)
    found = nu.segment(stack, model, settings).astype(np.uint16)
    # Its user puts one object right in all of its planes: it has one id, and no other has it.
    added = int(found.max()) + 1
    corrected = np.where(scene.labels == 1, added, found).astype(np.uint16)
    samples = samples_of([Labelled("im", stack, corrected)], 2, 1, get_head(model.spec))
    assert all(item.labels.ndim == 2 for item in samples.items)
    deep = (scene.labels == 1).any((1, 2)).sum()
    assert deep > 1
    tuning = nu.Tuning(model, samples, nu.TrainSettings(steps=2, batch=1, crop=32))
    for _ in tuning.steps():
        pass
    tuned = tuning.best()
    assert tuned.spec == model.spec and tuning.state.step == 2
    labels = nu.segment(stack, tuned, settings)
    assert np.array_equal(np.unique(labels[labels > 0]), np.arange(1, labels.max() + 1))


def discs(planes=12):
    y, x = np.ogrid[:120, :130]
    volume = np.zeros((planes, 120, 130), np.float32)
    volume[3:9] = sum((y - cy) ** 2 + (x - cx) ** 2 < 100 for cy, cx in ((30, 30), (80, 60)))
    return volume


def test_a_clicked_object_has_an_id_of_its_own_in_a_joined_volume(clicking_model):
    volume, model = discs(), clicking_model()
    labels = ndimage.label(volume > 0)[0].astype(np.uint16)
    labels[labels == 1] = 0  # was missed
    before = labels.copy()
    session = nu.ClickSession(model, volume, labels, settings=nu.PredictSettings(volumes="joined"))
    session.add(nu.Click((5, 30, 30)))
    for _ in session.grow():
        pass
    session.commit()
    new = np.unique(labels[labels != before])
    assert new.tolist() == [3]
    assert np.flatnonzero((labels == 3).any((1, 2))).tolist() == [3, 4, 5, 6, 7, 8]
    assert np.array_equal(labels == 2, before == 2)
