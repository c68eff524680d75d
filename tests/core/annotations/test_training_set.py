"""A model's training set is what was corrected on every image on which it was used."""

from __future__ import annotations

import numpy as np
import pytest
import tifffile

from napari_unet.core.annotations import patches as patches_module
from napari_unet.core.annotations.corrections import drop_correction, list_corrections
from napari_unet.core.annotations.edits import KNOWN, SCRIBBLES
from napari_unet.core.annotations.journal import Journal
from napari_unet.core.annotations.journal_reader import JournalReader
from napari_unet.core.annotations.training_set import list_patches, to_samples
from napari_unet.core.errors import InputError
from napari_unet.core.instances.heads import SemanticHead
from napari_unet.core.io.stack import open_stack
from napari_unet.core.models.card import ModelCard
from napari_unet.core.models.store import put_model
from napari_unet.core.progress import run_to_end
from napari_unet.core.settings.model_spec import ModelSpec

Y, X = np.mgrid[:80, :100]
FIRST = np.zeros((80, 100), np.uint16)
for number, (y, x) in enumerate([(20, 20), (20, 44), (60, 70)], 1):
    FIRST[np.hypot(Y - y, X - x) < 10] = number


def write_image(path, seed=0, shape=(80, 100)):
    values = np.random.default_rng(seed).integers(0, 999, shape).astype(np.uint16)
    tifffile.imwrite(path, values, photometric="minisblack")
    return open_stack(path, "YX" if len(shape) == 2 else "ZYX")


def corrected(stack, *objects, first=FIRST, model="nuclei", **how):
    """Correct an image as the user does: delete objects of its labels."""
    labels = first.copy()
    with Journal.begin(stack, labels, model=model, **how) as journal:
        for number in objects:
            where = np.nonzero(labels == number)
            labels[where] = 0
            journal.record(journal.edit(where, number, 0, labels=labels))
    return journal.path


def model(name, parent=None):
    card = ModelCard(name, ModelSpec(), parent=parent)
    weights = {"w": np.frombuffer(name.ljust(12).encode()[:12], np.float32)}
    return put_model(name, card, weights).card


def test_a_model_has_the_corrections_of_its_ancestors_and_descendants(tmp_path):
    root = model("root")
    child = model("child", root.hash)
    cousin = model("cousin", root.hash)
    grandchild = model("grandchild", child.hash)
    for seed, card in enumerate((root, child, cousin, grandchild)):
        stack = write_image(tmp_path / f"{card.name}.tif", seed)
        corrected(stack, 1, model=card.name, model_hash=card.hash)
    corrected(write_image(tmp_path / "untouched.tif", 9), model="root", model_hash=root.hash)

    def names(of):
        return {c.name for c in list_corrections(of)}

    assert names("child") == {"root", "child", "grandchild"}
    assert names("cousin") == {"root", "cousin"}
    assert names("root") == names(None) == {"root", "child", "cousin", "grandchild"}


def test_what_has_not_changed_since_is_not_read_again(tmp_path):
    card = model("root")
    for seed in (1, 2):
        stack = write_image(tmp_path / f"{seed}.tif", seed)
        path = corrected(stack, 1, model="root", model_hash=card.hash)
    before = list(list_corrections("root"))
    with Journal.open(path) as journal:
        journal.mark(KNOWN)
    changed, same = list_corrections("root", earlier=before)
    assert same is next(row for row in before if row.name == "1")
    assert changed.name == "2" and changed.pixels == 80 * 100
    other = model("other")
    assert list(list_corrections(other.name, earlier=before)) == []


def test_an_entry_says_what_it_holds_until_it_is_dropped(tmp_path):
    stack = write_image(tmp_path / "volume.tif", shape=(3, 80, 100))
    path = corrected(stack, 1, 3, first=np.stack([FIRST, FIRST, 0 * FIRST]))
    (entry,) = list_corrections()
    assert entry.journal.path == path
    assert (entry.name, entry.path) == ("volume", str(tmp_path / "volume.tif"))
    assert (entry.frames, entry.objects, entry.removed) == (((0,), (1,)), 4, 4)
    assert 4 * 300 < entry.pixels < 4 * 900
    assert not entry.dropped
    drop_correction(entry, (1,))
    (entry,) = list_corrections()
    assert (entry.frames, entry.objects, entry.dropped) == (((0,),), 2, True)
    with Journal.open(path) as journal:
        with pytest.raises(InputError, match="open in another window"):
            drop_correction(entry)
        drop_correction(entry, journal=journal)
    (entry,) = list_corrections()
    assert (entry.frames, entry.pixels, entry.dropped) == ((), 0, True)
    with JournalReader(path) as journal:
        assert not (journal.replay((0,)) == 1).any()


def test_samples_are_the_corrected_labels_with_what_is_known(tmp_path):
    stack = write_image(tmp_path / "a.tif")
    corrected(stack, 2)
    samples, remarks = run_to_end(to_samples(list(list_corrections())))
    (item,) = samples.items
    assert remarks == []
    assert item.group.startswith("a ")
    assert item.image.shape == (3, *item.labels.shape)
    assert 0 < item.known.sum() < item.known.size
    assert not item.labels[item.known].any()
    assert len(np.unique(item.labels)) == 3  # the neighbours are there, but unknown


