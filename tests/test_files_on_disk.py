"""What is in the files that are written: other programs read them, and later versions must.

`fixtures/*_files.json` and the tables beside them say what they hold today.
"""

from __future__ import annotations

import csv
import json
import re
from contextlib import contextmanager
from typing import TYPE_CHECKING

import numpy as np
import pytest
import tifffile
import tqdm
import zarr
from contract_parts import (
    FIXTURES,
    correct_planes,
    correct_volume,
    keys_of,
    read_records,
    same_as,
)
from PIL import Image
from safetensors import safe_open

import napari_unet as nu
from napari_unet.cli import main
from napari_unet.core.annotations.journal import Journal

if TYPE_CHECKING:
    from pathlib import Path

PROVENANCE_KEY = "napari_unet"


def files(folder: Path) -> list[str]:
    """List the files of a folder and those below, but for locks: whether these stay is open."""
    found = (path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    return sorted(name for name in found if not name.endswith(".lock"))


def objects(seed: int = 0, shape: tuple[int, ...] = (64, 72)) -> tuple[np.ndarray, np.ndarray]:
    """Return an image of bright squares in noise, and their labels."""
    labels = np.zeros(shape, np.uint16)
    for number, (y, x) in enumerate(np.ndindex(3, 3), 1):
        labels[..., 6 + 20 * y : 14 + 20 * y, 6 + 22 * x : 16 + 22 * x] = number
    noise = np.random.default_rng(seed).normal(100, 10, shape)
    return np.uint16(noise + 900 * (labels > 0)), labels


@pytest.fixture
def interrupt(monkeypatch):
    """Press Ctrl-C when the bar of the command line moves on and something is there."""

    @contextmanager
    def when(there):
        plain = tqdm.tqdm.update

        def update(bar, n=1):
            if there():
                raise KeyboardInterrupt
            return plain(bar, n)

        with monkeypatch.context() as patch:
            patch.setattr(tqdm.tqdm, "update", update)
            yield

    return when


@pytest.fixture
def train(tmp_path):
    """Train a tiny model with the command line."""
    for name in ("images", "labels"):
        (tmp_path / name).mkdir()
    for seed in range(2):
        for name, values in zip(("images", "labels"), objects(seed), strict=True):
            tifffile.imwrite(tmp_path / name / f"cell{seed}.tif", values)
    fast = ["--device", "cpu", "--crop", "32", "--batch", "2", "--steps", "3"]
    where = [str(tmp_path / "images"), str(tmp_path / "labels")]
    return lambda *options: main(["train", *where, *fast, *options])


def read_json(path: Path) -> dict:
    return json.loads(path.read_text(encoding="utf-8"))


def test_a_model_that_is_tuned(train, home):
    assert train("--from", str(FIXTURES / "old_model"), "--name", "tuned", "--keep") == 0
    folder = home / "models" / "tuned"
    card = read_json(folder / "model.json")
    assert card["parent"] == read_json(FIXTURES / "old_model" / "model.json")["hash"]
    with safe_open(folder / "model.safetensors", "np") as weights:
        types = {name: str(weights.get_tensor(name).dtype) for name in weights.keys()}
    with safe_open(FIXTURES / "old_model" / "model.safetensors", "np") as weights:
        assert sorted(types) == sorted(weights.keys())
    with np.load(folder / "replay.npz", allow_pickle=False) as replay:
        crops = {name: str(replay[name].dtype.kind) for name in sorted(replay.files)}
    with (home / "training" / "tuned" / "log.csv").open(newline="") as file:
        columns = next(csv.reader(file))
    found = {
        "home": files(home),
        "model.json": keys_of(card, "schema"),
        "model.safetensors": sorted(set(types.values())),
        "replay.npz": {name: crops[name] for name in crops if not name[-1].isdigit()},
        "replay.npz, first": {name: crops[name] for name in crops if name.endswith("0")},
        "log.csv": columns,
    }
    same_as("model_files.json", found)


def test_an_interrupted_training_can_be_gone_on_with(train, home, capsys, interrupt):
    folder, model = home / "training" / "mine", home / "models" / "mine"
    options = ("--scratch", "--depth", "1", "--width", "4", "--validate-every", "1")
    options = (*options, "--name", "mine")
    with interrupt((folder / "checkpoint.safetensors").exists):
        assert train(*options) == 130
    last = capsys.readouterr().err.splitlines()[-1]
    kept = f"napari-unet: the best so far is kept as 'mine' in {model}; --resume goes on."
    assert last == kept
    with safe_open(folder / "checkpoint.safetensors", "np") as checkpoint:
        state = json.loads(checkpoint.metadata()["state"])
        parts = sorted({name.partition("/")[0] for name in checkpoint.keys()})
    found = {
        "home": files(home),
        "plan.json": keys_of(read_json(folder / "plan.json")),
        "checkpoint.safetensors": parts,
        "checkpoint.safetensors, state": keys_of(state),
        "model.json, training": keys_of(read_json(model / "model.json")["training"], "unfinished"),
    }
    assert 0 < state["step"] < 3
    assert train(*options, "--resume") == 0
    found["model.json, at the end"] = keys_of(read_json(model / "model.json"), "schema")
    found["home, at the end"] = files(home)
    same_as("training_files.json", found)


class TestResults:
    @pytest.fixture
    def run(self, tmp_path, make_model):
        """Segment a file with a tiny model, which finds objects of its own."""
        model = make_model(gain=6.0, card={"decode": {"min_size": 0}})
        nu.save_model(model, tmp_path / "model")
        tifffile.imwrite(
            tmp_path / "cells.tif",
            objects()[0],
            imagej=True,
            resolution=(2, 2),
            metadata={"unit": "um", "axes": "YX"},
        )

        def segment(name, *options, source="cells.tif"):
            files = [str(tmp_path / source), str(tmp_path / name)]
            return main(["segment", *files, "--model", str(tmp_path / "model"), *options])

        return segment

    def test_passports_and_what_else_a_file_says(self, run, tmp_path):
        for name in ("a.tif", "a.ome.tif", "a.png", "a.zarr"):
            assert run(name) == 0
        with tifffile.TiffFile(tmp_path / "a.tif") as file:
            said = file.imagej_metadata
        with tifffile.TiffFile(tmp_path / "a.ome.tif") as file:
            annotation = tifffile.xml2dict(file.ome_metadata)["OME"]["StructuredAnnotations"]
        value = annotation["MapAnnotation"]["Value"]["M"]
        with Image.open(tmp_path / "a.png") as picture:
            text = picture.text
        attributes = zarr.open_group(str(tmp_path / "a.zarr"), mode="r").attrs.asdict()
        assert value["K"] == PROVENANCE_KEY
        passports = {
            "a.tif, Info": json.loads(said["Info"]),
            "a.ome.tif, map annotation": json.loads(value["value"]),
            "a.png, text": json.loads(text.pop(PROVENANCE_KEY)),
        }
        passport = keys_of(passports["a.tif, Info"])
        for name, values in passports.items():
            assert keys_of(values) == passport, name
        found = {
            "passport": passport,
            "a.tif, ImageJ": sorted(said),
            "a.png, other text": sorted(text),
            "a.zarr": files(tmp_path / "a.zarr"),
            "a.zarr, ome": attributes.pop("ome"),
            "a.zarr, passport": keys_of(attributes.pop(PROVENANCE_KEY)),
            "a.zarr, others": sorted(attributes),
        }
        same_as("result_files.json", found)

    def test_a_run_in_blocks_that_is_interrupted(self, run, tmp_path, capsys, interrupt):
        folder, options = tmp_path / ".part.zarr.unfinished", ("--block", "32")
        assert run("whole.zarr", *options) == 0
        with interrupt(lambda: list(folder.rglob("*.blk"))):
            assert run("part.zarr", *options) == 130
        assert capsys.readouterr().err.splitlines()[-2:] == [
            "napari-unet: finished blocks are kept; --resume goes on with the rest.",
            "napari-unet: interrupted; no half-written file is left.",
        ]
        assert not (tmp_path / "part.zarr").exists()
        plan = read_json(folder / "plan.json")
        there = {path.name for path in folder.iterdir()}
        found = {
            "plan.json": keys_of(plan),
            "folder": sorted(there & {"plan.json", "model", "frames", "blocks"}),
            "model": files(folder / "model"),
            "first block": next(name for name in files(folder) if name.startswith("blocks/")),
        }
        same_as("block_files.json", found)
        assert run("part.zarr", *options, "--resume") == 0
        assert not folder.exists()
        whole, part = (nu.open_stack(tmp_path / f"{n}.zarr").data[:] for n in ("whole", "part"))
        assert whole.max() > 3 and np.array_equal(whole, part)

    def test_tables(self, run, tmp_path):
        image, labels = objects(shape=(3, 64, 72))
        where = {"axes": "TYX", "unit": "um", "finterval": 5}
        for name, values in (("movie.tif", image), ("labels.tif", labels)):
            tifffile.imwrite(tmp_path / name, values, imagej=True, metadata=where)
        tifffile.imwrite(tmp_path / "plain.tif", labels[0])
        assert run("linked.tif", "--link", source="movie.tif") == 0
        path = {name: str(tmp_path / name) for name in ("movie.tif", "labels.tif", "plain.tif")}
        tables = {
            "measure": ["measure", path["labels.tif"], path["movie.tif"]],
            "measure, no image": ["measure", path["plain.tif"]],
            "evaluate": ["evaluate", path["labels.tif"], path["labels.tif"]],
        }
        for name, command in tables.items():
            assert main([*command, "--csv", str(tmp_path / f"{name}.csv")]) == 0
        found = {}
        for name in (*tables, "linked.tracks"):
            with (tmp_path / f"{name}.csv").open(newline="") as file:
                found[name] = next(csv.reader(file))
        same_as("tables.json", found)


class TestJournal:
    def test_records_of_every_kind(self, home, tmp_path):
        image, labels = objects(shape=(4, 32, 40))
        with Journal.begin(nu.open_stack(image, "ZYX"), labels, model="mine") as journal:
            correct_planes(journal, labels)
        tifffile.imwrite(tmp_path / "a.tif", image, photometric="minisblack")
        Journal.open(journal.path, nu.open_stack(tmp_path / "a.tif", "ZYX")).close()
        records = read_records(journal.path)
        assert len(records) > 15
        shapes = sorted({re.sub(r"[0-9a-f]{6,}|\d+", "N", name) for name in files(home)})
        found = {"home": shapes, "first": records[0][0]["kind"], "kinds": {}}
        for header, payload in records:
            keys = {**keys_of(header, "kind", "source", "canvas"), "payload": bool(payload)}
            found["kinds"].setdefault(header["kind"], {})[header.get("source", "")] = keys
        (kept,) = journal.path.parent.glob("frame-2d-1.image")
        found["image"] = [
            {**keys_of(header, "kind"), "payload": bool(payload)}
            for header, payload in read_records(kept)
        ]
        same_as("journal_files.json", found)

    def test_pixels_are_runs_of_four_columns(self, home):
        image, labels = objects(shape=(4, 32, 40))
        first = labels.copy()
        with Journal.begin(nu.open_stack(image, "ZYX"), labels) as journal:
            correct_planes(journal, labels)
        records = read_records(journal.path)
        planes = [payload for header, payload in records if header["kind"] == "base"]
        assert np.array_equal(np.frombuffer(b"".join(planes), "<u2").reshape(first.shape), first)
        payload = next(payload for header, payload in records if header["kind"] == "edit")
        start, length, before, after = np.frombuffer(payload, "<i8").reshape(4, -1)
        wanted = first.copy()
        wanted[0, 4:9, 6:14] = 7
        pixels = first.ravel()
        for at, count, old, new in zip(np.cumsum(start), length, before, after, strict=True):
            assert (pixels[at : at + count] == old).all()
            pixels[at : at + count] = new
        assert np.array_equal(first, wanted)

    def test_large_labels_are_kept_by_touch(self, home, monkeypatch):
        monkeypatch.setattr("napari_unet.core.annotations.header.WHOLE_BYTES", 0)
        image, labels = objects(shape=(4, 24, 28))
        stack = nu.open_stack(image, "ZYX")
        with Journal.begin(stack, labels, head="semantic", ndim=3) as journal:
            correct_volume(journal, labels)
        kinds = [header["kind"] for header, _ in read_records(journal.path)]
        assert kinds == ["begin", *["base"] * 4, "edit", "known", "edit"]
