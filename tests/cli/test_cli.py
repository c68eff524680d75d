"""The command line, run as a user runs it: through `main`, with a tiny real model."""

from __future__ import annotations

import csv
import io
import json
import os
import signal
import subprocess
import sys
import time
import types
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import tifffile
from scipy import ndimage

from napari_unet import __version__
from napari_unet.cli import build_parser, demo, main
from napari_unet.cli.options import settings_from
from napari_unet.core.errors import InputError
from napari_unet.core.evaluation.overlay import to_rgb
from napari_unet.core.io.label_writer import create_output
from napari_unet.core.io.provenance import read_provenance
from napari_unet.core.io.sample_images import SAMPLES, sample_path, truth_path
from napari_unet.core.io.stack import open_stack
from napari_unet.core.settings.tasks import PredictSettings


def texture(*shape: int, seed: int = 0) -> np.ndarray:
    """Return a smooth random image, in which an untrained network finds objects of its own."""
    noise = ndimage.gaussian_filter(np.random.default_rng(seed).normal(size=shape), 2.5)
    return np.uint16(1000 + 20000 * noise)


@pytest.fixture
def image(tmp_path: Path) -> Path:
    path = tmp_path / "cells.tif"
    tifffile.imwrite(path, texture(61, 83))
    return path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Four images of several kinds, and a file that only says that it is one."""
    path = tmp_path / "images"
    path.mkdir()
    for number in range(3):
        tifffile.imwrite(path / f"cell{number}.tif", texture(40, 50, seed=number))
    picture_file = path / "cell10.png"
    tifffile.imwrite(path / "z.ome.tif", texture(40, 50))
    from imagecodecs import png_encode

    picture_file.write_bytes(png_encode(to_rgb(texture(40, 50))))
    (path / "broken.tif").write_text("no image")
    (path / "notes.txt").write_text("not looked at")
    return path


def names(path: Path) -> list[str]:
    return sorted(entry.name for entry in path.iterdir())


# ------------------------------------------------------------------------------------ in general


def test_help_and_version(capsys) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"napari-unet {__version__}\n"
    commands = ["demo", "segment", "train", "evaluate", "measure", "models", "bench"]
    for command in [[], *([name] for name in commands)]:
        assert main([*command, "--help"]) == 0
        out, err = capsys.readouterr()
        assert out.startswith(" ".join(["usage: napari-unet", *command]))
        assert not err


def test_the_module_is_the_command() -> None:
    command = [sys.executable, "-m", "napari_unet"]
    run = subprocess.run([*command, "--version"], capture_output=True, text=True, check=False)
    assert (run.returncode, run.stdout) == (0, f"napari-unet {__version__}\n")
    run = subprocess.run([*command, "sing"], capture_output=True, text=True, check=False)
    assert run.returncode == 2
    assert len(run.stderr.splitlines()) == 1


def test_settings_options_mirror_the_settings_class() -> None:
    parser = build_parser()
    plain = parser.parse_args(["segment", "in", "out"])
    assert settings_from(plain, PredictSettings) == PredictSettings()
    given = "--diameter 12.5 --channel 1 --tile 256 --batch 2 --threshold 0.4 --merge 0.3"
    more = "--min-size 7 --precision float32 --augment flips --no-certify --no-survey --seed 5"
    values = parser.parse_args(["segment", "in", "out", *given.split(), *more.split()])
    assert settings_from(values, PredictSettings) == PredictSettings(
        diameter=12.5,
        channel=1,
        tile=256,
        batch=2,
        threshold=0.4,
        merge=0.3,
        min_size=7,
        precision="float32",
        augment="flips",
        certify=False,
        survey=False,
        seed=5,
    )


def test_no_command_loads_torch_before_it_needs_it(tmp_path: Path) -> None:
    code = (
        "import sys; from napari_unet.cli import main\n"
        "main(['--help']); main(['models', 'list']); main(['segment', 'nowhere.tif', 'out.tif'])\n"
        "main(['evaluate', 'a', 'b']); main(['models', 'show', 'nowhere'])\n"
        "main(['train', 'a', 'b', '--name', 'n', '--from', 'nowhere'])\n"
        "sys.exit(any(name in sys.modules for name in ('torch', 'napari', 'qtpy')))"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, check=False)
    assert run.returncode == 0


# ------------------------------------------------------------------------------------ segment


def test_segment_a_file(image: Path, tmp_path: Path, tiny_model: str, capsys) -> None:
    out = tmp_path / "labels.tif"
    assert main(["segment", str(image), str(out), "--model", tiny_model, "--tile", "32"]) == 0
    labels, provenance = tifffile.imread(out), read_provenance(out)
    assert labels.shape == (61, 83)
    assert labels.dtype == np.uint16
    assert labels.max() == provenance["objects"] > 3
    assert provenance["settings"]["tile"] == 32
    text = capsys.readouterr()
    assert text.out.startswith(f"{out}: {labels.max()} objects, ")
    assert "MPx/s on cpu (float32), seams: largest |difference| " in text.out
    assert provenance["seam"] < 1e-4
    assert text.err == "", "no bar where nobody watches"
    assert names(tmp_path) == ["cells.tif", "labels.tif"]


def test_segment_keeps_axes_and_voxel_size(tmp_path: Path, tiny_model: str) -> None:
    source, out = tmp_path / "stack.tif", tmp_path / "labels.tif"
    tifffile.imwrite(
        source,
        texture(3, 2, 40, 50),
        imagej=True,
        resolution=(4, 4),
        metadata={"axes": "ZCYX", "spacing": 0.5, "unit": "um"},
    )
    options = ["--model", tiny_model, "--channel", "1"]
    assert main(["segment", str(source), str(out), *options]) == 0
    labels = open_stack(out)
    assert (labels.axes, labels.data.shape) == ("ZYX", (3, 40, 50))
    assert labels.voxel_size_um == pytest.approx((0.5, 0.25, 0.25))
    assert read_provenance(out)["settings"]["channel"] == 1


def test_axes_are_taken_from_the_user(tmp_path: Path, tiny_model: str) -> None:
    np_image, out = texture(40, 3, 50), tmp_path / "labels.zarr"
    tifffile.imwrite(tmp_path / "odd.tif", np_image)
    arguments = [str(tmp_path / "odd.tif"), str(out), "--model", tiny_model, "--axes", "YTX"]
    assert main(["segment", *arguments]) == 0
    assert open_stack(out).labels_shape == (3, 40, 50)


def test_settings_reach_the_network(image: Path, tmp_path: Path, tiny_model: str) -> None:
    counts = []
    for min_size in (0, 40):
        out = tmp_path / f"labels{min_size}.png"
        options = ["--model", tiny_model, "--min-size", str(min_size), "--no-certify"]
        assert main(["segment", str(image), str(out), *options]) == 0
        assert read_provenance(out)["seam"] is None
        counts.append(read_provenance(out)["objects"])
    assert counts[0] > counts[1]


def test_an_existing_result_is_only_replaced_on_demand(
    image: Path, tmp_path: Path, tiny_model: str, capsys
) -> None:
    out = tmp_path / "labels.tif"
    out.write_bytes(b"mine")
    command = ["segment", str(image), str(out), "--model", tiny_model]
    assert main(command) == 2
    assert out.read_bytes() == b"mine"
    assert main([*command, "--overwrite"]) == 0
    assert tifffile.imread(out).shape == (61, 83)


def test_the_input_is_never_overwritten(image: Path, tiny_model: str, capsys) -> None:
    before = image.read_bytes()
    for target in (image, image.parent / "." / image.name):
        command = ["segment", str(image), str(target), "--model", tiny_model, "--overwrite"]
        assert main(command) == 2
    assert "is the input, too" in capsys.readouterr().err
    command = ["segment", str(image.parent), str(image.parent), "--model", tiny_model]
    assert main([*command, "--overwrite"]) == 2
    assert image.read_bytes() == before


def test_nan_is_said_once_in_one_line(tmp_path: Path, tiny_model: str, capsys) -> None:
    values = texture(50, 60).astype(np.float32)
    values[3, 4] = np.nan
    tifffile.imwrite(tmp_path / "nan.tif", values)
    command = ["segment", str(tmp_path / "nan.tif"), str(tmp_path / "out.tif")]
    assert main([*command, "--model", tiny_model]) == 0
    text = capsys.readouterr().err
    assert text.startswith("napari-unet: warning: nan holds NaN or infinity")
    assert len(text.splitlines()) == 1


def test_the_user_s_folder_is_known_in_all_paths(
    image: Path, tmp_path: Path, tiny_model: str, monkeypatch
) -> None:
    """Shells expand ~ at the begin of a word only, and that of Windows does not."""
    for name in ("HOME", "USERPROFILE"):
        monkeypatch.setenv(name, str(tmp_path))
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert main(["segment", f"~/{image.name}", "~/labels.tif", "--model", tiny_model]) == 0
    assert main(["measure", "~/labels.tif", f"~/{image.name}", "--csv=~/table.csv"]) == 0
    assert {"labels.tif", "table.csv"} <= set(names(tmp_path))
    assert names(tmp_path / "elsewhere") == []


# ------------------------------------------------------------------------------------ folders


def test_a_folder_is_a_batch(folder: Path, tmp_path: Path, tiny_model: str, capsys) -> None:
    out = tmp_path / "deep" / "labels"
    assert main(["segment", str(folder), str(out), "--model", tiny_model]) == 2
    assert names(out) == ["cell0.tif", "cell1.tif", "cell10.tif", "cell2.tif", "z.tif"]
    text = capsys.readouterr()
    (line,) = text.err.splitlines()
    assert line.startswith(f"napari-unet: skipped: {folder / 'broken.tif'} cannot be read as TIF")
    *lines, last = text.out.splitlines()
    assert [Path(line.partition(":")[0]).name for line in lines] == [
        "cell0.tif",
        "cell1.tif",
        "cell2.tif",
        "cell10.tif",
        "z.tif",
    ]
    assert last == "5 of 6 images segmented; 1 other file left out (.txt)"
    (folder / "broken.tif").unlink()
    assert main(["segment", str(folder), str(out), "--model", tiny_model, "--overwrite"]) == 0


def test_what_is_there_is_left_and_what_it_lacks_is_written(
    folder: Path, tmp_path: Path, tiny_model: str, capsys
) -> None:
    out = tmp_path / "out"
    (folder / "broken.tif").unlink()
    command = ["segment", str(folder), str(out), "--model", tiny_model, "--no-survey"]
    assert main(command) == 0
    before = {path: path.read_bytes() for path in out.iterdir()}
    assert main([*command, "--resume", "--also", "rois", "--min-size", "7"]) == 0
    captured = capsys.readouterr()
    assert f"{len(before)} had labels before" in captured.out
    assert "were made otherwise and are left as they are" in captured.err
    assert "min_size None, now 7" in captured.err
    assert {path: path.read_bytes() for path in before} == before
    assert len(list(out.glob("*_rois.zip"))) == len(before)
    (out / "cell0.tif").write_text("damaged since")
    assert main([*command, "--resume", "--also", "coco"]) == 2
    captured = capsys.readouterr()
    assert captured.out.startswith("no image is left to segment; 5 had labels before")
    assert len(list(out.glob("*.json"))) == 4


def test_equal_names_keep_their_endings(folder: Path, tmp_path: Path, tiny_model: str) -> None:
    (folder / "broken.tif").unlink()
    (folder / "cell0.png").write_bytes((folder / "cell10.png").read_bytes())
    out = tmp_path / "labels"
    assert main(["segment", str(folder), str(out), "--model", tiny_model]) == 0
    assert {"cell0.png.tif", "cell0.tif.tif", "cell1.tif"} < set(names(out))


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_batch_has_one_bar(folder: Path, tmp_path: Path, tiny_model: str, monkeypatch) -> None:
    screen = Terminal()
    monkeypatch.setattr(sys, "stderr", screen)
    assert main(["segment", str(folder), str(tmp_path / "out"), "--model", tiny_model]) == 2
    monkeypatch.undo()
    text = screen.getvalue()
    assert "100%" in text
    below = [line for line in text.split("\n") if line.strip()]
    assert len(below) == 2, "the skipped image's line and the bar's"
    assert below[0].rpartition("\r")[2].startswith("napari-unet: skipped: ")


def test_a_warning_stands_above_the_bar(tmp_path: Path, tiny_model: str, monkeypatch) -> None:
    values = texture(40, 50).astype(np.float32)
    values[3, 4] = np.nan
    tifffile.imwrite(tmp_path / "nan.tif", values)
    screen = Terminal()
    monkeypatch.setattr(sys, "stderr", screen)
    command = ["segment", str(tmp_path / "nan.tif"), str(tmp_path / "out.tif")]
    assert main([*command, "--model", tiny_model]) == 0
    (line,) = [line for line in screen.getvalue().splitlines() if "warning" in line]
    assert line.rpartition("\r")[2].startswith("napari-unet: warning: nan holds NaN")


def test_names_that_the_terminal_cannot_show_are_escaped(tmp_path: Path) -> None:
    path = tmp_path / "\u7d30\u80de.tif"
    tifffile.imwrite(path, np.zeros((4, 4), np.uint8))
    run = subprocess.run(
        [sys.executable, "-m", "napari_unet", "evaluate", str(path), str(path)],
        capture_output=True,
        check=False,
        env={**os.environ, "PYTHONIOENCODING": "cp1252:strict"},
    )
    assert run.returncode == 0, run.stderr
    assert rb"\u7d30\u80de.tif" in run.stdout


def test_a_bar_stops_where_the_run_stops(tmp_path: Path, tiny_model: str, monkeypatch) -> None:
    tifffile.imwrite(tmp_path / "a.tif", texture(40, 50))
    screen = Terminal()
    monkeypatch.setattr(sys, "stderr", screen)
    command = ["segment", str(tmp_path / "a.tif"), str(tmp_path / "a.doc"), "--model", tiny_model]
    assert main(command) == 2
    last = screen.getvalue().rstrip().splitlines()[-1]
    assert last.startswith("napari-unet: error: ")


# ------------------------------------------------------------------------------------ interrupts


def test_an_interrupt_leaves_no_file(
    image: Path, tmp_path: Path, tiny_model: str, monkeypatch, capsys
) -> None:
    from napari_unet.nn.inference import segment as engine

    steps = engine.segment_steps

    def interrupted(*args, **kwargs):
        inner = steps(*args, **kwargs)
        yield next(inner)
        raise KeyboardInterrupt

    monkeypatch.setattr(engine, "segment_steps", interrupted)
    command = ["segment", str(image), str(tmp_path / "out.tif"), "--model", tiny_model]
    assert main([*command, "--tile", "16"]) == 130
    assert names(tmp_path) == ["cells.tif"]
    assert capsys.readouterr().err == "napari-unet: interrupted; no half-written file is left.\n"


@pytest.mark.skipif(os.name == "nt", reason="a process cannot send itself Ctrl-C on Windows")
def test_control_c_in_a_real_process(tmp_path: Path, tiny_model: str, home: Path) -> None:
    source, out = tmp_path / "large.tif", tmp_path / "out"
    out.mkdir()
    tifffile.imwrite(source, np.tile(texture(256, 256), (16, 16)))
    command = ["segment", str(source), str(out / "labels.tif"), "--model", tiny_model]
    with subprocess.Popen(
        [sys.executable, "-m", "napari_unet", *command, "--tile", "32"],
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "NAPARI_UNET_HOME": str(home)},
        # A shell's background job, such as this test may run in, ignores the signal.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    ) as process:
        deadline = time.monotonic() + 120
        while not names(out) and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.02)
        assert names(out), "the run has begun"
        process.send_signal(signal.SIGINT)
        _, text = process.communicate(timeout=60)
    assert process.returncode == 130
    assert len(text.splitlines()) == 1
    assert names(out) == []


# ------------------------------------------------------------------------------------ demo


def test_a_request_to_end_cleans_up_as_control_c_does(monkeypatch, tmp_path) -> None:
    """Batch systems send it when a job's time is over."""
    source, target = tmp_path / "labels.tif", tmp_path / "labels.zarr"
    tifffile.imwrite(source, np.ones((4, 4), np.uint8))
    before = signal.getsignal(signal.SIGTERM)

    @contextmanager
    def interrupted(*described, **more):
        with create_output(*described, **more) as output:
            signal.raise_signal(signal.SIGTERM)
            yield output

    monkeypatch.setattr("napari_unet.core.labels.label_export.create_output", interrupted)
    assert main(["convert", str(source), str(target)]) == 130
    assert names(tmp_path) == ["labels.tif"]
    assert signal.getsignal(signal.SIGTERM) == before


