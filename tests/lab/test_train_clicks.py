"""The training of the click head from its command line: a model with a head comes out."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
import tifffile
from run_script import run_script

import napari_unet as nu
from napari_unet.core.models.folder import read_card
from napari_unet.core.training.log import read_table

SCRIPT = Path(__file__).resolve().parents[2] / "scripts" / "train_clicks.py"


@pytest.fixture
def data(tmp_path):
    """Two pictures of discs, one to train and one to validate on."""
    folder, rng = tmp_path / "data", np.random.default_rng(0)
    y, x = np.ogrid[:64, :64]
    rows = []
    for name, split in (("a", "train"), ("b", "val")):
        labels = np.zeros((64, 64), np.uint16)
        for number, cx in enumerate((16, 44), 1):
            labels[(y - 30) ** 2 + (x - cx) ** 2 < 81] = number
        image = (100 * (labels > 0) + rng.normal(50, 5, labels.shape)).astype(np.uint8)
        for part, values in (("images", image), ("labels", labels)):
            (folder / part).mkdir(parents=True, exist_ok=True)
            tifffile.imwrite(folder / part / f"{name}.tif", values)
        rows.append({"id": name, "split": split, "modality": "fluorescence"})
    with (folder / "split.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return folder


@pytest.mark.slow
def test_a_model_gets_a_click_head_and_goes_on(data, make_model, tmp_path):
    trunk = nu.save_model(make_model(in_channels=3), tmp_path / "tiny")
    before = nu.load_model(trunk).net.state_dict()
    out = tmp_path / "run"
    options = [data, "--model", trunk, "--out", out, "--device", "cpu"]
    options += ["--validate-on", 1, "--validate-every", 2]
    for steps, extra in ((2, []), (4, ["--resume"])):
        assert run_script(SCRIPT, *options, "--steps", steps, *extra) == 0
    assert [row["step"] for row in read_table(out / "log.csv")] == [2, 4]
    card, model = read_card(out / "tiny"), nu.load_model(out / "tiny")
    assert card.click["training"]["steps"] == 4
    assert 0 <= card.click["metrics"]["IoU1 images"] <= 1
    assert all((value == before[name]).all() for name, value in model.net.state_dict().items())
    mask = nu.ClickSession(model, tifffile.imread(data / "images" / "b.tif")).add(
        nu.Click((30, 16))
    )
    assert mask[30, 16]


@pytest.mark.slow
def test_a_folder_of_kinds_teaches_them_all(data, make_model, tmp_path):
    trunk = nu.save_model(make_model(in_channels=3), tmp_path / "tiny")
    kinds = tmp_path / "kinds"
    kinds.mkdir()
    data.rename(kinds / "bbbc038")
    out = tmp_path / "run"
    options = [kinds, "--model", trunk, "--out", out, "--device", "cpu"]
    assert run_script(SCRIPT, *options, "--validate-on", 6, "--steps", 2) == 0
    metrics = read_card(out / "tiny").click["metrics"]
    assert {"IoU1 bbbc038 fluorescence", "IoU1 scenes"} <= set(metrics)


@pytest.mark.slow
def test_a_click_head_gets_a_refiner_that_learns_from_its_answers(data, clicking_model, tmp_path):
    kinds = tmp_path / "kinds"
    kinds.mkdir()
    data.rename(kinds / "bbbc038")
    model = clicking_model(in_channels=3, card={"training": {"working_diameter_px": 22}})
    model, out = nu.save_model(model, tmp_path / "tiny"), tmp_path / "run"
    options = ["--model", model, "--out", out, "--device", "cpu", "--validate-on", 1]
    options += ["--answers", 3, "--minutes", 0.01]
    assert run_script(SCRIPT.with_name("train_outlines.py"), kinds, *options) == 0
    assert len(list((out / "answers").glob("*.npz"))) == 3
    assert read_card(out / "tiny").click["refiner"]["training"]["steps"] >= 1
    assert nu.load_model(out / "tiny").click.refiner is not None
