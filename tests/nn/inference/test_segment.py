"""A stack becomes labels: the same for all tilings, whole or cancelled, with a provenance."""

from __future__ import annotations

import json

import dask.array as da
import numpy as np
import pytest
from scipy import ndimage

from napari_unet.core.errors import InputError
from napari_unet.core.io.stack import open_stack
from napari_unet.core.progress import FrameDone, TileDone, run_to_end
from napari_unet.core.settings.tasks import PredictSettings
from napari_unet.core.volumes.volume_mode import ball_voxels
from napari_unet.nn.inference.map_source import predict
from napari_unet.nn.inference.runner import Runner
from napari_unet.nn.inference.segment import segment, segment_steps
from napari_unet.nn.inference.segment_window import segment_window

RNG = np.random.default_rng(0)


def texture(*shape):
    """Return a smooth random image, in which an untrained network finds objects of its own."""
    return ndimage.gaussian_filter(RNG.normal(size=shape), 2.5)


@pytest.fixture
def model(make_model):
    return make_model(gain=6.0, card={"decode": {"min_size": 0}})


@pytest.mark.parametrize("tile", [16, 40, 128])
@pytest.mark.parametrize("shape", [(211, 173), (128, 300)])
def test_labels_do_not_depend_on_the_tile(model, tile, shape):
    image = texture(*shape)
    whole = segment(image, model, PredictSettings(tile=16384))
    assert whole.max() > 20
    assert np.array_equal(segment(image, model, PredictSettings(tile=tile)), whole)


def test_labels_do_not_depend_on_the_tile_in_3d(make_model):
    model, image = make_model(gain=6.0, ndim=3), texture(20, 45, 39)
    whole = segment(image, model, PredictSettings(tile=16384))
    assert whole.max() > 5
    assert np.array_equal(segment(image, model, PredictSettings(tile=16)), whole)


def test_a_2d_model_takes_a_stack_plane_by_plane(model):
    image = texture(2, 3, 50, 60)
    labels = segment(image, model, PredictSettings(volumes="planes"))
    assert labels.shape == (2, 3, 50, 60)
    assert labels.dtype == np.uint16
    for t, z in np.ndindex(2, 3):
        assert np.array_equal(labels[t, z], segment(image[t, z], model))


def test_channels_last_and_lazy_arrays_give_the_same(model):
    image = texture(2, 40, 50)
    lazy = da.from_array(image, chunks=(1, 16, 16))
    assert np.array_equal(segment(lazy, model), segment(image, model))


def test_reports_cover_the_image_and_count(model):
    steps = segment_steps(texture(100, 90), model, PredictSettings(tile=48), preview=True)
    seen, tiles, frames = np.zeros((100, 90), int), [], []
    result = run_to_end(steps, lambda s: (tiles if isinstance(s, TileDone) else frames).append(s))
    for step in tiles:
        seen[step.window] += 1
        assert step.labels.dtype == np.uint16
        assert step.labels.shape == seen[step.window].shape
    assert (seen == 1).all()
    assert [t.done for t in tiles] == list(range(1, len(tiles) + 1))
    assert {t.total for t in tiles} == {len(tiles)}
    assert [f.objects for f in frames] == [result.objects] == [result.labels.max()]


def test_previews_show_what_the_tile_alone_knows(model):
    image = texture(64, 64)
    steps = segment_steps(image, model, preview=True)
    tile = next(s for s in steps if isinstance(s, TileDone))
    assert np.array_equal(tile.labels > 0, segment(image, model) > 0)


def test_cancelling_keeps_the_finished_tiles(model):
    image = texture(128, 128)
    whole = segment(image, model)
    out = np.zeros((128, 128), np.uint32)
    steps = segment_steps(image, model, PredictSettings(tile=64), out=out)
    done = [next(steps), next(steps)]
    steps.close()
    kept = np.zeros((128, 128), bool)
    for step in done:
        kept[step.window] = True
    assert np.array_equal(out > 0, (whole > 0) & kept)
    assert out.max() < 65535  # labels, not provisional ids


def test_a_window_leaves_the_rest_alone(model):
    image = texture(90, 90)
    window = (slice(13, 57), slice(30, 90))
    result = run_to_end(segment_steps(image, model, window=window))
    whole = segment(image, model)
    inside = np.zeros((90, 90), bool)
    inside[window] = True
    assert np.array_equal(result.labels > 0, (whole > 0) & inside)


@pytest.mark.parametrize("volumes", ["planes", "joined"])
def test_a_window_alone_has_the_objects_that_it_has_in_the_image(make_model, same_objects, volumes):
    stack, window = open_stack(texture(3, 90, 90)), (slice(13, 57), slice(30, 90))
    for ndim, index, place in ((2, (1,), window), (3, (), (slice(1, 3), *window))):
        model = make_model(gain=6.0, ndim=ndim, card={"decode": {"min_size": 0}})
        settings = PredictSettings(volumes=volumes, min_size=0)
        steps = segment_steps(stack, model, settings, what=[index], window=place)
        whole = run_to_end(steps).labels[(*index, *place)]
        alone = run_to_end(segment_window(stack, model, settings, index, place))
        assert whole.any() and same_objects(alone, whole)


