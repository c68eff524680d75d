"""A model as a bioimage.io package: valid, and the same network in each of its forms."""

from __future__ import annotations

import json
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch

from napari_unet.cli import main
from napari_unet.core.errors import ModelError, OutputError
from napari_unet.core.models.bioimageio import package_context
from napari_unet.core.tiles import receptive_field
from napari_unet.nn.inference.model import save_model
from napari_unet.nn.unet.convert import read_torchscript

pytest.importorskip("bioimageio.spec", reason="needs the extra bioimageio")
runtime = pytest.importorskip("onnxruntime", reason="needs the extra onnx")

from napari_unet.nn.exchange.bioimageio_export import export_bioimageio  # noqa: E402

CARD = {
    "licence": "MIT (weights)",
    "parent": "ab" * 32,
    "training": {"images": 3, "objects": 40, "working_diameter_px": 22.0, "data_hash": "sha256:1"},
    "metrics": {"discs": {"AP50": 0.9}},
}


@pytest.fixture(scope="module")
def kinds() -> dict[str, dict]:
    return {
        "objects": {"in_channels": 3, "card": CARD},
        "classes": {"in_channels": 1, "head": "semantic", "classes": 3},
        "volumes": {
            "ndim": 3,
            "in_channels": 2,
            "depth": 1,
            "pooling": ((1, 2, 2),),
            "kernels": ((1, 3, 3), (3, 3, 3)),
        },
    }


@pytest.fixture
def exported(make_model, kinds, tmp_path):
    """Export a tiny model; return it and the folder that its package is unpacked in."""

    def export(kind: str):
        model = make_model(name="discs", gain=4.0, **kinds[kind])
        save_model(model, "discs")
        path = export_bioimageio("discs", tmp_path / "discs.zip", authors=["Ada Lovelace"])
        with zipfile.ZipFile(path) as archive:
            archive.extractall(tmp_path / "package")
        return model, tmp_path / "package"

    return export


def described(folder: Path):
    """Load the description of an unpacked package, with all checks."""
    from bioimageio.spec import ModelDescr, load_description

    with package_context(folder):
        found = load_description(folder / "rdf.yaml")
    assert isinstance(found, ModelDescr), found.validation_summary.format()
    return found


def prepared(image: np.ndarray, low: float = 1.0, high: float = 99.8) -> np.ndarray:
    """Do what the package's preprocessing says."""
    axes = tuple(range(2, image.ndim))
    bottom = np.percentile(image, low, axes, keepdims=True)
    top = np.percentile(image, high, axes, keepdims=True)
    return np.clip((image - bottom) / (top - bottom + 1e-6), -1, 3).astype(np.float32)


