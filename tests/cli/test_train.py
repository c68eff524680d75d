"""`napari-unet train`, run as a user runs it: from folders to a model that segments."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tifffile
from discs import disc_labels
from scipy import ndimage

from napari_unet.cli import main
from napari_unet.core.errors import InputError
from napari_unet.core.instances.heads import InstanceHead
from napari_unet.core.io.stack import open_stack
from napari_unet.core.models.folder import WEIGHTS, read_card
from napari_unet.core.models.store import list_models
from napari_unet.core.training import pairs
from napari_unet.core.training.log import CURVE, TABLE, read_table
from napari_unet.core.training.run_state import LOCK, lock_training, training_folder

FAST = ["--crop", "32", "--batch", "2", "--device", "cpu"]
NEW = ["--scratch", "--depth", "1", "--width", "4"]


def discs(seed: int, size: tuple[int, int] = (96, 120)) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    labels = disc_labels(rng, size)
    image = ndimage.gaussian_filter((labels > 0) * 1000.0, 1) + rng.normal(100, 20, size)
    return np.uint16(image.clip(0)), labels


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Two images with labels, one without, and one label file without its image."""
    for name in ("images", "labels"):
        (tmp_path / name).mkdir()
    for number in range(2):
        image, labels = discs(number)
        tifffile.imwrite(tmp_path / "images" / f"cell{number}.tif", image)
        tifffile.imwrite(tmp_path / "labels" / f"cell{number}.tif", labels)
    tifffile.imwrite(tmp_path / "images" / "bare.tif", image)
    tifffile.imwrite(tmp_path / "labels" / "lonely.tif", labels)
    return tmp_path


def train(data: Path, *options: str) -> int:
    return main(["train", str(data / "images"), str(data / "labels"), *FAST, *options])


def test_a_model_from_scratch_is_stored_and_segments(data, home, capsys) -> None:
    assert train(data, *NEW, "--name", "mine", "--steps", "4") == 0
    out, err = capsys.readouterr()
    assert out.startswith("mine: stored in ")
    assert "2 images" in out
    assert len(out.splitlines()) == 1
    assert "step 4: loss" in err
    card = read_card(home / "models" / "mine")
    assert (card.spec.depth, card.spec.width, card.spec.in_channels) == (1, 4, 1)
    assert card.training["working_diameter_px"] == pytest.approx(14, abs=1)
    run = home / "training" / "mine"
    assert {path.name for path in run.iterdir()} - {LOCK} == {CURVE, TABLE}
    assert read_table(run / TABLE)[-1]["step"] == 4
    target = data / "out.tif"
    image = str(data / "images" / "bare.tif")
    assert main(["segment", image, str(target), "--model", "mine", "--device", "cpu"]) == 0
    assert tifffile.imread(target).shape == (96, 120)


def test_a_model_is_tuned_from_another(data, tiny_model, home) -> None:
    options = ["--from", "tiny", "--name", "tuned", "--epochs", "0.1", "--keep"]
    assert train(data, *options) == 0
    card = read_card(home / "models" / "tuned")
    assert card.parent == read_card(home / "models" / "tiny").hash
    assert card.metrics["tuning"]["before"] is not None
    assert card.replay


def test_a_model_that_got_worse_is_not_stored_unless_asked_for(
    data, tiny_model, home, capsys, monkeypatch
) -> None:
    """The scores are real ones, but the tuned network's are lowered."""
    from napari_unet.nn.training.held_out import HeldOutEvaluation

    plain, seen = HeldOutEvaluation.scores, []

    def lowered(self, net):
        scores = yield from plain(self, net)
        seen.append(net)
        return dict.fromkeys(scores, 0.4 if len(seen) > 1 else 0.9)

    monkeypatch.setattr(HeldOutEvaluation, "scores", lowered)
    options = ["--from", "tiny", "--name", "tuned", "--steps", "2"]
    assert train(data, *options) == 2
    err = capsys.readouterr().err.splitlines()[-1]
    assert "was not kept; worse" in err
    assert "--resume --keep" in err
    assert not (home / "models" / "tuned").exists()
    assert train(data, *options, "--resume", "--keep") == 0
    assert read_card(home / "models" / "tuned").metrics["tuning"]["verdict"] == "worse"


def test_classes_are_learned_on_a_grafted_head(data, tiny_model, home) -> None:
    for path in (data / "labels").iterdir():
        tifffile.imwrite(path, np.uint8(tifffile.imread(path) > 0))
    options = ["--from", "tiny", "--classes", "2", "--name", "classes", "--steps", "2", "--keep"]
    assert train(data, *options) == 0
    assert read_card(home / "models" / "classes").spec.head == "semantic"


def test_what_is_ignored_and_what_is_known(data) -> None:
    image, labels = (data / name / "cell0.tif" for name in ("images", "labels"))
    values = tifffile.imread(labels)
    found = pairs.read_labelled("a", image, labels, ignore=3)
    assert np.array_equal(found.known, values != 3)
    assert not found.labels[values == 3].any()
    mask = data / "mask.tif"
    tifffile.imwrite(mask, np.uint8(values == 5) * 255)
    found = pairs.read_labelled("a", image, labels, mask, ignore=3)
    assert np.array_equal(found.known, values == 5)


