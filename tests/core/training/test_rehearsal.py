"""What a model keeps of its training set: chosen evenly, small, read without trust."""

from __future__ import annotations

import io
import shutil
import zipfile

import numpy as np
import pytest
from scipy import ndimage

from napari_unet.core.errors import ModelError
from napari_unet.core.instances.heads import InstanceHead, SemanticHead
from napari_unet.core.models import archive, store
from napari_unet.core.models.card import ModelCard
from napari_unet.core.models.folder import (
    REPLAY,
    attach_rehearsal,
    read_card,
    read_model,
    read_rehearsal,
    write_model,
)
from napari_unet.core.settings.model_spec import ModelSpec
from napari_unet.core.training.rehearsal import (
    GROUP,
    choose_rehearsal_crops,
    merge_rehearsal_crops,
    pack_rehearsal,
    rehearsal_samples,
    unpack_rehearsal,
)
from napari_unet.core.training.samples import Samples


def discs(radius, size=200, seed=0):
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:size, :size]
    labels = np.zeros((size, size), np.uint16)
    for number, (cy, cx) in enumerate(rng.uniform(radius, size - radius, (6, 2)), 1):
        labels[(y - cy) ** 2 + (x - cx) ** 2 < radius**2] = number
    return ndimage.gaussian_filter((labels > 0) * 100.0, 1) + rng.normal(0, 3, labels.shape), labels


@pytest.fixture(scope="module")
def samples():
    pairs = [discs(6 + n, seed=n) for n in range(12)]
    return Samples.from_labels(pairs, groups=["a"] * 9 + ["b"] * 3)


def test_groups_and_sizes_are_all_there(samples):
    crops = choose_rehearsal_crops(samples, count=6, edge=96)
    assert len(crops) == 6
    assert [crop.group for crop in crops].count("b") == 2
    sizes = [crop.diameter for crop in crops if crop.group == "a"]
    assert max(sizes) > 1.4 * min(sizes)
    assert all(crop.labels.shape == (96, 96) and crop.labels.any() for crop in crops)


def test_crops_are_of_the_size_that_the_network_knows(samples):
    for crop in choose_rehearsal_crops(samples, diameter=40, count=4, edge=96):
        assert 40 / 1.35 < crop.diameter < 40 * 1.35


def test_packing_keeps_the_crops(samples):
    crops = choose_rehearsal_crops(samples, count=5, edge=64)
    data = pack_rehearsal(crops)
    assert data == pack_rehearsal(crops)
    back = unpack_rehearsal(data)
    for crop, again in zip(crops, back, strict=True):
        for name in ("image", "labels", "known"):
            assert np.array_equal(getattr(crop, name), getattr(again, name)), name
        assert (crop.group, pytest.approx(crop.diameter)) == (again.group, again.diameter)
    assert crops[0].image.shape[0] == 1  # three equal channels are one


def test_crops_become_samples_as_the_network_saw_them(samples):
    crop = choose_rehearsal_crops(Samples(samples.items[:1], samples.head), count=1, edge=200)
    item = rehearsal_samples(crop, InstanceHead(), 3).items[0]
    assert item.image.shape == (3, 200, 200)
    assert np.abs(item.image - np.clip(samples.items[0].image, -0.2, 1.35)).max() < 0.004
    assert np.array_equal(item.labels, samples.items[0].labels)
    assert item.targets.shape == (2, 200, 200)
    assert item.group == GROUP


def test_what_is_not_known_stays_unknown():
    image, labels = discs(8)
    known = np.zeros(labels.shape, bool)
    known[100:] = True
    partly = Samples.from_labels([(image, labels)], [known])
    crop = unpack_rehearsal(pack_rehearsal(choose_rehearsal_crops(partly, count=1, edge=120)))[0]
    assert 0 < crop.known.mean() < 1
    assert not crop.labels[~crop.known].any()


def test_classes_keep_their_numbers():
    image, labels = discs(20)
    classes = np.uint8(labels > 0) * 2
    both = Samples.from_labels([(image, classes)], head=SemanticHead(3))
    assert set(np.unique(choose_rehearsal_crops(both, count=1, edge=100)[0].labels)) <= {0, 2}


def test_a_child_keeps_two_thirds_of_its_parents(samples):
    parents = choose_rehearsal_crops(samples, count=12, edge=32)
    own = choose_rehearsal_crops(Samples(samples.items[9:], samples.head), count=12, edge=48)
    kept = merge_rehearsal_crops(parents, own, count=9)
    assert [crop.labels.shape[0] for crop in kept] == [32] * 6 + [48] * 3
    assert len(merge_rehearsal_crops([], own, count=9)) == 3