@pytest.mark.parametrize("name", SAMPLES)
def test_samples_are_small_images_with_their_truth(name: str) -> None:
    image, truth = open_stack(sample_path(name)), open_stack(truth_path(name))
    assert image.labels_shape == truth.labels_shape
    assert image.rgb == (name == "histology")
    assert SAMPLES[name].endswith(" x ".join(map(str, truth.labels_shape)))
    assert sample_path(name).stat().st_size < 300_000
    with pytest.raises(InputError, match="choose one of: fluorescence, histology"):
        sample_path("cells")


def test_demo_without_a_window(tmp_path: Path, tiny_model: str, capsys, monkeypatch) -> None:
    out = tmp_path / "demo"
    for _ in range(2):  # a second run replaces the first one's files
        assert main(["demo", "--headless", "--out", str(out), "--model", tiny_model]) == 0
    assert names(out) == ["labels.tif", "overlay.png"]
    tifffile.imwrite(tmp_path / "labels.tif", np.ones((3, 3), np.uint8))  # the user's own
    assert main(["demo", "--headless", "--out", str(tmp_path), "--model", tiny_model]) == 2
    assert "labels.tif exists already; name another folder" in capsys.readouterr().err
    assert main(["demo", "--headless", "--out", str(out), "--model", tiny_model]) == 0
    labels = tifffile.imread(out / "labels.tif")
    head, _, row, last = capsys.readouterr().out.splitlines()[-4:]
    assert head.split() == ["image", "size", "objects", "seconds", "MPx/s", "device"]
    assert row.startswith("nuclei_fluorescence.tif  520 x 696")
    assert row.split()[4].replace(",", "") == str(labels.max())
    assert last == f"written: {out / 'labels.tif'}, {out / 'overlay.png'}"
    drawn = open_stack(out / "overlay.png")
    assert drawn.rgb
    assert np.any(np.ptp(np.asarray(drawn.data), axis=2) > 0), "outlines are in colour"


