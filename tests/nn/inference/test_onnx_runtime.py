"""``--device onnx``: our own networks by ONNX Runtime, with equal labels."""

from __future__ import annotations

import sys

import numpy as np
import pytest
import tifffile

from napari_unet.cli import main
from napari_unet.core.errors import DeviceError
from napari_unet.core.io.label_reader import read_labels
from napari_unet.core.io.provenance import read_provenance
from napari_unet.core.io.sample_images import sample_path
from napari_unet.core.io.stack import open_stack
from napari_unet.core.settings.tasks import PredictSettings
from napari_unet.nn.inference.map_source import predict
from napari_unet.nn.inference.model import load_model, pick_device
from napari_unet.nn.inference.segment import segment

needs_runtime = pytest.mark.skipif(
    not __import__("importlib.util").util.find_spec("onnxruntime"), reason="needs the extra onnx"
)


@needs_runtime
class TestOnnx:
    @pytest.mark.slow
    def test_equal_labels_of_the_shipped_model(self):
        stack = open_stack(sample_path("fluorescence"))
        settings = PredictSettings(precision="float32", survey=False)
        wanted = segment(stack, load_model("nuclei", "cpu"), settings)
        found = segment(stack, load_model("nuclei", "onnx:cpu"), settings)
        assert wanted.max() > 50 and np.array_equal(found, wanted)

    def test_maps_of_any_size(self, tiny_model, home):
        image = np.random.default_rng(0).normal(size=(61, 83)).astype(np.float32)
        settings = PredictSettings(survey=False, tile=32)
        wanted = predict(image, load_model(tiny_model, "cpu"), settings)
        model = load_model(tiny_model, "onnx:cpu")
        assert np.abs(predict(image, model, settings) - wanted).max() < 1e-4
        (kept,) = (home / "onnx").iterdir()
        written = kept.stat().st_mtime_ns
        load_model(tiny_model, "onnx:cpu").runner()
        assert kept.stat().st_mtime_ns == written, "converted once"

    def test_command(self, tiny_model, tmp_path):
        image = (np.random.default_rng(0).random((70, 50)) * 900).astype(np.uint16)
        tifffile.imwrite(tmp_path / "image.tif", image)
        for device in ("cpu", "onnx:cpu"):
            out = tmp_path / f"{device[:4]}.tif"
            command = ["segment", str(tmp_path / "image.tif"), str(out), "--model", tiny_model]
            assert main([*command, "--device", device, "--precision", "float32"]) == 0
        assert read_provenance(tmp_path / "onnx.tif")["device"] == "onnx:cpu"
        assert np.array_equal(read_labels(tmp_path / "onnx.tif"), read_labels(tmp_path / "cpu.tif"))

    def test_a_provider_that_is_not_there(self, tiny_model):
        with pytest.raises(DeviceError, match=r"'onnx:tpu' .* use one of: onnx, onnx:cpu"):
            load_model(tiny_model, "onnx:tpu")

    def test_clicks_have_their_features(self, clicking_model, tmp_path):
        from napari_unet.core.prompts.clicks import Click
        from napari_unet.nn.inference.model import save_model
        from napari_unet.nn.interactive.session import ClickSession

        folder = save_model(clicking_model(), tmp_path / "clicking")
        image = np.zeros((64, 64), np.float32)
        image[20:40, 20:40] = 1
        masks = []
        for device in ("cpu", "onnx:cpu"):
            session = ClickSession(load_model(folder, device), image)
            masks.append(session.add(Click((30, 30), positive=True)))
        assert masks[0].any() and np.array_equal(*masks)


def test_it_does_not_train():
    with pytest.raises(DeviceError, match="runs models, it does not train them"):
        pick_device("onnx")


def test_without_the_extra(tiny_model, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(DeviceError, match=r"pip install 'napari-unet\[onnx\]'"):
        load_model(tiny_model, "onnx")
