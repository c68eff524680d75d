"""The membranes example from its command line: trained, scored, refused twice, gone on with."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import tifffile
from run_script import run_script

from napari_unet.core.models.folder import read_model
from napari_unet.core.training.log import read_table

SCRIPT = Path(__file__).parents[2] / "scripts" / "train_membranes.py"


@pytest.fixture
def sections(tmp_path):
    """Three sections of noisy cells, parted by dark lines every 16 pixels."""
    data = tmp_path / "data"
    inside = np.ones((64, 64), np.uint8)
    inside[::16] = inside[:, ::16] = 0
    for number in range(3):
        noise = np.random.default_rng(number).integers(0, 60, inside.shape)
        for folder, values in (("images", 150 * inside + noise), ("labels", inside)):
            (data / folder).mkdir(parents=True, exist_ok=True)
            tifffile.imwrite(data / folder / f"{number}.tif", values.astype(np.uint8))
    (data / "split.csv").write_text("id,split\n0,train\n1,train\n2,val\n")
    return data


@pytest.mark.slow
def test_the_example_runs_and_goes_on(sections, tmp_path, capsys):
    out = tmp_path / "run"
    options = [sections, "--out", out, "--device", "cpu"]
    assert run_script(SCRIPT, *options, "--steps", 2, "--validate-every", 1) == 0
    text = capsys.readouterr()
    assert "IoU" in text.err
    scores = json.loads(text.out)
    assert 0 <= scores["v_rand"] <= 1
    assert 0 <= scores["pixel_error"] <= 1
    card, _ = read_model(out / "membranes")
    assert card.metrics == scores
    assert (card.spec.head, card.training["images"]) == ("semantic", 2)
    assert (out / "curve.png").exists()

    assert run_script(SCRIPT, *options, "--steps", 3) == 2
    assert "--resume" in capsys.readouterr().err
    assert run_script(SCRIPT, *options, "--steps", 3, "--resume") == 0
    assert [row["step"] for row in read_table(out / "log.csv")] == [1, 2, 3]


def test_a_missing_folder_is_one_line(tmp_path, capsys):
    """Not a traceback: status 2 and what is not there."""
    assert run_script(SCRIPT, tmp_path / "nowhere", "--out", tmp_path / "run", "--steps", 1) == 2
    assert "split.csv" in capsys.readouterr().err
