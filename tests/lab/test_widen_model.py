"""A wider copy of a model computes the same, and can be trained further."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from run_script import run_script

from napari_unet.nn.inference.model import load_model

SCRIPT = Path(__file__).parents[2] / "scripts" / "widen_model.py"


def test_a_wider_copy_computes_the_same(tmp_path):
    assert run_script(SCRIPT, "nuclei", "--width", 24, "--out", tmp_path / "wide") == 0
    before, after = load_model("nuclei", "cpu"), load_model(str(tmp_path / "wide"), "cpu")
    assert (before.spec.width, after.spec.width, after.click) == (16, 24, None)
    assert after.card.parent == before.card.hash
    image = torch.from_numpy(np.random.default_rng(0).normal(size=(1, 3, 32, 48))).float()
    with torch.no_grad():
        # float16 rounds the shares of the weights when they are saved.
        torch.testing.assert_close(before.net(image), after.net(image), atol=0.02, rtol=0)
    first = after.net.encoder[1].units[0].conv.weight
    assert not torch.allclose(first[:, :8], first[:, 16:]), "copies are read in other shares"


def test_a_width_that_is_too_large_is_one_line(tmp_path, capsys):
    assert run_script(SCRIPT, "nuclei", "--width", 40, "--out", tmp_path / "wide") == 2
    assert "give 16 to 32" in capsys.readouterr().err
    assert not (tmp_path / "wide").exists()
