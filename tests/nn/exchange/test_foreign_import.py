"""Networks that others built: imported as they come, run tile by tile, or refused in one line."""

from __future__ import annotations

import zipfile

import numpy as np
import pytest
from package_parts import make_old_package, make_package, write_onnx_net, write_script_net

from napari_unet.cli import main
from napari_unet.core.errors import InputError, ModelError, SettingsError
from napari_unet.core.io.label_reader import read_labels
from napari_unet.core.io.stack import open_stack
from napari_unet.core.models import package_files
from napari_unet.core.models.store import find_model, list_models
from napari_unet.core.progress import run_to_end
from napari_unet.core.settings.tasks import PredictSettings
from napari_unet.core.settings.weight_options import WeightOptions
from napari_unet.nn.inference.map_source import predict
from napari_unet.nn.inference.model import load_model, save_model
from napari_unet.nn.inference.segment import segment, segment_steps

pytest.importorskip("bioimageio.spec", reason="needs the extra bioimageio")
runtime = pytest.importorskip("onnxruntime", reason="needs the extra onnx")

from napari_unet.nn.exchange.foreign_import import import_foreign  # noqa: E402

TILES = PredictSettings(tile=16, survey=False)
WHOLE = PredictSettings(tile=512, survey=False)

# bioimageio.spec leaves files open; with our own calls of it that is mended
pytestmark = pytest.mark.filterwarnings("ignore:unclosed file:ResourceWarning")


def trusting(question: str) -> bool:
    assert "TorchScript" in question
    return True