@pytest.mark.parametrize("channel", [None, 1])
def test_a_sample_is_of_the_channel_that_was_corrected(channel):
    pixels = np.random.default_rng(0).integers(0, 900, (2, *FIRST.shape)).astype(np.uint16)
    stack = open_stack(pixels, axes="CYX")
    corrected(stack, 1, channel=channel)
    (row,) = list_corrections("nuclei")
    assert row.journal.header.channel == channel
    samples, _ = run_to_end(to_samples([row], opened=[stack]))
    sample = samples.items[0]
    place = tuple(slice(o, o + n) for o, n in zip(sample.origin, sample.labels.shape, strict=True))
    alike = [np.corrcoef(sample.image[0].ravel(), p[place].ravel())[0, 1] for p in pixels]
    assert int(np.argmax(alike)) == (channel or 0) and max(alike) > 0.99


def test_a_sample_has_the_values_of_its_frame_not_of_its_cut(tmp_path):
    values = np.zeros((900, 1000), np.uint16)
    values[:100] = 1000
    values[800:, 900:] = 500
    tifffile.imwrite(tmp_path / "a.tif", values)
    labels = np.zeros(values.shape, np.uint8)
    with Journal.begin(open_stack(tmp_path / "a.tif"), labels) as journal:
        journal.mark(KNOWN, (), (slice(850, 900), slice(950, 1000)))
    samples, _ = run_to_end(to_samples(list(list_corrections()), channels=1))
    (item,) = samples.items
    assert item.image[0, -50:, -50:] == pytest.approx(0.5)
    assert item.labels.shape == (50 + 64, 50 + 64)
    assert item.known.sum() == 2500


def test_cells_cover_what_is_known_once(monkeypatch, tmp_path):
    monkeypatch.setattr(patches_module, "CELL", {2: (1, 30), 3: (2, 30)})
    monkeypatch.setattr(patches_module, "CONTEXT", {2: (5, 9), 3: (1, 9)})
    first = np.stack([FIRST] * 5)
    stack = write_image(tmp_path / "volume.tif", shape=first.shape)
    with Journal.begin(stack, first, ndim=3) as journal:
        journal.mark(KNOWN, (), (slice(1, 5), slice(7, 80), slice(3, 90)))
    for ndim in (2, 3):
        canvas = np.zeros(first.shape, int)
        for _, patch in list_patches(list(list_corrections()), ndim, []):
            canvas[patch.index][patch.window] += patch.mask.known
            assert patch.image((0,)).shape == (1, *patch.mask.labels.shape)
            assert max(patch.mask.labels.shape[-2:]) <= 45 + 2 * 9
            there = first[patch.index][patch.window]
            assert np.array_equal(patch.mask.labels > 0, there > 0)
        expected = np.zeros(first.shape, int)
        expected[1:5, 7:80, 3:90] = 1
        assert np.array_equal(canvas, expected)


def test_more_than_the_budget_is_drawn_from_and_said(monkeypatch, tmp_path):
    monkeypatch.setattr(patches_module, "CELL", {2: (1, 20)})
    monkeypatch.setattr(patches_module, "CONTEXT", {2: (0, 0)})
    with Journal.begin(write_image(tmp_path / "a.tif"), FIRST) as journal:
        journal.mark(KNOWN)
    corrections = list(list_corrections())
    samples, remarks = run_to_end(to_samples(corrections, budget=4 * 400))
    again, _ = run_to_end(to_samples(corrections, budget=4 * 400))
    assert len(samples.items) == 4
    assert remarks == ["16 parts of the corrected images did not fit into memory."]
    assert samples.card()["data_hash"] == again.card()["data_hash"]


def test_an_image_that_is_gone_or_changed_is_left_out_with_a_remark(tmp_path):
    for seed, name in enumerate("abc"):
        corrected(write_image(tmp_path / f"{name}.tif", seed), 1)
    (tmp_path / "a.tif").unlink()
    write_image(tmp_path / "b.tif", 99)
    corrections = list(list_corrections())
    assert [bool(c.problem) for c in sorted(corrections, key=lambda c: c.name)] == [
        True,
        False,
        False,
    ]
    samples, remarks = run_to_end(to_samples(corrections))
    assert [item.group[0] for item in samples.items] == ["c"]
    assert len(remarks) == 2
    assert any("a.tif" in remark for remark in remarks)
    assert any("was changed since" in remark for remark in remarks)
    moved = write_image(tmp_path / "moved.tif", 0)
    samples, remarks = run_to_end(to_samples(corrections, opened=[moved]))
    assert sorted(item.group[0] for item in samples.items) == ["a", "c"]