def test_planes_that_nobody_labelled_are_left_out(tmp_path) -> None:
    image, labels = discs(0)
    empty = np.zeros_like(labels)
    planes = {"photometric": "minisblack", "metadata": {"axes": "ZYX"}}
    tifffile.imwrite(tmp_path / "i.tif", np.stack([image] * 4), **planes)
    tifffile.imwrite(tmp_path / "l.tif", np.stack([empty, labels, empty, labels]), **planes)
    found = pairs.read_labelled("s", tmp_path / "i.tif", tmp_path / "l.tif")
    planes = pairs.samples_of([found], 2, 1, InstanceHead())
    assert [item.source for item in planes.items] == ["s", "s"]
    (volume,) = pairs.samples_of([found], 3, 1, InstanceHead()).items
    assert volume.labels.shape == (4, 96, 120)
    assert volume.known.any((1, 2)).tolist() == [False, True, False, True]
    flat = pairs.Labelled("flat", open_stack(image), labels)
    with pytest.raises(InputError, match="needs volumes"):
        pairs.samples_of([flat], 3, 1, InstanceHead())


# ---------------------------------------------------------------------------------------- faults


def say(data: Path, capsys, *options: str) -> str:
    """Run what must fail; return what it says."""
    assert train(data, *options) == 2
    err = capsys.readouterr().err.splitlines()
    return err[-1]


def test_a_name_that_is_taken_is_said_before_anything_is_done(data, tiny_model, capsys) -> None:
    assert "There is a model 'tiny' already" in say(
        data, capsys, "--from", "tiny", "--name", "tiny"
    )
    assert "choose another" in say(data, capsys, "--from", "tiny", "--name", "nuclei")


def test_unusable_options_are_said(data, tiny_model, capsys) -> None:
    text = say(data, capsys, "--from", "tiny", "--name", "n", "--depth", "3")
    assert "--depth is for networks from scratch" in text
    for option in ("--depth", "--width"):
        assert f"{option[2:]} is 0" in say(data, capsys, *NEW, "--name", "n", option, "0")
    assert "There is no model 'nope'" in say(data, capsys, "--from", "nope", "--name", "n")
    assert "one of the arguments --from --scratch is required" in say(data, capsys, "--name", "n")


def test_labels_of_another_shape_are_said(data, capsys) -> None:
    tifffile.imwrite(data / "labels" / "cell1.tif", np.ones((5, 6), np.uint8))
    text = say(data, capsys, *NEW, "--name", "n")
    assert "are of shape (5, 6), their image of (96, 120); give labels of the" in text


