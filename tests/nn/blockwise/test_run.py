"""Stacks in blocks: the labels of one piece, in an OME-Zarr, whole or not at all."""

from __future__ import annotations

import json
from types import SimpleNamespace

import dask.array as da
import numpy as np
import pytest
import zarr
from scipy import ndimage

from napari_unet.core.blockwise.estimate import RunEstimated
from napari_unet.core.blockwise.output_location import OutputLocation
from napari_unet.core.blockwise.run_directory import RunDirectory, locked, open_preview
from napari_unet.core.errors import InputError, OutputError
from napari_unet.core.io.lazy_arrays import RetryingArray, UnreadableError
from napari_unet.core.io.provenance import read_provenance
from napari_unet.core.io.stack import open_stack
from napari_unet.core.progress import run_to_end
from napari_unet.core.settings.tasks import PredictSettings
from napari_unet.nn.blockwise.plan import BlockwiseRequest
from napari_unet.nn.blockwise.run import BlockDone, segment_blocks
from napari_unet.nn.inference.segment import segment, segment_steps


def texture(*shape, seed=0):
    """Return a smooth random image, in which an untrained network finds objects of its own."""
    return ndimage.gaussian_filter(np.random.default_rng(seed).normal(size=shape), 2.5)


@pytest.fixture
def model(make_model):
    return make_model(gain=6.0, card={"decode": {"min_size": 3}})


def request_for(image, target, **options):
    settings = options.pop("settings", PredictSettings(tile=48))
    return BlockwiseRequest(image, OutputLocation.resolve(target, None, ""), settings, **options)


def in_blocks(image, model, target, watch=None, **options):
    return run_to_end(segment_blocks(request_for(image, target, **options), model), watch)


def leftovers(folder):
    return sorted(entry.name for entry in folder.iterdir())


@pytest.mark.parametrize("block", [40, 64, (33, 100), None])
def test_blocks_give_the_objects_of_one_piece(model, tmp_path, block, same_objects):
    image = texture(211, 173)
    result = in_blocks(image, model, tmp_path / "labels.zarr", block=block)
    whole = segment(image, model)
    assert whole.max() > 20
    assert result.objects == whole.max()
    assert same_objects(result.labels[:], whole)
    assert leftovers(tmp_path) == ["labels.zarr"]


@pytest.mark.parametrize("block", [(8, 16, 24), (20, 17, 19)])
def test_blocks_of_volumes(make_model, tmp_path, block, same_objects):
    model, image = make_model(gain=6.0, ndim=3), texture(20, 45, 39)
    result = in_blocks(image, model, tmp_path / "labels.zarr", block=block)
    whole = segment(image, model)
    assert whole.max() > 5
    assert same_objects(result.labels[:], whole)


@pytest.mark.parametrize("way", ["joined", "orthogonal"])
@pytest.mark.parametrize("block", [20, None])
def test_a_2d_model_finds_the_same_volumes_in_blocks(model, tmp_path, way, block, same_objects):
    image = np.repeat(texture(9, 46, 41), 3, 0)
    image[13] = image.min()  # a plane that shows nothing: objects are bridged
    settings = PredictSettings(tile=32, volumes=way)
    options = {"settings": settings, "block": block}
    result = in_blocks(open_stack(image, axes="ZYX"), model, tmp_path / "labels.zarr", **options)
    whole = segment(open_stack(image, axes="ZYX"), model, settings)
    assert whole.max() > 5
    assert set(whole[12][whole[12] > 0]) & set(whole[14][whole[14] > 0])  # beyond the gap
    assert same_objects(result.labels[:], whole)
    assert result.objects == whole.max()
    assert result.provenance["volumes"] == way


@pytest.mark.parametrize(("diameter", "way"), [(12.0, "orthogonal"), (40.0, "joined")])
def test_blocks_are_seen_as_the_whole_stack_is(make_model, tmp_path, diameter, way, same_objects):
    card = {"training": {"diameter_px": {"q50": 12.0}}, "decode": {"min_size": 0}}
    model, image = make_model(gain=6.0, card=card), np.repeat(texture(8, 46, 41), 3, 0)
    stack, settings = open_stack(image, "ZYX", 0.5), PredictSettings(tile=32, diameter=diameter)
    steps = segment_blocks(
        request_for(stack, tmp_path / "l.zarr", settings=settings, block=16), model
    )
    while not isinstance(next(steps), BlockDone):  # a block alone would be too flat
        pass
    steps.close()
    options = {"settings": settings, "block": 16, "resume": True}
    result = in_blocks(stack, model, tmp_path / "l.zarr", **options)
    whole = run_to_end(segment_steps(stack, model, settings))
    assert result.provenance["volumes"] == whole.provenance["volumes"] == way
    assert whole.labels.max() > 2
    assert same_objects(result.labels[:], whole.labels)


