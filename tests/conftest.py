"""What every test stands on: a home of its own, the data beside the checkout, a display or none."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]

# Before torch and numpy's BLAS are loaded. The tests' networks are tiny: a second thread gains them
# nothing, and costs minutes where other work holds the second core.
os.environ.setdefault("OMP_NUM_THREADS", "1")
# napari's test fixtures reset the settings; the user's own must not be what they reset.
os.environ["NAPARI_CONFIG"] = str(
    Path(tempfile.mkdtemp(prefix="napari-unet-tests-"), "napari.yaml")
)


def has_display() -> bool:
    """Tell whether a real window can open: "offscreen" has no OpenGL, so napari cannot draw."""
    if os.environ.get("QT_QPA_PLATFORM") in {"offscreen", "minimal"}:
        return False
    if sys.platform != "linux":
        return True
    return bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--fuzz",
        type=int,
        metavar="N",
        help="try N files of each kind in tests/fuzz, instead of some hundred",
    )
    parser.addoption(
        "--fuzz-counts",
        metavar="FILE",
        help="keep the counts of tests/fuzz in a file, and go on from there (not on Windows)",
    )


def pytest_sessionstart(session: pytest.Session) -> None:
    # pytest-xvfb has set DISPLAY by now, where there is an Xvfb. Without one, widgets that need no
    # OpenGL can still be tested. With pytest-xdist each worker has a display of its own, and the
    # process that starts them has none: what it set here would be theirs.
    starts_workers = getattr(session.config.option, "numprocesses", None) and not hasattr(
        session.config, "workerinput"
    )
    if not has_display() and not starts_workers:
        os.environ["QT_QPA_PLATFORM"] = "offscreen"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    no_display = pytest.mark.skip(reason="needs a display: Xvfb, or the screen you sit at")
    for item in items:
        if "make_napari_viewer" in getattr(item, "fixturenames", ()):
            item.add_marker("gui")
        if item.get_closest_marker("gui") and not has_display():
            item.add_marker(no_display)


@pytest.fixture(scope="session", autouse=True)
def _session_home(tmp_path_factory: pytest.TempPathFactory):
    """Keep fixtures that live longer than a test out of the user's folders, too."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("NAPARI_UNET_HOME", str(tmp_path_factory.mktemp("session-home")))
        yield


@pytest.fixture(autouse=True)
def home(_session_home, tmp_path_factory: pytest.TempPathFactory, monkeypatch) -> Path:
    """The store and caches of this test alone: a new, empty ``NAPARI_UNET_HOME``."""
    folder = tmp_path_factory.mktemp("home")
    monkeypatch.setenv("NAPARI_UNET_HOME", str(folder))
    return folder


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of microscopy data that lies beside the checkout, where there is one."""
    folder = ROOT.parent / "shared" / "data"
    if not folder.is_dir():
        pytest.skip("needs the microscopy data in ../shared/data")
    return folder


@pytest.fixture(scope="session")
def distributions(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The sdist, and the wheel that is built from it."""
    out = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(out), str(ROOT)]
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stdout + run.stderr
    return next(out.glob("*.tar.gz")), next(out.glob("*.whl"))


@pytest.fixture
def make_model():
    """Build tiny real models: ``make_model(depth=2, ndim=3, ...)``, seeded random weights, CPU.

    ``gain`` scales the weights of the head, so that maps of an untrained network span their range.
    """

    def make(*, gain: float = 1.0, name: str = "tiny", card: dict | None = None, **spec):
        import torch

        from napari_unet.core.models.card import ModelCard
        from napari_unet.core.settings.model_spec import ModelSpec
        from napari_unet.nn.inference.model import Model
        from napari_unet.nn.unet.net import UNet

        spec = ModelSpec(**{"in_channels": 1, "depth": 2, "width": 4} | spec)
        torch.manual_seed(0)
        net = UNet(spec)
        for module in net.modules():  # statistics as after training, not the identity
            if isinstance(module, torch.nn.modules.batchnorm._BatchNorm):
                module.running_mean.normal_(0, 0.2)
                module.running_var.uniform_(0.5, 1.5)
        with torch.no_grad():
            net.head.weight.mul_(gain)
        return Model(
            ModelCard(name=name, spec=spec, **(card or {})), net.eval(), torch.device("cpu")
        )

    return make


@pytest.fixture
def tiny_model(make_model, home: Path) -> str:
    """Put a tiny real model into the test's store and return its name."""
    from napari_unet.nn.inference.model import save_model

    model = make_model(gain=6.0, in_channels=3, depth=1, card={"decode": {"min_size": 0}})
    save_model(model, "tiny")
    return "tiny"


@pytest.fixture
def clicking_model(make_model):
    """Build a tiny real model whose click head takes what is bright near positive clicks.

    Its weights are set by hand: the logit is ``20 relu(image + slope of positive clicks - 2 x slope
    of negative ones + previous mask / 2 - 1) - 5``.
    """

    def make(**spec):
        import dataclasses

        import torch

        from napari_unet.nn.unet.click_head import ClickHead

        model = make_model(**spec)
        head = ClickHead(model.spec).eval()
        net, middle = head.net, (1,) * model.spec.ndim
        prompts = head.spec.in_channels - 7
        taken = {model.spec.width: 1, prompts + 1: 1, prompts + 3: -2, prompts + 6: 0.5}
        with torch.no_grad():
            for parameter in net.parameters():
                if parameter.ndim > 1:
                    parameter.zero_()
            first, last = net.encoder[0].units[0], net.decoder[0].units[0]
            for channel, weight in taken.items():
                first.conv.weight[(0, channel, *middle)] = weight
            first.norm.bias[0] = -1
            last.conv.weight[(0, 0, *middle)] = 1
            for block in (net.encoder[0], net.decoder[0]):
                for unit in block.units[1:]:
                    unit.conv.weight[(0, 0, *middle)] = 1
            net.head.weight[1, 0] = 20
            net.head.bias[1] = -5
        return dataclasses.replace(model, click=head)

    return make


@pytest.fixture
def same_objects():
    """Tell whether two arrays label the same pixels, one to one, both counting from 1."""
    import numpy as np

    def same(found, wanted) -> bool:
        pairs = np.unique(np.stack([np.ravel(found), np.ravel(wanted)]).astype(int), axis=1)
        one_to_one = pairs.shape[1] == len(np.unique(pairs[0])) == len(np.unique(pairs[1]))
        return bool(one_to_one and np.max(found) == np.max(wanted))

    return same
