"""The data's hash tells stacks apart, quickly, and never stands in a result's way."""

from __future__ import annotations

import importlib.metadata

import numpy as np
import pytest
import tifffile
import zarr

from napari_unet.core.errors import InputError
from napari_unet.core.io import provenance as provenance
from napari_unet.core.io.axes import object_ndim
from napari_unet.core.io.provenance import (
    are_labels,
    differing_settings,
    hash_labels,
    hash_stack,
    read_provenance,
)
from napari_unet.core.io.stack import open_stack
from napari_unet.core.models.card import ModelCard
from napari_unet.core.settings.model_spec import ModelSpec
from napari_unet.core.settings.tasks import PredictSettings


class Counted:
    """An array that remembers how many values were read of it."""

    def __init__(self, values):
        self.values, self.shape, self.dtype, self.read = values, values.shape, values.dtype, 0

    def __getitem__(self, key):
        part = self.values[key]
        self.read += part.size
        return part


def test_every_value_counts_in_a_small_stack():
    values = np.zeros((3, 40, 50), np.uint16)
    before = hash_stack(open_stack(values))
    assert before.startswith("sha256:")
    values[1, 2, 3] = 1
    assert hash_stack(open_stack(values)) != before


def test_a_large_stack_is_sampled_thinly_along_every_axis(monkeypatch):
    monkeypatch.setattr(provenance, "WHOLE", 1)
    data = Counted(np.random.default_rng(0).integers(0, 9, (70, 80, 90, 400), np.uint8))
    first = hash_stack(open_stack(data))
    assert first.startswith("sha256-sampled:")
    assert data.read < data.values.size / 10
    data.values[-1, -1, -1, -1] += 1
    assert hash_stack(open_stack(data)) != first


def test_a_damaged_part_is_no_reason_to_lose_a_result():
    class Damaged(Counted):
        def __getitem__(self, key):
            raise OSError("cut short")

    assert hash_stack(open_stack(Damaged(np.zeros((9, 9), np.uint8)))) is None


@pytest.mark.parametrize(("ndim", "axes"), [(2, "YX"), (3, "ZYX")])
def test_the_provenance_says_how_far_an_object_may_extend(ndim, axes):
    card = ModelCard(name="m", spec=ModelSpec(ndim=ndim, in_channels=1, depth=1, width=1))
    stack = open_stack(np.zeros((3, 4, 5), np.uint8))
    result = provenance.make_provenance(stack, card.identity, PredictSettings())
    assert result["object_axes"] == axes and object_ndim("auto", result) == ndim


def test_versions_are_looked_up_once(monkeypatch):
    asked, stack = [], open_stack(np.zeros((4, 5), np.uint8))
    version = importlib.metadata.version
    monkeypatch.setattr(
        "importlib.metadata.version", lambda name: asked.append(name) or version(name)
    )
    provenance._version.cache_clear()
    card = ModelCard(name="m", spec=ModelSpec(in_channels=1, depth=1, width=1))
    made = [provenance.make_provenance(stack, card.identity, PredictSettings()) for _ in range(3)]
    assert asked == ["torch", "numpy"] and made[0] == made[2]


def test_labels_are_known_again_whatever_their_type_and_size(monkeypatch):
    labels = np.arange(3 * 200 * 200).reshape(3, 200, 200) % 900
    whole = hash_labels(labels.astype(np.uint16))
    assert whole == hash_labels(labels.astype(np.uint32), sampled=True)
    monkeypatch.setattr(provenance, "WHOLE", labels.size * 4 - 1)
    sampled = hash_labels(labels, sampled=True)
    assert hash_labels(labels) == whole and sampled != whole
    changed = labels.copy()
    changed[1, 100, 100] += 1  # in the middle sample
    for wanted in (whole, sampled):
        assert are_labels(labels, wanted) and not are_labels(changed, wanted)


def test_what_other_programs_wrote_is_no_damage(tmp_path):
    """ImageJ keeps texts of any kind where results keep theirs, and a Zarr may be an array."""
    plain = np.zeros((9, 8), np.uint8)
    tifffile.imwrite(tmp_path / "a.tif", plain, imagej=True, metadata={"Info": "by Bio-Formats"})
    np.save(tmp_path / "b.npy", plain)
    zarr.create_array(str(tmp_path / "c.zarr"), data=plain)
    for path in sorted(tmp_path.iterdir()):
        with pytest.raises(InputError, match="has no provenance"):
            read_provenance(path)


@pytest.mark.parametrize(
    ("recorded", "requested", "found"),
    [
        ({"augment": "off"}, {}, []),  # an earlier default: nobody asked for another result
        ({}, {}, []),
        ({"augment": "auto"}, {}, []),
        ({"augment": "flips"}, {}, ["augment 'flips', now 'auto'"]),
        ({"augment": "off"}, {"augment": "flips"}, ["augment 'off', now 'flips'"]),
        ({}, {"augment": "flips"}, ["augment 'off', now 'flips'"]),
        ({"augment": "off", "threshold": 0.4}, {}, ["threshold 0.4, now None"]),
    ],
)
def test_results_of_versions_with_other_defaults_are_not_made_otherwise(recorded, requested, found):
    made = {"model_hash": "a", "settings": recorded}
    assert list(differing_settings(made, "a", PredictSettings(**requested))) == found