def test_a_mask_is_said_once_and_an_object_in_two_pieces_is_not(tmp_path):
    mask = np.zeros((80, 100), np.uint16)
    for y in (10, 40, 70):
        mask[y : y + 6, 10:30] = mask[y : y + 6, 60:80] = 255
    two = np.where(mask[:36], 255, 0)
    stack = write_image(tmp_path / "mask.tif", 1)
    with Journal.begin(stack, mask, model="nuclei") as journal:
        journal.mark(KNOWN, ())
    other = write_image(tmp_path / "two.tif", 2, (36, 100))
    with Journal.begin(other, two, model="nuclei") as journal:
        journal.mark(KNOWN, ())
    _, remarks = run_to_end(to_samples(list(list_corrections())))
    (remark,) = remarks
    assert remark.startswith("mask has one object in many pieces, as in a mask; if each is an obj")


def test_a_damaged_journal_does_not_block_the_others(tmp_path):
    path = corrected(write_image(tmp_path / "a.tif", 1), 1)
    corrected(write_image(tmp_path / "b.tif", 2), 1)
    path.write_bytes(path.read_bytes()[:-40])
    assert {c.name for c in list_corrections()} == {"b"}
    path.write_bytes(b"nothing of the kind")
    assert {c.name for c in list_corrections()} == {"b"}


@pytest.mark.parametrize(
    ("shape", "axes", "ndim"), [((3, 80, 100), "ZYX", 3), ((80, 100, 3), "YXS", 2)]
)
def test_an_image_in_memory_is_kept_with_its_corrections(shape, axes, ndim):
    values = np.random.default_rng(1).integers(0, 255, shape, np.uint8)
    first = FIRST if axes == "YXS" else np.stack([FIRST] * 3)
    corrected(open_stack(values, axes), 3, first=first, ndim=ndim)
    ((_, patch),) = list_patches(list(list_corrections()), ndim, [])
    channels = (0, 1, 2) if axes == "YXS" else (0,)
    expected = np.moveaxis(values, -1, 0) if axes == "YXS" else values[None]
    assert np.array_equal(patch.image(channels), expected[(slice(None), *patch.window)])
    assert patch.stack.rgb == (axes == "YXS")
    planes = list(list_patches(list(list_corrections()), 2, []))
    assert len(planes) == (1 if axes == "YXS" else 3)


def test_planes_of_an_image_in_memory_are_no_volume():
    stack = open_stack(np.zeros((3, 80, 100), np.uint8), "ZYX")
    corrected(stack, 1, first=np.stack([FIRST] * 3))
    remarks = []
    assert list(list_patches(list(list_corrections()), 3, remarks)) == []
    assert "was not kept" in remarks[0]
    assert len(list(list_patches(list(list_corrections()), 3, [], opened=[stack]))) == 1


def test_a_frame_too_large_to_be_kept_is_said_once(monkeypatch):
    monkeypatch.setattr("napari_unet.core.annotations.image_source.FRAME_LIMIT", 100)
    stack = open_stack(np.zeros((80, 100), np.uint8), "YX")
    with pytest.warns(UserWarning, match="save it as a file") as caught:
        corrected(stack, 1, 2)
    assert len(caught) == 1
    with pytest.raises(InputError, match=r"no corrections to learn from.*was not kept"):
        run_to_end(to_samples(list(list_corrections())))


def test_nothing_corrected_is_said():
    with pytest.raises(InputError, match="no corrections to learn from"):
        run_to_end(to_samples([]))


def test_a_model_of_volumes_or_of_classes_leaves_out_what_does_not_fit(tmp_path):
    corrected(write_image(tmp_path / "a.tif", 1), 1)
    with pytest.raises(InputError, match="They are planes"):
        run_to_end(to_samples(list(list_corrections()), ndim=3))
    with pytest.raises(InputError, match="made of objects; this model finds classes"):
        run_to_end(to_samples(list(list_corrections()), SemanticHead(2)))
    corrected(write_image(tmp_path / "b.tif", 2), 1, head="semantic")
    classes = [c for c in list_corrections() if c.name == "b"]
    with pytest.raises(InputError, match="has class 2; the model knows 0 to 1"):
        run_to_end(to_samples(classes, SemanticHead(2)))
    samples, _ = run_to_end(to_samples(classes, SemanticHead(4)))
    assert samples.items[0].targets.shape[0] == 4


def test_a_scribbled_object_teaches_foreground_but_is_not_known(tmp_path):
    scribbles = (slice(40, 41), slice(10, 20))
    with Journal.begin(write_image(tmp_path / "a.tif"), FIRST) as journal:
        where = tuple(part.ravel() for part in np.mgrid[scribbles])
        journal.record(journal.edit(where, 0, 2, canvas=SCRIBBLES))
        where = tuple(part.ravel() for part in np.mgrid[70:71, 10:20])
        journal.record(journal.edit(where, 0, 1, canvas=SCRIBBLES))
    samples, _ = run_to_end(to_samples(list(list_corrections())))
    (item,) = samples.items
    assert item.scribbled.sum() == item.known.sum() == 10
    assert (item.targets[0][item.scribbled] == 1).all()
    assert (item.targets[:, item.known] == 0).all()