def test_demo_says_why_it_opens_no_window(tmp_path: Path, tiny_model: str, monkeypatch, capsys):
    monkeypatch.setattr(demo, "why_no_window", lambda: "there is no display")
    assert main(["demo", "--out", str(tmp_path / "demo"), "--model", tiny_model]) == 0
    assert capsys.readouterr().err == (
        "napari-unet: there is no display; the demo runs without a window and writes files.\n"
    )


def test_demo_opens_the_window_if_it_can(monkeypatch: pytest.MonkeyPatch) -> None:
    opened = []
    window = types.ModuleType("napari_unet.gui.samples")
    window.run_demo = lambda *chosen: opened.append(chosen)
    monkeypatch.setitem(sys.modules, window.__name__, window)
    monkeypatch.setattr(demo, "why_no_window", lambda: "")
    assert main(["demo", "--device", "cpu"]) == 0
    assert opened == [("nuclei", "cpu")]


def test_why_no_window(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("napari")
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.delenv("QT_QPA_PLATFORM", raising=False)
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    monkeypatch.setenv("DISPLAY", ":0")
    assert demo.why_no_window() == ""
    monkeypatch.setenv("QT_QPA_PLATFORM", "offscreen")
    assert demo.why_no_window() == "there is no display"
    monkeypatch.delenv("QT_QPA_PLATFORM")
    monkeypatch.delenv("DISPLAY")
    assert demo.why_no_window() == "there is no display"
    monkeypatch.setattr(demo.importlib.util, "find_spec", lambda name: None)
    assert "pip install 'napari-unet[gui]'" in demo.why_no_window()


# ------------------------------------------------------------------------------------ evaluate


@pytest.fixture
def two_folders(tmp_path: Path) -> tuple[Path, Path]:
    predicted, truth = tmp_path / "predicted", tmp_path / "truth"
    for path in (predicted, truth):
        path.mkdir()
    tifffile.imwrite(truth / "a.tif", np.array([[1, 1, 0, 2, 2]], np.uint16))
    tifffile.imwrite(predicted / "a.tif", np.array([[1, 1, 0, 0, 0]], np.uint16))
    tifffile.imwrite(truth / "b.tif", np.array([[3, 3, 3]], np.uint16))
    tifffile.imwrite(predicted / "b.ome.tif", np.array([[1, 1, 1]], np.uint32))
    return predicted, truth


def test_evaluate_two_files(two_folders, capsys) -> None:
    predicted, truth = (path / "a.tif" for path in two_folders)
    assert main(["evaluate", str(predicted), str(truth)]) == 0
    head, _, row = capsys.readouterr().out.splitlines()
    assert head.split()[:4] == ["image", "objects", "true", "AP50"]
    assert row.split()[:4] == ["a.tif", "1", "2", "0.500"]


def test_evaluate_two_folders(two_folders, tmp_path: Path, capsys) -> None:
    table = tmp_path / "scores.csv"
    assert main(["evaluate", *map(str, two_folders), "--csv", str(table)]) == 0
    _, _, *rows = capsys.readouterr().out.splitlines()
    assert [row.split()[0] for row in rows] == ["a", "b", "pooled"]
    assert rows[2].split()[:6] == ["pooled", "(2", "images)", "2", "3", "0.667"]
    with table.open(newline="") as file:
        written = list(csv.DictReader(file))
    assert [row["image"] for row in written] == ["a", "b", "pooled (2 images)"]
    assert float(written[2]["AP50"]) == pytest.approx(2 / 3)
    assert {"AP50", "AP95", "precision", "recall", "f1", "pq", "dice", "iou"} < set(written[0])
    assert [int(row["count_error"]) for row in written] == [-1, 0, -1]
    assert [name for name in names(tmp_path) if name.startswith(".")] == []


def test_what_cannot_be_scored_is_skipped(two_folders, capsys) -> None:
    predicted, truth = two_folders
    tifffile.imwrite(truth / "only.tif", np.zeros((2, 2), np.uint8))
    tifffile.imwrite(predicted / "more.tif", np.zeros((2, 2), np.uint8))
    for path, shape in ((predicted, (3, 3)), (truth, (3, 4))):
        tifffile.imwrite(path / "shape.tif", np.zeros(shape, np.uint8))
    assert main(["evaluate", str(predicted), str(truth)]) == 2
    text = capsys.readouterr()
    assert "pooled (2 images)" in text.out
    skipped = sorted(text.err.splitlines())
    assert len(skipped) == 3
    assert f"{predicted / 'more.tif'} has no truth of that name" in skipped[0]
    assert f"{truth / 'only.tif'} has no prediction of that name" in skipped[2]
    assert "has shape (3, 3), its truth (3, 4)" in skipped[1]


def test_without_any_scores_there_is_no_table_to_write(two_folders, tmp_path: Path, capsys) -> None:
    predicted, truth = two_folders
    for name in ("a.tif", "b.tif"):
        tifffile.imwrite(truth / name, np.zeros((7, 7), np.uint8))
    table = tmp_path / "scores.csv"
    assert main(["evaluate", str(predicted), str(truth), "--csv", str(table)]) == 2
    assert len(capsys.readouterr().err.splitlines()) == 2
    assert not table.exists()


@pytest.mark.parametrize(
    ("predicted", "truth", "message"),
    [
        ("none", "truth", "does not exist"),
        ("predicted/a.tif", "truth", "are a file and a folder"),
        ("predicted", "odd", "no file name in common"),
        ("predicted/a.tif", "truth/b.tif", "has shape (1, 5), its truth (1, 3)"),
        ("rgb.tif", "rgb.tif", "has 3 channels: it is a picture in colours"),
        ("half.tif", "half.tif", "from 0.5 to 0.5, such as 0.5: probabilities"),
        ("twice", "truth", "keep one"),
    ],
)
def test_evaluate_refuses(two_folders, tmp_path: Path, capsys, predicted, truth, message) -> None:
    for name in ("odd/x.tif", "twice/a.tif", "twice/a.ome.tif"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        tifffile.imwrite(tmp_path / name, np.zeros((2, 2), np.uint8))
    tifffile.imwrite(tmp_path / "rgb.tif", np.zeros((4, 4, 3), np.uint8), photometric="rgb")
    tifffile.imwrite(tmp_path / "half.tif", np.full((4, 4), 0.5, np.float32))
    assert main(["evaluate", str(tmp_path / predicted), str(tmp_path / truth)]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert message in line


# ------------------------------------------------------------------------------------ models


def test_models(tmp_path: Path, tiny_model: str, home: Path, capsys) -> None:
    assert main(["models", "list"]) == 0
    (row,) = [line for line in capsys.readouterr().out.splitlines() if line.startswith("tiny")]
    assert row.split() == ["tiny", "2D", "instance", "3", "0.0", "you"]

    assert main(["models", "show", "tiny"]) == 0
    out = capsys.readouterr().out
    assert out.splitlines()[0] == str(home / "models" / "tiny")
    assert "normalisation.high  99.8" in out
    assert "encoder.0" in out
    assert "total" in out

    archive = tmp_path / "tiny.zip"
    assert main(["models", "export", "tiny", str(archive)]) == 0
    assert main(["models", "import", str(archive), "--name", "copy"]) == 0
    assert main(["models", "import", str(archive)]) == 2
    assert main(["models", "remove", "tiny"]) == 0
    assert main(["models", "import", str(archive)]) == 0
    assert names(home / "models") == ["copy", "tiny"]


def test_a_broken_model_is_listed(tiny_model: str, home: Path, capsys) -> None:
    (home / "models" / "tiny" / "model.json").write_text("{}")
    assert main(["models", "list"]) == 0
    text = capsys.readouterr()
    assert "tiny" in text.out
    assert "unusable" in text.out
    assert len(text.err.splitlines()) == 1


# ------------------------------------------------------------------------------------ bench


def test_bench_writes_its_figures(tmp_path: Path, monkeypatch, capsys) -> None:
    from napari_unet.nn import bench

    def run_bench(quick, report):
        report("fast")
        return {"quick": quick}

    monkeypatch.setattr(bench, "run_bench", run_bench)
    assert main(["bench", "--quick", "--json", str(tmp_path / "figures.json")]) == 0
    assert json.loads((tmp_path / "figures.json").read_text()) == {"quick": True}
    assert capsys.readouterr().out == "fast\n"


class TestLinking:
    """`--link`: the labels of a movie numbered by track, and a table of the tracks beside them."""

    @pytest.fixture
    def movie(self, tmp_path):
        y, x = np.mgrid[:60, :80]
        frames = [
            200
            * (((y - 20) ** 2 + (x - 15 - 4 * t) ** 2 < 60) | ((y - 45) ** 2 + (x - 40) ** 2 < 60))
            for t in range(4)
        ]
        data = np.stack(frames).astype(np.uint8)
        tifffile.imwrite(tmp_path / "movie.tif", data, photometric="minisblack")
        return tmp_path / "movie.tif"

    def run(self, movie, *options):
        return main(["segment", str(movie), str(movie.with_name("out.tif")), "--model", "tiny",
                     "--device", "cpu", *options])  # fmt: skip

    def test_labels_and_table(self, tiny_model, movie, capsys):
        assert self.run(movie, "--axes", "TYX", "--link", "--link-by", "overlap") == 0
        labels = tifffile.imread(movie.with_name("out.tif"))
        lines = movie.with_name("out.tracks.csv").read_text().splitlines()
        assert lines[0] == "id,t,z,y,x,parent" and len(lines) > 1
        rows = [line.split(",") for line in lines[1:]]
        assert {int(row[0]) for row in rows} == set(np.unique(labels[labels > 0]).tolist())
        for number, t, *_ in rows:
            assert (labels[int(t)] == int(number)).any()
        assert f"in {len({row[0] for row in rows})} tracks" in capsys.readouterr().out
        # The same objects as without linking, with other numbers.
        assert self.run(movie, "--axes", "TYX", "--overwrite") == 0
        plain = tifffile.imread(movie.with_name("out.tif"))
        assert np.array_equal(plain > 0, labels > 0)

    def test_a_table_that_is_there_is_not_replaced(self, tiny_model, movie, capsys):
        table = movie.with_name("out.tracks.csv")
        table.write_text("mine")
        assert self.run(movie, "--axes", "TYX", "--link") == 2
        assert "overwrite" in capsys.readouterr().err and table.read_text() == "mine"
        assert not movie.with_name("out.tif").exists()
        assert self.run(movie, "--axes", "TYX", "--link", "--overwrite") == 0
        assert table.read_text() != "mine"

    @pytest.mark.parametrize(
        ("options", "problem"),
        [(["--axes", "ZYX"], "axes with a T"), (["--axes", "TYX", "--link-by", "x"], "link-by")],
    )
    def test_what_cannot_be_linked(self, tiny_model, movie, capsys, options, problem):
        assert self.run(movie, "--link", *options) == 2
        assert problem in capsys.readouterr().err
        assert not movie.with_name("out.tif").exists()


@pytest.mark.parametrize("way", ["planes", "joined", "orthogonal"])
def test_volumes_in_three_ways(tiny_model, tmp_path, way):
    y, x = np.mgrid[:40, :50]
    disc = 200 * ((y - 20) ** 2 + (x - 25) ** 2 < 100)
    data = np.stack([disc] * 4).astype(np.uint8)
    tifffile.imwrite(tmp_path / "z.tif", data, photometric="minisblack")
    target = tmp_path / f"{way}.tif"
    command = ["segment", str(tmp_path / "z.tif"), str(target), "--model", "tiny"]
    assert main([*command, "--device", "cpu", "--axes", "ZYX", "--volumes", way]) == 0
    provenance = read_provenance(target)
    assert provenance["volumes"] == way
    assert provenance["object_axes"] == ("YX" if way == "planes" else "ZYX")


def test_help_has_a_heading_for_each_kind_of_option(capsys) -> None:
    assert main(["segment", "--help"]) == 0
    lines = capsys.readouterr().out.splitlines()
    headings = [line for line in lines if line.endswith(":") and not line.startswith(" ")]
    assert "following objects through time (--link):" in headings
    assert len(headings) == len(set(headings))