def test_images_with_other_channels_than_the_model(data, tiny_model, home, capsys) -> None:
    """The model has three inputs: one channel goes to all of them; of two, the user chooses."""
    tune = ["--from", "tiny", "--steps", "2", "--keep"]
    assert train(data, *tune, "--name", "grey") == 0
    for path in (data / "images").glob("cell*.tif"):
        image = tifffile.imread(path)
        tifffile.imwrite(path, np.stack([image, image // 2]), imagej=True, metadata={"axes": "CYX"})
    capsys.readouterr()
    text = say(data, capsys, *tune, "--name", "two")
    assert "cell0 has 2 channels, the model 'tiny' takes 3; say which one" in text
    assert "(--channel, 0 to 1)" in text
    assert train(data, *tune, "--name", "two", "--channel", "1") == 0
    assert read_card(home / "models" / "two").spec.in_channels == 3
    for path in (data / "images").glob("cell*.tif"):
        image = np.uint8(tifffile.imread(path)[0] >> 4)
        tifffile.imwrite(path, np.stack([image] * 4, -1), photometric="rgb", extrasamples=[2])
    assert train(data, *tune, "--name", "colours") == 0


def test_a_new_network_sees_all_channels_of_images_of_two_kinds(data, home, capsys) -> None:
    """Grey images go with those in colours; of two channels beside them, the user chooses."""
    path = data / "images" / "cell1.tif"
    image = np.uint8(tifffile.imread(path) >> 4)
    tifffile.imwrite(path, np.stack([image, image // 2, 255 - image], -1), photometric="rgb")
    assert train(data, *NEW, "--steps", "1", "--name", "both") == 0
    assert read_card(home / "models" / "both").spec.in_channels == 3
    two = np.stack([image, image // 2])
    tifffile.imwrite(data / "images" / "cell0.tif", two, imagej=True, metadata={"axes": "CYX"})
    text = say(data, capsys, *NEW, "--name", "two")
    assert "cell0 has 2 channels, others have 3; say which one" in text


def test_a_full_disk_while_the_model_is_stored(data, home, capsys, monkeypatch) -> None:
    """The training is not lost: it is stored by --resume when there is room again."""
    write = Path.write_bytes

    def full(path, content):
        if path.name != WEIGHTS:
            return write(path, content)
        write(path, content[: len(content) // 2])
        raise OSError(errno.ENOSPC, "No space left on device")

    new = [*NEW, "--name", "mine", "--steps", "4"]
    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_bytes", full)
        text = say(data, capsys, *new)
    assert "No space left on device; make room" in text and not list_models_of_user()
    assert not (home / "models").exists() or not list((home / "models").iterdir())
    assert train(data, *new, "--resume") == 0
    assert list_models_of_user() == ["mine"]


def test_folders_without_a_common_name_are_said(data, capsys, tmp_path) -> None:
    (tmp_path / "other").mkdir()
    tifffile.imwrite(tmp_path / "other" / "x.tif", np.ones((5, 6), np.uint8))
    images, other = str(data / "images"), str(tmp_path / "other")
    assert main(["train", images, other, "--name", "n", "--scratch"]) == 2
    assert "no file name in common" in capsys.readouterr().err
    known = ["--known", other]
    assert "no mask for cell0" in say(data, capsys, *NEW, "--name", "n", *known)


@pytest.mark.parametrize("value", [0, 7])
def test_every_voxel_unknown_and_no_object_are_said(data, capsys, value) -> None:
    for path in (data / "labels").iterdir():
        tifffile.imwrite(path, np.full_like(tifffile.imread(path), value))
    text = say(data, capsys, *NEW, "--name", "n", "--ignore-label", "7")
    assert ("no object in what is known" if value == 0 else "Nothing is known") in text


def test_a_store_that_cannot_be_written_is_said(data, home, capsys) -> None:
    (home / "training").write_text("a file in the way")
    assert "choose another place" in say(data, capsys, *NEW, "--name", "n", "--steps", "1")
    (home / "training").unlink()
    (home / "models").rmdir()
    (home / "models").write_text("a file in the way")
    text = say(data, capsys, *NEW, "--name", "n", "--steps", "1")
    assert "Models cannot be stored" in text and "step 0" not in text, "said before the training"
    assert not (home / "training").exists()


def test_two_trainings_of_one_name_do_not_mix(data, home, capsys) -> None:
    lock = lock_training(training_folder("n"))
    assert "trained in another window" in say(data, capsys, *NEW, "--name", "n", "--steps", "1")
    lock.release()
    assert train(data, *NEW, "--name", "n", "--steps", "1") == 0
    said = capsys.readouterr().out
    assert "; 2 images, " in said and ", 1 step; " in said and ".;" not in said


# ------------------------------------------------------------------------------ the end comes early


def program(data: Path, *options: str) -> list[str]:
    folders = [str(data / "images"), str(data / "labels")]
    return [sys.executable, "-m", "napari_unet", "train", *folders, *FAST, *NEW, *options]


def started(data: Path, *options: str) -> subprocess.Popen[str]:
    """Start a training in a process of its own and wait for its first validation."""
    process = subprocess.Popen(
        program(data, *options),
        stderr=subprocess.PIPE,
        text=True,
        # A shell's background job, such as this test may run in, ignores Ctrl+C.
        preexec_fn=None if os.name == "nt" else restore_interrupts,
    )
    for line in process.stderr:
        if "step 3:" in line:
            return process
    raise AssertionError("the training ended before it was to be stopped")


def restore_interrupts() -> None:
    signal.signal(signal.SIGINT, signal.SIG_DFL)


LONG = ["--name", "long", "--steps", "1000", "--validate-every", "3"]


def test_kill_leaves_a_training_that_is_resumed(data, home, capsys) -> None:
    with started(data, *LONG) as process:
        process.kill()
    assert not list_models_of_user()
    text = say(data, capsys, *NEW, *LONG)
    assert "go on with --resume" in text
    tifffile.imwrite(data / "labels" / "cell0.tif", discs(5)[1])
    assert "had another model or other images" in say(data, capsys, *NEW, *LONG, "--resume")
    tifffile.imwrite(data / "labels" / "cell0.tif", discs(0)[1])
    short = ["--name", "long", "--steps", "8", "--validate-every", "3"]
    assert train(data, *NEW, *short, "--resume") == 0
    assert list_models_of_user() == ["long"]
    steps = [row["step"] for row in read_table(home / "training" / "long" / TABLE)]
    assert steps == sorted(set(steps))


@pytest.mark.skipif(os.name == "nt", reason="Windows sends no SIGINT to one process")
def test_ctrl_c_keeps_the_best_so_far(data, home) -> None:
    with started(data, *LONG) as process:
        process.send_signal(signal.SIGINT)
        said = process.stderr.read()
    assert process.returncode == 130
    assert "the best so far is kept as 'long'" in said
    assert read_card(home / "models" / "long").training["unfinished"]
    short = ["--name", "long", "--steps", "4", "--validate-every", "3"]
    assert train(data, *NEW, *short, "--resume") == 0
    assert "unfinished" not in read_card(home / "models" / "long").training


def list_models_of_user() -> list[str]:
    return [entry.name for entry in list_models() if not entry.bundled]