def test_what_the_package_says(exported):
    model, folder = exported("objects")
    found = described(folder)
    assert found.name == "discs" and [author.name for author in found.authors] == ["Ada Lovelace"]
    assert str(found.license) == "MIT" and found.parent.id == f"napari-unet-{'ab' * 6}"
    assert "3 images, 40 objects, sha256:1" in found.training_data.description
    assert found.training_data.license is None  # it was tuned: whose images, nobody said
    sizes = [(axis.size.min, axis.size.step) for axis in found.inputs[0].axes[2:]]
    halos = [axis.halo for axis in found.outputs[0].axes[2:]]
    assert halos == list(receptive_field(model.spec))
    assert sizes == [(-(-(2 * halo + 1) // 4) * 4, 4) for halo in halos]
    steps = [operation.id for operation in found.inputs[0].preprocessing]
    assert steps == ["ensure_dtype", "scale_range", "clip", "ensure_dtype"]
    assert found.outputs[0].axes[1].channel_names == ["foreground", "distance"]
    readme = (folder / "README.md").read_text(encoding="utf-8")
    assert "22 pixels" in readme and "AP50" in readme and "## Validation" in readme
    assert json.loads((folder / "model.json").read_text())["name"] == "discs"
    assert (folder / "cover.png").read_bytes()[1:4] == b"PNG"


@pytest.mark.parametrize("kind", ["objects", "classes", "volumes"])
@torch.inference_mode()
def test_each_form_gives_the_maps_of_the_model(exported, kind):
    _, folder = exported(kind)
    described(folder)
    image, maps = np.load(folder / "test_input.npy"), np.load(folder / "test_output.npy")
    assert np.ptp(maps) > 0.05
    values = prepared(image)
    session = runtime.InferenceSession(
        str(folder / "weights.onnx"), providers=["CPUExecutionProvider"]
    )
    answers = {"onnx": session.run(None, {"input": values})[0]}
    script = read_torchscript(folder / "weights.torchscript", torch.device("cpu"))
    answers["torchscript"] = script(torch.from_numpy(values)).numpy()
    for found in answers.values():
        if kind == "classes":
            powers = np.exp(found - found.max(1, keepdims=True))
            found = powers / powers.sum(1, keepdims=True)
        assert np.abs(found - maps).max() <= 1e-4


def test_the_command(tiny_model, tmp_path, capsys):
    target = tmp_path / "tiny.zip"
    assert main(["models", "export", tiny_model, str(target), "--format", "bioimageio"]) == 0
    with zipfile.ZipFile(target) as archive:
        archive.extractall(tmp_path / "package")
    assert described(tmp_path / "package").name == "tiny U-Net"
    assert f"exported to {target}" in capsys.readouterr().out
    assert main(["models", "export", tiny_model, str(target), "--format", "bioimageio"]) == 2
    assert "exists already" in capsys.readouterr().err


class TestRefused:
    def test_other_suffix(self, tiny_model, tmp_path):
        with pytest.raises(OutputError, match=r"end in \.zip"):
            export_bioimageio(tiny_model, tmp_path / "tiny.yaml")

    def test_author_with_a_slash(self, tiny_model, tmp_path):
        with pytest.raises(ModelError, match="without a slash"):
            export_bioimageio(tiny_model, tmp_path / "tiny.zip", authors=["A/B"])

    def test_nothing_is_left_of_a_failed_one(self, tiny_model, tmp_path, monkeypatch):
        for name in ("onnx", "onnxscript"):
            monkeypatch.setitem(sys.modules, name, None)
        with pytest.raises(ModelError, match=r"pip install 'napari-unet\[onnx\]'"):
            export_bioimageio(tiny_model, tmp_path / "tiny.zip")
        assert list(tmp_path.iterdir()) == []

    def test_without_the_extra(self, tiny_model, tmp_path, monkeypatch):
        monkeypatch.setitem(sys.modules, "bioimageio.spec", None)
        with pytest.raises(ModelError, match=r"pip install 'napari-unet\[bioimageio\]'"):
            export_bioimageio(tiny_model, tmp_path / "tiny.zip")


@pytest.mark.slow
def test_passes_the_test_of_bioimageio_core(tiny_model, tmp_path):
    """In an environment of its own: bioimageio.core pins other versions than ours."""
    environment = tmp_path / "venv"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(environment)], check=True)
    binaries = environment / ("Scripts" if sys.platform == "win32" else "bin")
    sites = [path for path in sys.path if path.endswith("site-packages")]
    find = "import sysconfig; print(sysconfig.get_paths()['purelib'])"
    own = subprocess.run(
        [str(binaries / "python"), "-c", find], capture_output=True, text=True, check=True
    ).stdout.strip()
    Path(own, "zz_others.pth").write_text("\n".join(sites) + "\n", encoding="utf-8")
    packages = ["bioimageio.core", "pydantic<2.14"]  # its bioimageio.spec breaks with 2.14
    pip = [sys.executable, "-m", "pip", "--python", str(binaries / "python")]
    install = [*pip, "install", "-q", *packages]
    done = subprocess.run(install, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"bioimageio.core cannot be installed: {done.stderr[-300:]}")
    package = export_bioimageio(tiny_model, tmp_path / "tiny.zip")
    script = (
        "import sys; from bioimageio.core import test_description as test; "
        "found = test(sys.argv[1]); print(found.status); "
        "print([detail.name for detail in found.details])"
    )
    run = subprocess.run(
        [str(binaries / "python"), "-c", script, str(package)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stderr[-2000:]
    status, names = run.stdout.strip().splitlines()[-2:]
    assert status == "passed", run.stderr[-2000:]
    for form in ("onnx", "pytorch_state_dict", "torchscript"):
        assert f"Reproduce test outputs from test inputs ({form})" in names
