"""The model in the wheel: small, licensed, and good on the samples that come with it."""

from __future__ import annotations

import pytest

import napari_unet as nu
from napari_unet.core.io.sample_images import sample_path, truth_path
from napari_unet.core.models.folder import read_card
from napari_unet.core.models.store import find_model


def test_it_is_small_and_says_where_it_comes_from():
    folder = find_model("nuclei")
    card = read_card(folder)
    model = nu.load_model("nuclei", device="cpu")
    assert sum(p.numel() for p in model.net.parameters()) <= 4_000_000
    assert sum(file.stat().st_size for file in folder.iterdir()) <= 10 * 2**20
    assert card.licence.startswith("CC0")
    assert card.training["objects"] > 20_000
    assert (folder / "thumbnail.png").is_file()


def test_bfloat16_was_found_to_agree():
    assert read_card(find_model("nuclei")).metrics["bfloat16_dice"] >= 0.999


@pytest.mark.parametrize(("sample", "least"), [("fluorescence", 0.75), ("histology", 0.5)])
def test_it_finds_the_objects_of_the_samples(sample, least):
    labels = nu.segment(sample_path(sample), nu.load_model("nuclei", device="cpu"))
    truth = nu.open_stack(truth_path(sample))
    scores = nu.evaluate(labels, truth.data[:, :])
    assert scores.ap[scores.at(0.5)] >= least
    assert abs(scores.count_error) <= 0.15 * scores.true_objects