def test_volumes_are_joined_apart_in_time(model, tmp_path, same_objects):
    stack = open_stack(np.repeat(texture(2, 3, 40, 44), 2, 1), axes="TZYX")
    settings = PredictSettings(tile=32)
    result = in_blocks(stack, model, tmp_path / "labels.zarr", settings=settings, block=32)
    whole = segment(stack, model, settings)
    for t in range(2):
        assert same_objects(result.labels[t], whole[t])


def test_every_frame_counts_for_itself(model, tmp_path, same_objects):
    image, settings = texture(2, 3, 60, 50), PredictSettings(volumes="planes")
    options = {"settings": settings, "block": 32}
    result = in_blocks(image, model, tmp_path / "labels.zarr", **options)
    whole = segment(image, model, settings)
    for index in np.ndindex(2, 3):
        assert same_objects(result.labels[index], whole[index])
    assert result.objects == sum(int(whole[index].max()) for index in np.ndindex(2, 3))


@pytest.mark.parametrize("together", [1, 2, 3, 100])
@pytest.mark.parametrize("way", ["planes", "joined"])
def test_small_frames_share_files(model, tmp_path, monkeypatch, together, way, same_objects):
    monkeypatch.setattr("napari_unet.core.blockwise.blocks.BATCH_PIXELS", together * 40 * 30)
    image = np.repeat(texture(2, 4, 40, 30), 2, 1)[:, :7]
    settings = PredictSettings(tile=48, volumes=way)
    result = in_blocks(image, model, tmp_path / "labels.zarr", settings=settings)
    whole = segment(image, model, settings)
    for index in np.ndindex(2) if way == "joined" else np.ndindex(2, 7):
        assert same_objects(result.labels[index], whole[index])
    assert result.labels.chunks == (1, min(together, 7), 40, 30)
    assert result.provenance["blocks"] == 14


def test_small_frames_are_gone_on_with_in_groups(model, tmp_path, monkeypatch):
    monkeypatch.setattr("napari_unet.core.blockwise.blocks.BATCH_PIXELS", 3 * 40 * 30)
    image, target = texture(8, 40, 30), tmp_path / "labels.zarr"
    whole = in_blocks(image, model, tmp_path / "whole.zarr").labels[:]
    steps, lines, again = segment_blocks(request_for(image, target), model), [], []
    while not isinstance(next(steps), BlockDone):
        pass
    steps.close()

    def watch(step):
        again.extend([step.index] if isinstance(step, BlockDone) else [])
        lines.extend([step.estimate] if isinstance(step, RunEstimated) else [])

    result = in_blocks(image, model, target, watch, resume=True)
    assert again == [(z,) for z in range(3, 8)]
    assert lines[0].blocks == 5
    assert np.array_equal(result.labels[:], whole)


def test_classes_in_blocks(make_model, tmp_path):
    model = make_model(gain=6.0, head="semantic", classes=3)
    image = texture(90, 70)
    result = in_blocks(image, model, tmp_path / "labels.zarr", block=32)
    assert np.array_equal(result.labels[:], segment(image, model))


def test_a_rescaled_image_in_blocks(make_model, tmp_path, same_objects):
    card = {"training": {"diameter_px": {"q50": 12.0}}, "decode": {"min_size": 0}}
    model, image = make_model(gain=6.0, card=card), texture(150, 130)
    settings = PredictSettings(diameter=9.0)
    result = in_blocks(image, model, tmp_path / "out.zarr", block=50, settings=settings)
    assert same_objects(result.labels[:], segment(image, model, settings))


