"""What the tests of fine-tuning in the window stand on: image, corrections, a small model."""

from __future__ import annotations

import numpy as np
from discs import disc_labels
from scipy import ndimage

from napari_unet.core.annotations.edits import KNOWN
from napari_unet.core.annotations.journal import Journal
from napari_unet.core.io.stack import open_stack
from napari_unet.core.models.card import ModelCard
from napari_unet.core.models.store import get_family
from napari_unet.core.settings.model_spec import ModelSpec


def discs(size=(96, 200), radius=7, seed=0):
    """Bright discs on a grid, float32, and their labels."""
    rng = np.random.default_rng(seed)
    labels = disc_labels(rng, size, radius)
    image = ndimage.gaussian_filter(labels > 0, 1.0, output=np.float32)
    return image + rng.normal(0, 0.03, size).astype(np.float32), labels


def tiny_model(name="tiny", **spec):
    """Store a small real model with random weights that calls itself trained."""
    import torch

    from napari_unet.nn.inference.model import Model, save_model
    from napari_unet.nn.unet.net import UNet

    spec = ModelSpec(**{"in_channels": 1, "depth": 2, "width": 4} | spec)
    torch.manual_seed(0)
    card = ModelCard(name, spec, training={"working_diameter_px": 14.0})
    save_model(Model(card, UNet(spec).eval(), torch.device("cpu")), name)


def panel_of(viewer):
    """Open the panel at its corrections, through the manifest."""
    return viewer.window.add_plugin_dock_widget("napari-unet", "Correct and fine-tune")[1]


def delete_panel(step):
    """Delete the panel that a step is in, as when its window is closed."""
    panel = step.dock.widget()
    panel.setParent(None)
    panel.deleteLater()


def corrected(image, labels, model="tiny", windows=(None,), head="instance"):
    """Write a journal as the user does who has checked some windows of an image (None: all)."""
    card = get_family(model)[0]
    with Journal.begin(
        open_stack(image), labels.copy(), model=card.name, model_hash=card.hash, head=head
    ) as journal:
        for window in windows:
            journal.mark(KNOWN, (), window)
    return journal.path
