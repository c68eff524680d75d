"""The training of the general model: what it reads, how it balances it, and what comes out."""

from __future__ import annotations

import csv
import importlib.util
import sys
from pathlib import Path

import numpy as np
import pytest
import tifffile
import torch
from run_script import run_main

import napari_unet as nu
from napari_unet.core.models.folder import read_card, read_rehearsal
from napari_unet.core.training.log import read_table

SCRIPT = Path(__file__).resolve().parents[2] / "scripts" / "train_general.py"


@pytest.fixture(scope="module")
def script():
    spec = importlib.util.spec_from_file_location("train_general", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    yield module
    del sys.modules[spec.name]


def write(folder, name, radius, *, colour=False):
    """Write a picture of two discs and its labels."""
    y, x = np.ogrid[:128, :128]
    labels = np.zeros((128, 128), np.uint16)
    for number, cx in enumerate((32, 96), 1):
        labels[(y - 64) ** 2 + (x - cx) ** 2 < radius**2] = number
    noise = np.random.default_rng(radius).normal(50, 5, labels.shape)
    image = (100 * (labels > 0) + noise).astype(np.uint8)
    if colour:
        image = np.stack([image, 255 - image, image], -1)
    for part, values in (("images", image), ("labels", labels)):
        (folder / part).mkdir(parents=True, exist_ok=True)
        tifffile.imwrite(folder / part / f"{name}.tif", values)


@pytest.fixture
def data(tmp_path):
    """Nuclei in grey and in colour, and larger cells; of each an image to train and to check on."""
    tables = {"bbbc038": [], "phase_cells": []}
    for split in ("train", "val"):
        for kind, modality, radius in (
            ("bbbc038", "fluorescence", 11),
            ("bbbc038", "histology", 12),
            ("phase_cells", "", 30),
        ):
            name = f"{modality}{split}"
            write(tmp_path / kind, name, radius, colour=modality == "histology")
            row = {"id": name, "split": split} | ({"modality": modality} if modality else {})
            tables[kind].append(row)
    for kind, rows in tables.items():
        with (tmp_path / kind / "split.csv").open("w", newline="") as file:
            writer = csv.DictWriter(file, list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)
    return tmp_path


def test_what_is_large_is_shrunk_once_and_colour_has_a_grey_copy(script, data):
    samples = script.training_samples(data, scenes=3)
    by_group = {item.group: item for item in samples.items}
    assert {"bbbc038 fluorescence", "bbbc038 histology", "phase_cells"} < set(by_group)
    cells = by_group["phase_cells"]
    assert cells.diameter == pytest.approx(script.LARGEST, rel=0.05)
    assert cells.image.shape[1:] == cells.targets.shape[1:] == cells.labels.shape
    assert len(np.unique(cells.labels)) == 3
    assert by_group["bbbc038 fluorescence"].labels.shape == (128, 128)
    grey, colour = by_group[script.GREY].image, by_group["bbbc038 histology"].image
    assert (grey == grey[:1]).all()
    assert not (colour == colour[:1]).all()


def test_crops_are_drawn_by_kind_not_by_number_of_images(script, data):
    samples = script.training_samples(data, scenes=8)
    weights = script.crop_weights(samples)
    assert weights.sum() == pytest.approx(1)
    share = {
        group: weights[[item.group == group for item in samples.items]].sum()
        for group in {item.group for item in samples.items}
    }
    wanted = script.shares()
    for group in ("phase_cells", "scenes"):
        ratio = wanted[group] / wanted["bbbc038 fluorescence"]
        assert share[group] / share["bbbc038 fluorescence"] == pytest.approx(ratio)


def test_every_group_of_the_table_has_a_share_and_they_make_a_whole(script):
    assert sum(script.shares().values()) == pytest.approx(1, abs=0.01)


def test_it_does_not_train_on_validation_images(script, data):
    names = {item.source for item in script.training_samples(data, scenes=0).items}
    assert not any("val" in name for name in names)
    assert {item.source for item in script.read_samples(data, "val").items} == {
        "bbbc038 fluorescence fluorescenceval",
        "bbbc038 histology histologyval",
        "phase_cells val",
    }


def test_weights_half_way_back(script):
    before, after = (torch.nn.BatchNorm2d(3) for _ in range(2))
    with torch.no_grad():
        before.weight.fill_(1)
        after.weight.copy_(torch.tensor([2.0, 3.0, -1.0]))
        after.num_batches_tracked.fill_(7)
    net = script.mean_of(before, after)
    assert net.weight.tolist() == [1.5, 2.0, 0.0]
    assert net.num_batches_tracked == 7
    assert after.weight.tolist() == [2, 3, -1], "the networks given stay as they are"


@pytest.mark.slow
def test_a_model_comes_out_and_the_training_goes_on(
    script, data, make_model, tmp_path, monkeypatch
):
    start = nu.save_model(make_model(in_channels=3), tmp_path / "tiny")
    out = tmp_path / "run"
    options = [SCRIPT, data, "--start", start, "--out", out, "--device", "cpu"]
    options += ["--scenes", 2, "--batch", 1, "--validate-every", 2]
    with monkeypatch.context() as patch:
        patch.setattr(script, "finish", lambda *_: None)  # interrupted before
        assert run_main(script.main, *options, "--steps", 2) == 0
    assert run_main(script.main, *options, "--steps", 4, "--resume", "--last", "--mean") == 0
    assert [row["step"] for row in read_table(out / "log.csv")] == [2, 4]
    card = read_card(out / "general")
    assert card.training["steps"] == 4
    assert card.training["weights"].startswith("mean of")
    assert card.training["groups"]["phase_cells"] == 1
    assert "MIT" in card.licence
    assert {"phase_cells", "bbbc038 histology"} < set(card.metrics)
    assert read_rehearsal(out / "general")
    assert (out / "general" / "thumbnail.png").is_file()
    assert nu.load_model(out / "general").diameter == 22