@pytest.mark.filterwarnings("ignore:.*NaN or infinity")
@pytest.mark.parametrize("value", [0, np.nan])
@pytest.mark.parametrize("shape", [(70, 50), (1, 1), (0, 7), (2, 9, 9)])
def test_images_without_content(model, tmp_path, shape, value):
    image = np.full(shape, value, np.float32)
    result = in_blocks(image, model, tmp_path / "labels.zarr", block=20)
    assert result.labels.shape == shape
    assert not result.labels[:].any()
    assert result.objects == 0


def test_the_result_is_an_ome_zarr_with_a_provenance(model, tmp_path):
    stack = open_stack(texture(1100, 40), voxel_size_um=(0.5, 0.25))
    result = in_blocks(stack, model, tmp_path / "labels.zarr", block=512)
    again = open_stack(tmp_path / "labels.zarr")
    assert again.axes == "YX"
    assert again.voxel_size_um == (1.0, 0.5, 0.25)
    provenance = read_provenance(tmp_path / "labels.zarr")
    assert provenance == json.loads(json.dumps(result.provenance))
    assert provenance["blocks"] == 3
    assert provenance["seam"] < 1e-4
    assert provenance["objects"] == result.objects > 10
    group = zarr.open_group(str(tmp_path / "labels.zarr"))
    assert np.array_equal(group["1"][:], result.labels[:][::2, ::2])
    from yaozarrs import validate_zarr_store

    validate_zarr_store(str(tmp_path / "labels.zarr"))


@pytest.mark.parametrize("zarr_format", [2, 3])
def test_labels_lie_in_the_image(model, tmp_path, zarr_format, same_objects):
    image = texture(80, 70).astype(np.float32)
    path = tmp_path / "data.zarr"
    group = zarr.open_group(str(path), mode="w", zarr_format=zarr_format)
    key = {"chunk_key_encoding": {"name": "v2", "separator": "/"}} if zarr_format == 2 else {}
    names = {} if zarr_format == 2 else {"dimension_names": ["y", "x"]}
    group.create_array("0", data=image, chunks=(40, 40), **key, **names)
    axes = [{"name": a, "type": "space", "unit": "nanometer"} for a in "yx"]
    scale = [{"type": "scale", "scale": [500.0, 250.0]}]
    scale += [{"type": "translation", "translation": [7000.0, 0.0]}]
    data = [{"path": "0", "coordinateTransformations": scale}]
    version = {2: "0.4", 3: "0.5"}[zarr_format]
    images = [{"axes": axes, "datasets": data, "name": "data", "version": version}]
    if zarr_format == 2:
        group.attrs["multiscales"] = images
    else:
        del images[0]["version"]
        group.attrs["ome"] = {"version": version, "multiscales": images}
    place = OutputLocation.resolve(None, path, "tiny")
    assert place.path == path / "labels" / "tiny"
    result = run_to_end(segment_blocks(BlockwiseRequest(path, place, block=40), model))
    assert same_objects(result.labels[:], segment(path, model))
    again = OutputLocation.resolve(path / "labels" / "more", path, "tiny")
    run_to_end(segment_blocks(BlockwiseRequest(path, again, block=40), model))
    attributes = dict(zarr.open_group(str(path / "labels")).attrs)
    assert attributes.get("ome", attributes)["labels"] == ["tiny", "more"]
    assert open_stack(place.path).voxel_size_um == (1.0, 0.5, 0.25)
    found = dict(zarr.open_group(str(place.path)).attrs)
    found = found.get("ome", found)["multiscales"][0]
    assert found["axes"] == axes  # the labels lie where the image does
    assert found["datasets"][0]["coordinateTransformations"] == scale
    assert not (path / "labels" / ".lock").exists()
    from yaozarrs import validate_zarr_store

    validate_zarr_store(str(path))


def test_labels_of_another_size_are_not_put_into_an_image(model, tmp_path):
    """Another program would lay them over it, stretched or cut."""
    axes = [{"name": letter, "type": "space"} for letter in "yx"]
    datasets = [{"path": "0"}, {"path": "1"}]
    ome = {"version": "0.5", "multiscales": [{"axes": axes, "datasets": datasets}]}
    group = zarr.open_group(str(tmp_path / "a.zarr"), mode="w", attributes={"ome": ome})
    for level in (0, 1):
        group.create_array(str(level), data=texture(60, 50)[:: level + 1, :: level + 1])
    with pytest.raises(OutputError, match="is of another size than"):
        in_blocks(texture(40, 50), model, tmp_path / "a.zarr" / "labels" / "cells")
    assert not (tmp_path / "a.zarr" / "labels").exists()
    assert in_blocks(texture(30, 25), model, tmp_path / "a.zarr" / "labels" / "coarse")