def discs(shape=(75, 93), count=9, seed=0) -> np.ndarray:
    """Bright discs or balls that do not touch, on a grid, float32 from 0 to 1."""
    image = np.zeros(shape, np.float32)
    step = 24
    grid = np.indices(shape)
    for centre in np.ndindex(*[n // step for n in shape]):
        middle = [step * c + step // 2 for c in centre]
        distance = sum((g - m) ** 2 for g, m in zip(grid, middle, strict=True))
        image[distance < 8**2] = 1
    return image


@pytest.fixture
def package(tmp_path):
    """Make a package with an ONNX network: options of the network, then those of the package."""

    def make(net: dict | None = None, **options):
        weights = tmp_path / "weights.onnx"
        write_onnx_net(weights, **(net or {}))
        return make_package(tmp_path / "package", weights, **options)

    return make


def direct(path, image: np.ndarray) -> np.ndarray:
    """Run an ONNX file on an input as it is."""
    session = runtime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return session.run(None, {session.get_inputs()[0].name: image})[0]


KINDS = {
    "planes": ({}, {}, (75, 93)),
    "pooled": ({"pooled": (4, 4)}, {"sizes": {"y": (32, 4), "x": (16, 4)}}, (75, 93)),
    "volumes": ({"ndim": 3, "axes": "bczyx"}, {"axes": "bczyx"}, (27, 45, 53)),
    "anisotropic": (
        {"ndim": 3, "axes": "bczyx", "pooled": (1, 4, 4)},
        {"axes": "bczyx", "sizes": {"z": (8, 1), "y": (8, 4), "x": (8, 4)}},
        (25, 45, 53),
    ),
    "one size": ({"size": 64}, {"sizes": {"y": 64, "x": 64}}, (75, 150)),
    "one size, pooled": (
        {"size": 64, "pooled": (4, 4)},
        {"sizes": {"y": 64, "x": 64}, "halo": 7},
        (75, 150),
    ),
    "channels last": ({"axes": "byxc"}, {"axes": "byxc"}, (75, 93)),
    "no batch": ({"axes": "cyx"}, {"axes": "cyx"}, (75, 93)),
}


@pytest.mark.parametrize("kind", KINDS)
def test_tiles_give_what_the_network_gives(kind, package, tmp_path):
    net, options, shape = KINDS[kind]
    entry = import_foreign(package(net, **options))
    assert entry.name == "discs of others" and entry.card.licence == "MIT"
    model, image = load_model(entry.name), discs(shape)
    assert model.spec.meaning == "objects" and str(model.engine) == "onnx:cpu"
    tiled, whole = predict(image, model, TILES), predict(image, model, WHOLE)
    np.testing.assert_allclose(tiled, whole, atol=1e-6)
    axes = options.get("axes", "bcyx")
    size = net.get("size")
    edges = [size or 8 * (n // 8) for n in shape]
    part = image[tuple(slice(0, n) for n in edges)]
    letters = [x for x in axes if x in "bcyxz"]
    own = "bc" + "zyx"[-len(shape) :]
    values = part[None, None]
    given = values[tuple(0 if x not in axes else slice(None) for x in own)]
    left = [x for x in own if x in axes]
    found = direct(tmp_path / "weights.onnx", given.transpose([left.index(x) for x in letters]))
    found = found.transpose([letters.index(x) for x in left])
    found = found if "b" not in left else found[0]
    inner = tuple(slice(12, n - 12) if n > 40 else slice(3, n - 3) for n in edges)
    if "one size" in kind:  # its border lies elsewhere than that of the image
        inner = tuple(slice(12, 50) for _ in edges)
    np.testing.assert_allclose(
        whole[0][inner], found[0][inner], atol=1e-5, err_msg="foreground, far from the border"
    )


@pytest.mark.parametrize("kind", ["planes", "pooled", "volumes", "one size", "channels last"])
def test_objects_are_divided_by_their_boundary(kind, package):
    net, options, shape = KINDS[kind]
    import_foreign(package(net, **options), "others")
    image = discs(shape)
    labels = segment(image, load_model("others"), TILES)
    assert labels.max() == np.prod([n // 24 for n in shape if n >= 24])
    assert ((labels > 0) == (image > 0)).mean() > 0.9


def test_touching_objects_are_divided_where_their_boundary_is(package):
    import_foreign(package(), "others")
    model = load_model("others")
    maps = np.zeros((1, 2, 48, 48), np.float32)
    maps[0, 0, 8:40, 4:44] = 0.95
    maps[0, 1, 8:40, 22:26] = 0.9
    model.net.run = lambda values: [maps]
    labels = segment(discs((48, 48)), model, WHOLE)
    assert labels.max() == 2 and (labels[8:40, 4:44] > 0).all()
    assert labels[20, 10] != labels[20, 40]


def test_old_specification(tmp_path):
    weights = tmp_path / "weights.onnx"
    write_onnx_net(weights)
    image = (discs((64, 72)) * 900 + 100)[None, None].astype(np.float32)
    wanted = direct(weights, (image - image.mean()) / (image.std() + 1e-6))
    path = make_old_package(tmp_path / "old", weights, (image, wanted))
    entry = import_foreign(path)
    assert entry.card.training["test"] == "passed its own test"
    model = load_model(entry.name)
    assert (model.spec.minimum, model.spec.step, model.spec.halo) == ((16, 16), (8, 8), (3, 3))
    assert model.spec.meaning == "objects", "the description names foreground and boundary"
    found = predict(image[0, 0], model, WHOLE)
    np.testing.assert_allclose(found[0][8:-8, 8:-8], wanted[0, 0][8:-8, 8:-8], atol=1e-4)


def test_torchscript_runs_when_trusted(tmp_path):
    weights = tmp_path / "weights.torchscript"
    write_script_net(weights)
    path = make_package(tmp_path / "package", weights)
    with pytest.raises(ModelError, match="import it with --trust"):
        import_foreign(path)
    with pytest.raises(ModelError, match="a program that runs with your rights"):
        import_foreign(path, ask=lambda question: False)
    assert [entry.name for entry in list_models() if not entry.bundled] == []
    model = load_model(import_foreign(path, ask=trusting).name, "cpu")
    image = discs()
    np.testing.assert_allclose(
        predict(image, model, TILES), predict(image, model, WHOLE), atol=1e-6
    )
    assert segment(image, model, TILES).max() == 9


def test_network_that_crops_its_output(tmp_path):
    weights = tmp_path / "weights.torchscript"
    write_script_net(weights, pooled=False, shrink=2)
    path = make_package(tmp_path / "package", weights, halo=0, shrink=2)
    model = load_model(import_foreign(path, ask=trusting).name, "cpu")
    assert model.spec.shrink == (2, 2) and model.spec.reach == (2, 2)
    image = discs()
    tiled, whole = predict(image, model, TILES), predict(image, model, WHOLE)
    assert tiled.shape[1:] == image.shape
    np.testing.assert_allclose(tiled, whole, atol=1e-6)
    assert segment(image, model, TILES).max() == 9


def test_operations_of_the_specification(package, tmp_path):
    """Percentiles, clipping, scaling and their like; statistics are of the frame, not the tile."""

    def before(spec):
        y, x = spec.AxisId("y"), spec.AxisId("x")
        return [
            spec.ScaleLinearDescr(kwargs=spec.ScaleLinearKwargs(gain=0.5, offset=3.0)),
            spec.ClipDescr(kwargs=spec.ClipKwargs(min=10.0, max=400.0)),
            spec.ScaleRangeDescr(
                kwargs=spec.ScaleRangeKwargs(axes=[y, x], min_percentile=2, max_percentile=98)
            ),
            spec.ZeroMeanUnitVarianceDescr(
                kwargs=spec.ZeroMeanUnitVarianceKwargs(axes=[spec.AxisId("channel"), y, x])
            ),
            spec.FixedZeroMeanUnitVarianceDescr(
                kwargs=spec.FixedZeroMeanUnitVarianceKwargs(mean=-0.5, std=2.0)
            ),
        ]

    def after(spec):
        return [
            spec.ScaleLinearDescr(kwargs=spec.ScaleLinearKwargs(gain=2.0, offset=-0.5)),
            spec.ClipDescr(kwargs=spec.ClipKwargs(min=0.0, max=1.0)),
        ]

    rng = np.random.default_rng(3)
    image = (discs() * 700 + rng.normal(100, 20, (75, 93))).astype(np.float32)
    model = load_model(import_foreign(package(preprocessing=before, postprocessing=after)).name)
    value = np.clip(image * 0.5 + 3, 10, 400)
    low, high = np.percentile(value, (2, 98))
    value = (value - low) / (high - low + 1e-6)
    value = (value - value.mean()) / (value.std() + 1e-6)
    value = ((value + 0.5) / 2.0).astype(np.float32)
    padded = np.pad(value, [(0, 5), (0, 3)], mode="symmetric")
    raw = direct(tmp_path / "weights.onnx", padded[None, None])[0][:, :75, :93]
    wanted = np.clip(raw * 2 - 0.5, 0, 1)
    np.testing.assert_allclose(predict(image, model, TILES)[0], wanted[0], atol=2e-5)
    np.testing.assert_allclose(predict(image, model, WHOLE)[0], wanted[0], atol=2e-5)


class TestMeanings:
    def test_classes(self, package):
        def softmax(spec):
            return [spec.SoftmaxDescr(kwargs=spec.SoftmaxKwargs(axis=spec.AxisId("channel")))]

        import_foreign(package(names=("sky", "sea"), postprocessing=softmax), "others")
        model, image = load_model("others"), discs()
        maps = predict(image, model, TILES)
        np.testing.assert_allclose(maps.sum(0), 1, atol=1e-5)
        assert np.array_equal(segment(image, model, TILES), maps.argmax(0))

    def test_image(self, package):
        import_foreign(package(names=("red", "green")), "others")
        model, image = load_model("others"), discs()
        assert model.spec.meaning == "image"
        maps = predict(image, model, TILES)
        assert maps.shape == (2, *image.shape) and 0 <= maps.min() and maps.max() <= 1
        with pytest.raises(ModelError, match="gives images, not labels"):
            segment(image, model, TILES)

    def test_the_user_knows_better(self, package):
        options = WeightOptions(boundary=1)
        entry = import_foreign(package(names=("red", "green")), options=options)
        assert segment(discs(), load_model(entry.name), TILES).max() == 9
        with pytest.raises(SettingsError, match="has 2 channels"):
            import_foreign(package(names=("a", "b")), "more", options=WeightOptions(distance=7))


class TestPlainWeights:
    def test_onnx(self, tmp_path):
        path = tmp_path / "mine.onnx"
        write_onnx_net(path)
        options = WeightOptions(normalise="range", halo=3, multiple=4, boundary=1)
        entry = import_foreign(path, options=options)
        assert entry.name == "mine" and entry.card.training["source"] == "mine.onnx"
        assert segment(discs() * 50 + 7, load_model("mine"), TILES).max() == 9

    def test_weights_in_further_files(self, tmp_path):
        import onnx

        path = tmp_path / "mine.onnx"
        write_onnx_net(path)
        place = {"save_as_external_data": True, "location": "further.data", "size_threshold": 0}
        onnx.save(onnx.load(path), path, **place)
        with pytest.raises(ModelError, match=r"further files \(further\.data\), .* as one file"):
            import_foreign(path)

    def test_torchscript(self, tmp_path):
        path = tmp_path / "mine.pt"
        write_script_net(path)
        import_foreign(path, ask=trusting, options=WeightOptions(decode="objects"))
        assert segment(discs(), load_model("mine", "cpu"), TILES).max() == 9

    def test_command(self, tmp_path, capsys):
        path, image = tmp_path / "mine.pt", tmp_path / "image.tif"
        write_script_net(path)
        import tifffile

        tifffile.imwrite(image, (discs() * 1000).astype(np.uint16))
        command = ["models", "import", str(path), "--decode", "objects", "--boundary", "1"]
        assert main(command) == 2
        assert "--trust" in capsys.readouterr().err
        assert main([*command, "--trust", "--name", "theirs"]) == 0
        assert "theirs: imported" in capsys.readouterr().out
        assert main(["models", "list"]) == 0
        assert "2D instance, by others" in capsys.readouterr().out
        assert main(["models", "show", "theirs"]) == 0
        assert "network.boundary 1" in capsys.readouterr().out
        labels = tmp_path / "labels.tif"
        assert (
            main(["segment", str(image), str(labels), "--model", "theirs", "--device", "cpu"]) == 0
        )
        assert read_labels(labels).max() == 9

    def test_a_folder_from_somebody_else_is_not_run_unasked(self, tmp_path, home, capsys):
        path = tmp_path / "mine.pt"
        write_script_net(path)
        import_foreign(path, ask=trusting, options=WeightOptions(decode="objects"))
        (home / "trusted_torchscript.txt").unlink()  # as on another computer
        with pytest.raises(ModelError, match="say so once: napari-unet models trust 'mine'"):
            load_model("mine", "cpu")
        assert main(["models", "trust", "mine"]) == 0
        assert load_model("mine", "cpu").is_foreign
        assert main(["models", "export", "mine", str(tmp_path / "mine.zip")]) == 2
        assert "pass on the package that it came from" in capsys.readouterr().err

    def test_state_dict_is_not_opened(self, tmp_path):
        import torch

        torch.save({"weight": torch.zeros(2)}, tmp_path / "weights.pt")
        with pytest.raises(ModelError, match="not opened, as a pickle could do anything"):
            import_foreign(tmp_path / "weights.pt", ask=trusting)


def test_blocks_on_the_disk_give_the_labels_of_one_piece(package, tmp_path, same_objects):
    import_foreign(package(KINDS["pooled"][0], **KINDS["pooled"][1]), "others")
    image = discs((150, 170))
    np.save(tmp_path / "x.npy", image)
    import tifffile

    tifffile.imwrite(tmp_path / "image.tif", image)
    command = ["segment", str(tmp_path / "image.tif"), str(tmp_path / "labels.zarr")]
    assert main([*command, "--model", "others", "--block", "64", "--no-survey"]) == 0
    wanted = segment(image, load_model("others"), PredictSettings(survey=False))
    assert same_objects(read_labels(tmp_path / "labels.zarr"), wanted)


def test_provenance_and_seams(package):
    import_foreign(package(), "others")
    result = run_to_end(segment_steps(open_stack(discs()), load_model("others"), TILES))
    assert result.provenance["device"] == "onnx:cpu" and result.provenance["seam"] < 1e-4
    assert result.provenance["model_hash"] == load_model("others").card.hash


def test_it_cannot_be_tuned_or_clicked(package):
    from napari_unet.nn.interactive.session import ClickSession

    import_foreign(package(), "others")
    model = load_model("others")
    with pytest.raises(ModelError, match="no click head"):
        ClickSession(model, discs())
    with pytest.raises(ModelError, match="built by others"):
        save_model(model, "copy")


class TestRoundTrip:
    @pytest.fixture
    def ours(self, make_model, tmp_path):
        from napari_unet.nn.exchange.bioimageio_export import export_bioimageio

        model = make_model(gain=6.0, name="ours", in_channels=1, card={"decode": {"min_size": 0}})
        save_model(model, "ours")
        return export_bioimageio("ours", tmp_path / "ours.zip")

    def test_our_own_comes_back_exactly(self, ours):
        entry = import_foreign(ours, "back")
        assert (find_model("back") / "model.safetensors").read_bytes() == (
            find_model("ours") / "model.safetensors"
        ).read_bytes()
        assert entry.card.hash == load_model("ours").card.hash

    @pytest.mark.parametrize("form", ["onnx", "torchscript"])
    def test_as_a_network_of_others_it_gives_equal_labels(self, ours, form, tmp_path, monkeypatch):
        with zipfile.ZipFile(ours) as archive:
            archive.extractall(tmp_path / "package")
        (tmp_path / "package" / "model.safetensors").unlink()
        if form == "torchscript":
            monkeypatch.setattr(
                "napari_unet.nn.exchange.foreign_import._has_runtime", lambda: False
            )
        import_foreign(tmp_path / "package", "back", ask=trusting)
        back, model = load_model("back", "cpu"), load_model("ours", "cpu")
        rng = np.random.default_rng(0)
        image = (discs((300, 310)) * 800 + rng.normal(100, 30, (300, 310))).astype(np.float32)
        settings = PredictSettings(survey=False, threshold=0.5, merge=0.2, min_size=0)
        found, wanted = segment(image, back, settings), segment(image, model, settings)
        assert wanted.max() > 20 and np.array_equal(found, wanted)


class TestRefused:
    def rewritten(self, path, tmp_path, change):
        """Unpack a package, change it, and return its folder."""
        folder = tmp_path / "changed"
        with zipfile.ZipFile(path) as archive:
            archive.extractall(folder)
        change(folder)
        return folder

    def edited(self, path, tmp_path, old: str, new: str):
        def change(folder):
            text = (folder / "rdf.yaml").read_text(encoding="utf-8")
            assert old in text
            (folder / "rdf.yaml").write_text(text.replace(old, new), encoding="utf-8")

        return self.rewritten(path, tmp_path, change)

    def test_missing_weights(self, package, tmp_path):
        folder = self.rewritten(package(), tmp_path, lambda f: (f / "weights.onnx").unlink())
        with pytest.raises(ModelError, match=r"lacks weights\.onnx; download"):
            import_foreign(folder)

    def test_wrong_checksum(self, package, tmp_path):
        def spoil(folder):
            (folder / "weights.onnx").write_bytes(b"something else")

        with pytest.raises(ModelError, match=r"SHA-256 differs"):
            import_foreign(self.rewritten(package(), tmp_path, spoil))

    def test_unknown_operation(self, package, tmp_path):
        def before(spec):
            return [spec.ScaleLinearDescr(kwargs=spec.ScaleLinearKwargs(gain=0.5))]

        folder = self.edited(package(preprocessing=before), tmp_path, "scale_linear", "deconvolve")
        with pytest.raises(ModelError, match=r"no valid description.*preprocessing") as caught:
            import_foreign(folder)
        assert "\n" not in str(caught.value)

    def test_operation_that_tiles_cannot_do(self, package):
        def after(spec):
            return [spec.ScaleRangeDescr()]

        with pytest.raises(ModelError, match=r"'scale_range' cannot be done tile by tile"):
            import_foreign(package(postprocessing=after))

    def test_specification_of_the_future(self, package, tmp_path):
        folder = self.edited(package(), tmp_path, "format_version: 0.5", "format_version: 0.7")
        with pytest.raises(ModelError, match=r"version 0\.7\.\d+ .* update napari-unet"):
            import_foreign(folder)

    def test_data_set(self, package, tmp_path):
        folder = self.edited(package(), tmp_path, "type: model", "type: dataset")
        with pytest.raises(ModelError, match="is a dataset, not a model"):
            import_foreign(folder)

    def test_weights_elsewhere(self, package, tmp_path):
        folder = self.edited(
            package(), tmp_path, "source: weights.onnx", "source: https://example.com/weights.onnx"
        )
        with pytest.raises(ModelError, match=r"lie at https://example\.com/.* are not fetched"):
            import_foreign(folder)

    def test_weights_outside_the_package(self, package, tmp_path):
        (tmp_path / "secret.onnx").write_bytes(b"x")
        folder = self.edited(package(), tmp_path, "source: weights.onnx", "source: ../secret.onnx")
        with pytest.raises(ModelError):
            import_foreign(folder)

    def test_its_own_test_fails(self, package, capsys):
        image = np.random.default_rng(1).random((1, 1, 32, 32), np.float32)
        path = package(test=(image, np.random.default_rng(0).random((1, 2, 32, 32), np.float32)))
        with pytest.raises(ModelError, match=r"fails its own test: \d+% .*--anyway"):
            import_foreign(path)
        assert main(["models", "import", str(path), "--anyway", "--name", "marked"]) == 0
        assert "warning: failed, imported anyway" in capsys.readouterr().err
        assert "failed" in list_models()[-1].card.training["test"]

    def test_too_large(self, package, tmp_path):
        def grow(folder):
            with (folder / "weights.onnx").open("r+b") as file:
                file.truncate(10 << 30)  # takes no place on the disk

        with pytest.raises(ModelError, match=r"weights\.onnx is larger .* \(4 GB\)"):
            import_foreign(self.rewritten(package(), tmp_path, grow))

    def test_archive_larger_than_it_says(self, package, monkeypatch):
        monkeypatch.setattr(package_files, "LARGEST", 100)
        with pytest.raises(ModelError, match="is larger than a model's may be"):
            import_foreign(package())

    def test_names_with_slashes(self, package, tmp_path):
        with pytest.raises(ModelError, match="cannot be named 'a/b'"):
            import_foreign(package(), "a/b")
        with zipfile.ZipFile(tmp_path / "evil.zip", "w") as archive:
            archive.writestr("../rdf.yaml", "x")
        with pytest.raises(ModelError, match=r"it holds '\.\./rdf\.yaml'"):
            import_foreign(tmp_path / "evil.zip")

    def test_damaged_files(self, package, tmp_path):
        (tmp_path / "cut.zip").write_bytes(package().read_bytes()[:500])
        (tmp_path / "bad.onnx").write_bytes(b"no network")
        (tmp_path / "empty").mkdir()
        (tmp_path / "empty" / "rdf.yaml").write_text("{[", encoding="utf-8")
        for name, reason in {
            "cut.zip": "cannot be unpacked",
            "bad.onnx": "cannot be run as ONNX",
            "empty": "no readable YAML",
        }.items():
            with pytest.raises(ModelError, match=reason):
                import_foreign(tmp_path / name)
        with pytest.raises(InputError, match="does not exist"):
            import_foreign(tmp_path / "nothing.onnx")

    def test_nothing_is_left_behind(self, package, home, tmp_path):
        with pytest.raises(ModelError):
            import_foreign(self.edited(package(), tmp_path, "type: model", "type: dataset"))
        assert list((home / "models").iterdir()) == []

    def test_title_that_is_taken_gets_a_number(self, package):
        assert import_foreign(package()).name == "discs of others"
        assert import_foreign(package()).name == "discs of others 2"


def test_a_package_is_fetched_by_its_address(package, tmp_path):
    import threading
    from functools import partial
    from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *_):
            pass

    path = package()
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=tmp_path)) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        root = f"http://127.0.0.1:{server.server_port}"
        assert import_foreign(f"{root}/{path.name}").name == "discs of others"
        with pytest.raises(InputError, match=r"cannot be fetched \(.*ot found"):
            import_foreign(f"{root}/nothing.zip")
        server.shutdown()