@pytest.mark.parametrize("damage", [b"", b"PK not a zip", None])
def test_damaged_replays_are_said(samples, damage):
    data = pack_rehearsal(choose_rehearsal_crops(samples, count=2, edge=32))
    data = data[: len(data) // 2] if damage is None else damage
    with pytest.raises(ModelError, match="replay cannot be read"):
        unpack_rehearsal(data)


def test_nothing_is_unpickled():
    out = io.BytesIO()
    np.savez(out, diameters=np.array([object()]), groups=np.array(["a"]))
    with pytest.raises(ModelError, match="replay cannot be read"):
        unpack_rehearsal(out.getvalue())


# ------------------------------------------------------------------------------------ in the store


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setattr(store, "BUNDLED", tmp_path / "none")
    tensors = {"w": np.ones(4, np.float16)}
    write_model(tmp_path / "m", ModelCard("m", ModelSpec(width=4, depth=1)), tensors)
    return tmp_path / "m"


def test_a_model_without_replay_gets_one(folder, samples):
    assert read_rehearsal(folder) == b""
    before = (folder / "model.safetensors").read_bytes()
    data = pack_rehearsal(choose_rehearsal_crops(samples, count=2, edge=32))
    card = attach_rehearsal(folder, data)
    assert read_rehearsal(folder) == data
    assert read_card(folder).replay == card.replay != ""
    assert (folder / "model.safetensors").read_bytes() == before


def test_a_replay_travels_with_its_model(folder, samples, tmp_path):
    data = pack_rehearsal(choose_rehearsal_crops(samples, count=2, edge=32))
    attach_rehearsal(folder, data)
    archive.export_model(folder, tmp_path / "m.zip")
    assert REPLAY in zipfile.ZipFile(tmp_path / "m.zip").namelist()
    for source, name in ((tmp_path / "m.zip", "zipped"), (folder, "copied")):
        entry = archive.import_model(source, name)
        assert read_rehearsal(entry.path) == data
        read_model(entry.path)


def test_a_replay_that_was_changed_is_refused(folder, samples, tmp_path):
    attach_rehearsal(folder, pack_rehearsal(choose_rehearsal_crops(samples, count=2, edge=32)))
    (folder / REPLAY).write_bytes(b"something else")
    with pytest.raises(ModelError, match=r"replay\.npz is not what its card says"):
        read_rehearsal(folder)
    with pytest.raises(ModelError, match="is not what its card says"):
        archive.export_model(folder, tmp_path / "m.zip")
    shutil.copytree(folder, tmp_path / "other")
    with pytest.raises(ModelError, match="is not what its card says"):
        archive.import_model(tmp_path / "other", "new")
    (folder / REPLAY).unlink()
    with pytest.raises(ModelError, match=r"lacks its rehearsal set: replay\.npz: No such file"):
        read_rehearsal(folder)


# --------------------------------------------------------------------------- from somebody else


def packed(**arrays):
    out = io.BytesIO()
    np.savez_compressed(out, **arrays)
    return out.getvalue()


def one_crop(**changes):
    arrays = {
        "diameters": np.array([12.0], np.float32),
        "groups": np.array(["a"]),
        "image0": np.zeros((1, 8, 8), np.uint8),
        "labels0": np.ones((8, 8), np.uint16),
        "known0": np.packbits(np.ones((8, 8), bool)),
    }
    return {name: value for name, value in {**arrays, **changes}.items() if value is not None}


@pytest.mark.parametrize(
    "changes",
    [
        {"diameters": np.array(12.0)},
        {"diameters": np.array(["wide"])},
        {"diameters": np.array([np.nan], np.float32)},
        {"groups": None},
        {"groups": np.array([])},
        {"known0": np.zeros(3, np.uint8)},
        {"known0": np.zeros(8, np.float32)},
        {"image0": np.zeros((0, 8, 8), np.uint8)},
        {"image0": np.zeros((1, 8, 9), np.uint8)},
        {"labels0": np.ones((8, 8), np.int64)},
    ],
    ids=str,
)
def test_a_replay_of_other_arrays_is_refused(changes):
    assert len(unpack_rehearsal(packed(**one_crop()))) == 1
    with pytest.raises(ModelError, match="replay cannot be read"):
        unpack_rehearsal(packed(**one_crop(**changes)))


def test_a_replay_whose_arrays_claim_more_than_there_is_takes_no_memory():
    import zipfile

    header = io.BytesIO()
    claim = {"descr": "|u1", "fortran_order": False, "shape": (1, 2**20, 2**20)}
    np.lib.format.write_array_header_1_0(header, claim)
    parts = zipfile.ZipFile(io.BytesIO(packed(**one_crop(image0=None))))
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive_:
        for name in parts.namelist():
            archive_.writestr(name, parts.read(name))
        archive_.writestr("image0.npy", header.getvalue() + b"abc")
    with pytest.raises(ModelError, match="image0 is not of the size that it claims"):
        unpack_rehearsal(out.getvalue())


@pytest.mark.parametrize("place", range(0, 700, 41))
def test_a_replay_with_a_byte_changed_is_refused_or_read(place):
    data = bytearray(packed(**one_crop()))
    data[place % len(data)] ^= 0x5A
    try:
        unpack_rehearsal(bytes(data))
    except ModelError:
        pass


def test_a_replay_of_volumes_or_unknown_classes_does_not_fit():
    crops = unpack_rehearsal(packed(**one_crop(labels0=np.full((8, 8), 7, np.uint16))))
    with pytest.raises(ModelError, match="does not fit its network"):
        unpack_rehearsal(packed(**one_crop()), 3)
    with pytest.raises(ModelError, match="has the class 7"):
        rehearsal_samples(crops, SemanticHead(3), 1)