@pytest.mark.parametrize("link", [False, True])
def test_labels_of_their_own_lie_where_their_image_does(model, tmp_path, link):
    from napari_unet.batch.file_job import FileJob, segment_file
    from napari_unet.core.settings.tasks import LinkSettings

    path, out = tmp_path / "movie.zarr", tmp_path / "labels.zarr"
    group = zarr.open_group(str(path), mode="w")
    group.create_array("0", data=np.stack([texture(60, 50)] * 2)[:, None])
    axes = [{"name": "t", "type": "time", "unit": "second"}, {"name": "c", "type": "channel"}]
    axes += [{"name": a, "type": "space", "unit": "nanometer"} for a in "yx"]
    steps = [{"type": "scale", "scale": [60.0, 1.0, 500.0, 250.0]}]
    steps += [{"type": "translation", "translation": [30.0, 0.0, 7000.0, 0.0]}]
    data = [{"path": "0", "coordinateTransformations": steps}]
    group.attrs["ome"] = {"version": "0.5", "multiscales": [{"axes": axes, "datasets": data}]}
    settings = PredictSettings(survey=False)
    job = FileJob(path, out)
    run_to_end(segment_file(job, model, settings, link=LinkSettings() if link else None))
    found = zarr.open_group(str(out)).attrs["ome"]["multiscales"][0]
    assert found["axes"] == [axes[0], *axes[2:]]
    (scale, translation) = found["datasets"][0]["coordinateTransformations"]
    assert scale["scale"] == [60.0, 500.0, 250.0]
    assert translation["translation"] == [30.0, 7000.0, 0.0]


def test_odd_transforms_of_the_image_do_not_cost_its_labels(model, tmp_path):
    path = tmp_path / "data.zarr"
    group = zarr.open_group(str(path), mode="w")
    group.create_array("0", data=texture(40, 40))
    data = [{"path": "0", "coordinateTransformations": [{"scale": [1.0, 1.0]}]}]
    axes = [{"name": "y", "type": "space"}, {"name": "x", "type": "space"}]
    group.attrs["ome"] = {"version": "0.5", "multiscales": [{"axes": axes, "datasets": data}]}
    place = OutputLocation.resolve(None, path, "tiny")
    run_to_end(segment_blocks(BlockwiseRequest(path, place, block=40), model))
    assert open_stack(place.path).axes == "YX"


def test_a_line_before_the_start(model, tmp_path):
    lines = []
    in_blocks(
        texture(100, 90), model, tmp_path / "labels.zarr", block=50,
        watch=lambda s: lines.append(s.estimate) if isinstance(s, RunEstimated) else None,
    )  # fmt: skip
    (needs,) = lines
    assert needs.blocks == 4
    assert needs.seconds > 0
    assert needs.disk > 100
    assert "4 blocks on cpu: about " in needs.line()


def test_too_small_a_disk_is_said_before_the_start(model, tmp_path, monkeypatch):

    monkeypatch.setattr("shutil.disk_usage", lambda path: SimpleNamespace(free=10))
    with pytest.raises(OutputError, match=r"needs about \d+ kB, but only 0 kB are free"):
        in_blocks(texture(100, 90), model, tmp_path / "labels.zarr")
    assert leftovers(tmp_path) == []


def test_cancelling_keeps_blocks_and_resuming_does_the_rest(model, tmp_path):
    image, target = texture(150, 130), tmp_path / "labels.zarr"
    whole = in_blocks(image, model, tmp_path / "whole.zarr", block=40).labels[:]
    steps = segment_blocks(request_for(image, target, block=40), model)
    done = []
    for step in steps:
        done += [step.window] if isinstance(step, BlockDone) else []
        if len(done) == 5:
            break
    steps.close()
    assert leftovers(tmp_path) == [".labels.zarr.unfinished", "whole.zarr"]
    with pytest.raises(OutputError, match="--resume"):
        in_blocks(image, model, target, block=40)
    with pytest.raises(OutputError, match="another kind"):
        in_blocks(image, model, target, block=30, resume=True)
    with pytest.raises(OutputError, match="another kind"):
        in_blocks(image + 1, model, target, resume=True)
    # Begun by a version that mirrored nothing unasked, it goes on as it was begun.
    plan = next((tmp_path / ".labels.zarr.unfinished").rglob("plan.json"))
    text = plan.read_text()
    assert '"augment": "auto"' in text
    plan.write_text(text.replace('"augment": "auto"', '"augment": "off"'))
    again = []
    result = in_blocks(
        image, model, target, resume=True,
        watch=lambda s: again.append(s.window) if isinstance(s, BlockDone) else None,
    )  # fmt: skip
    assert len(again) == 16 - 5
    assert not any(window in done for window in again)
    assert np.array_equal(result.labels[:], whole)
    assert leftovers(tmp_path) == ["labels.zarr", "whole.zarr"]
    once_more = in_blocks(image, model, target, resume=True)
    assert np.array_equal(once_more.labels[:], whole)


