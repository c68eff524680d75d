"""The log of a training: every row once, whatever happened between, and a picture of it."""

from __future__ import annotations

import csv
import math

import numpy as np
import pytest
from PIL import Image

from napari_unet.core.errors import OutputError
from napari_unet.core.training.log import CURVE, TABLE, TrainLog, read_table


def write_steps(log, first, last, every=2, validated=4):
    """Log steps whose loss is their number; validations at multiples of `validated`."""
    for step in range(first, last + 1):
        log.add({"loss": float(step), "dice": step / 4})
        scores = {"AP50": step / 100} if step % validated == 0 else None
        if step % every == 0 or scores:
            log.write(step, 1.5 * step, 1e-3, scores)


@pytest.fixture
def log(tmp_path):
    log = TrainLog(tmp_path / "run")
    log.begin(0)
    return log


def rows(log):
    with (log.folder / TABLE).open(newline="") as file:
        return list(csv.DictReader(file))


def test_a_row_has_the_means_since_the_row_before(log):
    write_steps(log, 1, 4)
    first, second = rows(log)
    assert list(first) == ["step", "seconds", "loss", "loss_dice", "learning_rate", "val_AP50"]
    assert first == {
        "step": "2", "seconds": "3", "loss": "1.5", "loss_dice": "0.375",
        "learning_rate": "0.001", "val_AP50": "",
    }  # fmt: skip
    assert (second["loss"], second["val_AP50"]) == ("3.5", "0.04")


def test_rows_beyond_the_checkpoint_are_cut(log):
    write_steps(log, 1, 12)
    whole = (log.folder / TABLE).read_bytes()
    again = TrainLog(log.folder)
    again.begin(8)
    assert [row["step"] for row in rows(again)] == ["2", "4", "6", "8"]
    write_steps(again, 9, 12)
    assert (log.folder / TABLE).read_bytes() == whole


def test_a_file_torn_anywhere_goes_on_as_if_it_were_not(log):
    """At step 4 a checkpoint lies; what was written later may be there up to any byte."""
    write_steps(log, 1, 4)
    kept = len((log.folder / TABLE).read_bytes())
    write_steps(log, 5, 12)
    whole = (log.folder / TABLE).read_bytes()
    for end in range(kept, len(whole)):
        (log.folder / TABLE).write_bytes(whole[:end])
        again = TrainLog(log.folder)
        again.begin(4)
        write_steps(again, 5, 12)
        assert (log.folder / TABLE).read_bytes() == whole, end


def test_beginning_anew_forgets_what_was_there(log):
    write_steps(log, 1, 4)
    log.draw()
    TrainLog(log.folder).begin(0)
    assert list(log.folder.iterdir()) == []


def test_a_killed_process_leaves_no_litter(log):
    write_steps(log, 1, 4)
    partials = [log.folder / f".{name}.0123abcd.partial" for name in (TABLE, CURVE)]
    for partial in partials:
        partial.write_bytes(b"half")
    other = log.folder / ".other.csv.0123abcd.partial"
    other.write_bytes(b"of somebody else")
    TrainLog(log.folder).begin(4)
    assert not any(partial.exists() for partial in partials)
    assert other.exists()


@pytest.mark.parametrize(
    "text", ["25,0.5,1e-3\n50,0.4,1e-3\n", "step,loss\n1,high\n", "step,loss\n1,2,3\n", "\n\n"]
)
def test_other_files_are_not_touched(tmp_path, text):
    (tmp_path / TABLE).write_text(text)
    with pytest.raises(OutputError, match="not the log of a training"):
        TrainLog(tmp_path).begin(0)
    assert (tmp_path / TABLE).read_text() == text


def test_losses_that_are_no_numbers_are_read_back(log):
    log.add({"loss": math.nan})
    log.write(1, 0.1, 1e-3, {"IoU": math.nan})
    log.draw()
    (row,) = read_table(log.folder / TABLE)
    assert math.isnan(row["loss"])
    assert math.isnan(row["val_IoU"])


def picture(log):
    log.draw()
    with Image.open(log.folder / CURVE) as image:
        return np.asarray(image.convert("RGB"))


def test_the_curve_shows_losses_and_scores(log):
    write_steps(log, 1, 2)
    losses = picture(log)
    write_steps(log, 3, 12)
    both = picture(log)
    assert both.shape[0] > losses.shape[0]  # a second panel
    log.add({"loss": 1.0, "dice": 0.1})
    log.write(13, 20.0, 1e-3, {"AP50": 0.9})
    more = picture(log)
    half = len(more) // 2
    for part in (slice(half), slice(half, None)):
        assert (more[part] != both[part]).any()
        assert (more[part] < 128).any(-1).mean() > 0.005  # lines, not an empty frame
    assert {path.name for path in log.folder.iterdir()} == {TABLE, CURVE}


def test_names_of_scores_may_hold_anything(log):
    log.add({"loss": 1.0})
    log.write(2, 0.1, 1e-3, {"AP50 5$, _a$": 0.5, "": 0.1})
    assert picture(log).size
    assert read_table(log.folder / TABLE)[0]["val_AP50 5$, _a$"] == 0.5
