"""The general model in the wheel: small, licensed, not the default, good on more than nuclei."""

from __future__ import annotations

import csv
from dataclasses import replace

import numpy as np
import pytest
import tifffile

import napari_unet as nu
from napari_unet.core.image.diameters import median_diameter
from napari_unet.core.io.sample_images import sample_path, truth_path
from napari_unet.core.models.folder import read_card, read_rehearsal
from napari_unet.core.models.store import find_model, list_models
from napari_unet.core.prompts.simulation import first_click, iou
from napari_unet.core.training.rehearsal import unpack_rehearsal


@pytest.fixture(scope="module")
def general():
    return nu.load_model("general", device="cpu")


def test_it_is_small_and_says_where_it_comes_from(general):
    folder = find_model("general")
    card = read_card(folder)
    assert sum(p.numel() for p in general.net.parameters()) <= 4_000_000
    assert sum(file.stat().st_size for file in folder.iterdir()) <= 10 * 2**20
    assert (folder / "thumbnail.png").is_file()
    assert card.licence.startswith("MIT")
    assert set(card.training["sources"]) >= {"bbbc038", "phase_cells", "axons_tem", "axons_sem"}
    assert all(source.endswith(("MIT", "CC0")) for source in card.training["sources"].values())


def test_what_is_only_measured_on_was_not_trained_on():
    said = read_card(find_model("general")).to_text()
    for kind in ("isbi2012", "bacteria_phase", "particles_em", "ovule_nuclei_3d"):
        assert kind not in said


def test_its_replay_shows_only_what_is_in_the_public_domain():
    groups = {
        crop.group.split()[0] for crop in unpack_rehearsal(read_rehearsal(find_model("general")))
    }
    assert groups <= {"bbbc038", "neurons_brightfield", "scenes"}


def test_nuclei_stays_the_model_that_is_offered_first():
    assert [entry.name for entry in list_models()][:2] == ["nuclei", "general"]


def test_it_tells_the_size_of_objects_by_the_look_of_an_image(general):
    assert general.size is not None
    for name, least in (("phase contrast", 0.3), ("neuron", 0.9)):
        truth = np.asarray(nu.open_stack(truth_path(name)).data[:, :])
        scores = nu.evaluate(nu.segment(sample_path(name), general), truth)
        assert scores.ap[scores.at(0.5)] >= least


def test_a_click_on_a_large_object_is_answered_at_the_resolution_of_the_image(general):
    truth = np.asarray(nu.open_stack(truth_path("neuron")).data[:, :]) > 0
    coarse = replace(general, click=general.click.with_refiner(None))
    ious = [
        iou(nu.ClickSession(model, sample_path("neuron")).add(first_click(truth)), truth)
        for model in (coarse, general)
    ]
    assert ious[1] > ious[0] + 0.02
    assert ious[1] > 0.6


def test_it_finds_nuclei(general):
    truth = nu.open_stack(truth_path("fluorescence")).data[:, :]
    scores = nu.evaluate(nu.segment(sample_path("fluorescence"), general), truth)
    assert scores.ap[scores.at(0.5)] >= 0.6


@pytest.mark.parametrize(("kind", "least"), [("phase_cells", 0.3), ("axons_tem", 0.5)])
def test_it_finds_what_is_no_nucleus(general, shared_data, kind, least):
    with (shared_data / kind / "split.csv").open() as file:
        name = next(row["id"] for row in csv.DictReader(file) if row["split"] == "val")
    image, truth = (
        tifffile.imread(shared_data / kind / part / f"{name}.tif") for part in ("images", "labels")
    )
    settings = nu.PredictSettings(diameter=median_diameter(np.asarray(truth)))
    scores = nu.evaluate(nu.segment(image, general, settings), truth)
    assert scores.ap[scores.at(0.5)] >= least