@pytest.mark.parametrize("killed_at", ["empty", "clear"])
def test_a_run_that_was_killed_after_its_end_keeps_its_labels(
    model, tmp_path, monkeypatch, killed_at
):
    """The result is in its place, and what led to it is not deleted yet, or only in part."""
    image, target = texture(90, 80), tmp_path / "labels.zarr"

    def die(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        whole = RunDirectory.empty

        def empty(directory):
            if not (directory.folder / "written").exists():  # at the begin of the run
                return whole(directory)
            if killed_at == "clear":
                patch.setattr("napari_unet.core.blockwise.run_directory.clear", die)
                whole(directory)
            return die()

        patch.setattr(RunDirectory, "empty", empty)
        with pytest.raises(KeyboardInterrupt):
            in_blocks(image, model, target, block=40)
    found = open_stack(target).data[:]
    assert found.max() > 3
    again = in_blocks(image, model, target, block=40, resume=True)
    assert np.array_equal(again.labels[:], found)
    assert leftovers(tmp_path) == ["labels.zarr"]


def test_finished_labels_of_something_else_are_not_what_was_asked_for(model, tmp_path):
    image, target = texture(90, 80), tmp_path / "labels.zarr"
    in_blocks(image, model, target)
    harmless = PredictSettings(tile=64, certify=False)
    assert in_blocks(image, model, target, resume=True, settings=harmless).labels[:].any()
    for changes, says in (
        ({"settings": PredictSettings(min_size=50)}, "min_size None, now 50"),
        ({"image": image + 1}, "another image"),
    ):
        with pytest.raises(OutputError, match=says):
            in_blocks(**({"image": image, "model": model, "target": target} | changes), resume=True)
    foreign = zarr.create_array(str(tmp_path / "foreign.zarr"), data=np.ones((90, 80), np.uint16))
    with pytest.raises(OutputError, match="do not say how they were made"):
        in_blocks(image, model, tmp_path / "foreign.zarr", resume=True)
    assert (foreign[:] == 1).all()


def test_overwriting_begins_anew(model, tmp_path, same_objects):
    image, target = texture(90, 80), tmp_path / "labels.zarr"
    in_blocks(image, model, target, block=40)
    with pytest.raises(OutputError, match="exists already"):
        in_blocks(image, model, target, block=40)
    result = in_blocks(texture(90, 80, seed=1), model, target, block=40, overwrite=True)
    assert same_objects(result.labels[:], segment(texture(90, 80, seed=1), model))


def test_the_second_of_two_runs_is_refused(model, tmp_path):
    target = tmp_path / "labels.zarr"
    steps = segment_blocks(request_for(texture(90, 80), target, block=40), model)
    while not isinstance(next(steps), BlockDone):
        pass
    with pytest.raises(OutputError, match="is being written by process"):
        in_blocks(texture(90, 80), model, target, resume=True)
    steps.close()
    with locked(OutputLocation.resolve(target, None, "").unfinished):
        pass


class Gone:
    """A store that is not there any more."""

    shape, dtype, ndim = (100,), np.dtype(np.uint8), 1
    error: Exception = OSError("no route to host")

    def __getitem__(self, key):
        raise self.error


@pytest.mark.parametrize(
    ("error", "pauses"), [(OSError("no route to host"), 2), (RuntimeError("bad checksum"), 0)]
)
def test_only_what_may_come_back_is_waited_for_once(monkeypatch, error, pauses):
    slept = []
    monkeypatch.setattr("napari_unet.core.io.lazy_arrays.time.sleep", slept.append)
    gone = Gone()
    gone.error = error
    data = RetryingArray(gone)
    for _ in range(5):
        with pytest.raises(UnreadableError, match=str(error)):
            data[:10]
    assert len(slept) == pauses


class Patchy:
    """An image with a part that cannot be read."""

    def __init__(self, image, bad):
        self.image, self.bad = image, bad
        self.shape, self.dtype, self.ndim = image.shape, image.dtype, image.ndim

    def __getitem__(self, key):
        part = np.zeros(self.shape, bool)
        part[self.bad] = True
        if part[key].any():
            raise OSError("checksum mismatch in chunk c/0/3")
        return self.image[key]


@pytest.fixture
def _at_once(monkeypatch):
    monkeypatch.setattr("napari_unet.core.io.lazy_arrays.PAUSE", 0)


@pytest.mark.usefixtures("_at_once")
def test_a_block_that_cannot_be_read_is_left_empty(model, tmp_path):
    image, target = texture(240, 240), tmp_path / "labels.zarr"
    bad, said = Patchy(image, (slice(118, 123), slice(118, 123))), []
    result = in_blocks(
        bad, model, target, block=80,
        watch=lambda s: said.append(s) if isinstance(s, BlockDone) and s.problem else None,
    )  # fmt: skip
    (block,) = said
    assert "checksum mismatch" in block.problem
    assert block.window == (slice(80, 160), slice(80, 160))
    assert result.provenance["failed_blocks"] == [[80, 80]]
    labels, whole = result.labels[:], segment(image, model)
    assert not labels[block.window].any()
    # What cannot be read does not count in the percentiles, so they are not quite the same.
    assert ((labels > 0) == (whole > 0))[160:].mean() > 0.97
    mended = in_blocks(image, model, target, resume=True, block=80)
    assert mended.provenance["failed_blocks"] == []
    filled = mended.labels[:]
    assert filled[block.window].any()
    assert np.array_equal(filled[170:] > 0, labels[170:] > 0)
    assert leftovers(tmp_path) == ["labels.zarr"]


@pytest.mark.usefixtures("_at_once")
@pytest.mark.parametrize("way", ["planes", "joined"])
def test_a_small_frame_that_cannot_be_read_is_left_empty_alone(model, tmp_path, way):
    image, target, said = np.repeat(texture(3, 40, 30), 2, 0), tmp_path / "labels.zarr", []
    settings = PredictSettings(tile=48, survey=False, diameter=None, volumes=way)
    bad = Patchy(image, (2, slice(10, 30), slice(5, 9)))
    result = in_blocks(
        open_stack(bad, axes="ZYX"), model, target, settings=settings,
        watch=lambda s: said.append(s) if isinstance(s, BlockDone) and s.problem else None,
    )  # fmt: skip
    assert [step.index for step in said] == [(2,)]
    assert result.provenance["failed_blocks"] == [[2, 0, 0]]
    labels = result.labels[:]
    assert not labels[2].any() or way == "joined"  # a gap of one plane is bridged
    assert all(labels[z].any() for z in (0, 1, 3, 4, 5))
    whole = in_blocks(image, model, tmp_path / "whole.zarr", settings=settings).labels[:]
    mended = in_blocks(open_stack(image, axes="ZYX"), model, target, settings=settings, resume=True)
    assert mended.provenance["failed_blocks"] == []
    assert np.array_equal(mended.labels[:], whole)


def test_a_store_that_becomes_unwritable(model, tmp_path, monkeypatch, same_objects):
    from napari_unet.core.io import files

    image, target, written = texture(150, 130), tmp_path / "labels.zarr", []
    fsync = files.os.fsync

    def full(handle):
        written.append(handle)
        if len(written) > 9:
            raise OSError(28, "No space left on device")
        fsync(handle)

    with monkeypatch.context() as patch:
        patch.setattr(files.os, "fsync", full)
        with pytest.raises(OutputError, match="No space left on device"):
            in_blocks(image, model, target, block=40)
    result = in_blocks(image, model, target, resume=True)
    assert same_objects(result.labels[:], segment(image, model))


def test_a_disk_that_is_full_when_the_labels_are_written(model, tmp_path, monkeypatch):
    image, target = texture(150, 130), tmp_path / "labels.zarr"

    def full(*_):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("napari_unet.core.io.ome_zarr_labels.LabelImage.sync", full)
        with pytest.raises(OutputError, match=r"labels\.zarr cannot be written: No space left"):
            in_blocks(image, model, target, block=40)
    assert leftovers(tmp_path) == [".labels.zarr.unfinished"]
    result = in_blocks(image, model, target, block=40, resume=True)
    whole = in_blocks(image, model, tmp_path / "whole.zarr", block=40)
    assert np.array_equal(result.labels[:], whole.labels[:])


def test_a_large_virtual_stack_is_read_as_it_is_needed(model, tmp_path, monkeypatch):
    """Only what a cancelled run looked at was ever made."""
    made, image = [], texture(1024, 1024)

    def make(block_info=None):
        made.append(block_info[None]["chunk-location"])
        return image

    monkeypatch.setattr("shutil.disk_usage", lambda path: SimpleNamespace(free=1e15))
    virtual = da.map_blocks(make, chunks=((1024,) * 128, (1024,) * 128), dtype=float,
                            meta=np.zeros((0, 0)))  # fmt: skip
    assert virtual.nbytes > 1e11
    settings = PredictSettings(tile=1024, survey=False, certify=False)
    request = request_for(virtual, tmp_path / "out.zarr", block=1024, settings=settings)
    steps = segment_blocks(request, model)
    blocks = 0
    while blocks < 2:
        blocks += isinstance(next(steps), BlockDone)
    steps.close()
    assert len(set(made)) < 400


def test_a_model_that_needs_volumes_says_so(make_model, tmp_path):
    with pytest.raises(InputError, match="needs volumes"):
        in_blocks(texture(20, 20), make_model(ndim=3), tmp_path / "labels.zarr")


def test_provisional_labels_can_be_watched(model, tmp_path):
    image, target = texture(100, 90), tmp_path / "labels.zarr"
    steps = segment_blocks(request_for(image, target, block=50, preview=True), model)
    step = next(steps)
    while not isinstance(step, BlockDone):
        step = next(steps)
    folder = OutputLocation.resolve(target, None, "").unfinished
    (shown,) = open_preview(folder / "preview")
    whole = segment(image, model) > 0
    assert shown.dtype == np.uint32
    seen, wanted = shown[step.window] > 0, whole[step.window]
    assert not (seen & ~wanted).any()
    assert seen.sum() > 0.9 * wanted.sum()  # but for what is too small without its neighbours
    assert not shown[50:, :].any()
    steps.close()


def test_provisional_labels_have_the_levels_of_the_result(model, tmp_path, monkeypatch):
    monkeypatch.setattr("napari_unet.core.io.ome_zarr_labels.COARSEST", 30)
    image, target = texture(100, 90), tmp_path / "labels.zarr"
    steps = segment_blocks(request_for(image, target, block=33, preview=True), model)
    done = 0
    while done < 12:
        done += isinstance(next(steps), BlockDone)
    levels = open_preview(OutputLocation.resolve(target, None, "").unfinished / "preview")
    assert [level.shape for level in levels] == [(100, 90), (50, 45), (25, 23)]
    for number, level in enumerate(levels):
        assert level[:].any()
        assert np.array_equal(level[:], levels[0][:][:: 2**number, :: 2**number])
    steps.close()


def test_a_frame_that_cannot_be_read_at_all_is_told(model, tmp_path, monkeypatch):
    from napari_unet.core.io import lazy_arrays as guard

    class Broken:
        shape, dtype, ndim = (3, 60, 50), np.dtype(float), 3
        values = texture(3, 60, 50)

        def __getitem__(self, key):
            if 2 in range(3)[key[0]] if isinstance(key[0], slice) else key[0] == 2:
                raise OSError("the disk is gone")
            return self.values[key]

    monkeypatch.setattr(guard, "PAUSE", 0.0)
    stack = open_stack(Broken(), axes="TYX")
    options = {"settings": PredictSettings(tile=48, survey=False, diameter=None), "block": 32}
    result = in_blocks(stack, model, tmp_path / "labels.zarr", **options)
    assert len(result.provenance["failed_blocks"]) == 4
    assert {place[0] for place in result.provenance["failed_blocks"]} == {2}
    assert result.labels[0].any() and not result.labels[2].any()