def test_only_the_frames_asked_for(model):
    image = texture(4, 40, 40)
    steps = segment_steps(image, model, PredictSettings(volumes="planes"), what=[(2,), (0,)])
    frames = []
    result = run_to_end(
        steps, lambda s: frames.append(s.index) if isinstance(s, FrameDone) else None
    )
    assert frames == [(2,), (0,)]
    assert not result.labels[[1, 3]].any()


def test_the_provenance_says_how(model):
    result = run_to_end(segment_steps(texture(200, 120), model, PredictSettings(tile=64)))
    provenance = json.loads(json.dumps(result.provenance))
    assert provenance["model"] == "tiny"
    assert provenance["settings"]["tile"] == 64
    assert provenance["precision"] == "float32"
    assert provenance["seam"] <= 1e-4
    assert provenance["data_hash"].startswith("sha256:")
    assert provenance["objects"] == result.objects > 0


def test_the_certificate_notices_a_seam(model, monkeypatch):
    """Tiles that read too little must not be certified."""
    from napari_unet.nn.inference import tile_runner as predict

    image = texture(160, 160)
    right = predict.tile_halo

    def short(spec, margin=0):
        return tuple(h - 8 for h in right(spec, margin))

    steps = segment_steps(image, model, PredictSettings(tile=32))
    tiles_cut = []

    def watch(step):
        tiles_cut.append(step)

    with monkeypatch.context() as patch:
        patch.setattr(predict, "tile_halo", short)
        watch(next(steps))  # the tiles are planned now, with the short halo
    result = run_to_end(steps, watch)
    assert len(tiles_cut) > 4
    assert result.provenance["seam"] > 1e-3


def test_classes_are_labels(make_model):
    model = make_model(gain=6.0, head="semantic", classes=3)
    image = texture(70, 50)
    labels = segment(image, model, PredictSettings(tile=32))
    assert set(np.unique(labels)) <= {0, 1, 2}
    assert np.array_equal(labels, segment(image, model))


@pytest.mark.parametrize("value", [0, 5, np.nan, np.inf])
@pytest.mark.parametrize("shape", [(40, 50), (1, 1), (0, 7), (2, 9, 9)])
@pytest.mark.filterwarnings("ignore:.*NaN or infinity")
def test_images_without_content_have_no_objects(make_model, value, shape):
    model = make_model()
    model.net.head.bias.data[0] = 9  # a network that sees foreground everywhere
    image = np.full(shape, value, np.float32)
    assert not segment(image, model).any()
    assert not predict(image, model).any()


def test_nan_is_background_with_one_warning(model):
    image = texture(60, 60)
    image[20:30, 20:30] = np.nan
    image[40, 40] = np.inf
    with pytest.warns(UserWarning, match="NaN or infinity") as seen:
        labels = segment(image, model, PredictSettings(tile=16))
    assert len(seen) == 1
    assert labels.shape == (60, 60)


def test_an_output_that_does_not_fit_is_refused(model):
    with pytest.raises(InputError, match="give uint32"):
        run_to_end(segment_steps(texture(20, 20), model, out=np.zeros((20, 21), np.uint32)))


def test_the_certificate_does_without_when_memory_is_short(model, monkeypatch):
    """At the very end nothing that is finished may be lost."""
    from napari_unet.nn.inference.tile_runner import TileRunner

    def short(runner, tile):
        raise MemoryError

    monkeypatch.setattr(TileRunner, "run_tile", short)
    result = run_to_end(segment_steps(texture(60, 60), model, PredictSettings(tile=16)))
    assert result.provenance["seam"] is None
    assert result.objects > 0


def test_one_tile_has_no_seams_and_is_not_predicted_twice(model, monkeypatch):
    passes = []
    run = Runner.__call__
    monkeypatch.setattr(Runner, "__call__", lambda *args: passes.append(args) or run(*args))
    result = run_to_end(segment_steps(texture(60, 60), model))
    assert result.provenance["seam"] == 0.0
    assert len(passes) == 1
    unchecked = run_to_end(segment_steps(texture(60, 60), model, PredictSettings(certify=False)))
    assert unchecked.provenance["seam"] is None


def test_a_stack_without_frames_has_a_whole_provenance(model):
    provenance = run_to_end(segment_steps(np.zeros((0, 9, 9), np.uint8), model)).provenance
    assert {"device", "precision", "tile", "seam", "objects", "mpx_per_s"} <= set(provenance)


@pytest.mark.parametrize("volumes", ["auto", "joined", "orthogonal"])
def test_what_is_small_in_one_plane_of_a_volume_is_not_dropped(make_model, same_objects, volumes):
    stack, place = open_stack(texture(3, 60, 60)), (slice(0, 60), slice(0, 60))
    model = make_model(gain=6.0, card={"decode": {"min_size": 30}})
    planes = PredictSettings(volumes="planes")
    plane = run_to_end(segment_window(stack, model, planes, (1,), place))
    smallest = np.unique(plane, return_counts=True)[1].min()
    assert smallest < ball_voxels(30, 1.0), "less than the smallest object of several planes"
    settings = PredictSettings(volumes=volumes)
    assert same_objects(run_to_end(segment_window(stack, model, settings, (1,), place)), plane)
    if volumes != "orthogonal":  # that one takes volumes
        steps = segment_steps(stack, model, settings, what=[(1,)])
        assert same_objects(run_to_end(steps).labels[1], plane)
