"""Model folders from strangers: what their files hold is checked before anything uses it."""

from __future__ import annotations

import json
import os
import time
from typing import TYPE_CHECKING

import numpy as np
import pytest
import safetensors.numpy

from napari_unet.cli import main
from napari_unet.core.errors import ModelError
from napari_unet.core.models import archive
from napari_unet.core.models.card import ModelCard
from napari_unet.core.models.folder import CARD, REPLAY, WEIGHTS, read_card, read_model, write_model
from napari_unet.core.models.store import BUNDLED, list_models
from napari_unet.core.settings.model_spec import ModelSpec

if TYPE_CHECKING:
    from pathlib import Path

GOOD = ModelCard("m", ModelSpec(width=4, depth=1)).to_json()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_model(tmp_path / "m", ModelCard("m", ModelSpec(width=4, depth=1)), {"w": np.ones(4)})
    return tmp_path / "m"


BAD = [
    ("decode", {"min_size": float("nan")}),
    ("decode", {"min_size": -1}),
    ("decode", {"threshold": 1.5}),
    ("decode", {"merge": True}),
    ("normalisation", {"low": 99.0, "high": 1.0}),
    ("normalisation", {"low": 1.0, "high": float("inf")}),
    ("training", []),
    ("training", {"diameter_px": 5}),
    ("training", {"diameter_px": {"q50": "wide"}}),
    ("training", {"diameter_px": {"q50": 1e-9}}),
    ("training", {"working_diameter_px": [22]}),
    ("training", {"working_diameter_px": -3}),
    ("training", {"statistics": {"noise": 1}}),
    ("training", {"statistics": {"noise": [2, 1]}}),
    ("training", {"statistics": {"smell": [0, 1]}}),
    ("training", {"statistics": [["noise", 0, 1]]}),
    ("training", {"rounds": [[1, 2, 3]]}),
    ("training", {"rounds": {"a": 1}}),
    ("training", {"objects": "many"}),
    ("training", {"data_hash": 5}),
    ("training", {"unfinished": "no"}),
    ("training", {"note": 10**400}),
    ("metrics", {"bfloat16_dice": "good"}),
    ("metrics", {"bfloat16_dice": [1]}),
    ("metrics", {"tuning": 3}),
    ("metrics", {"tuning": {"after": "0.5"}}),
    ("metrics", {"tuning": {"metric": None}}),
    ("click", {"spec": 5}),
    ("click", {"spec": {"depth": 99}}),
    ("click", {"training": []}),
    ("spec", {"residual": "yes"}),
    ("spec", {"pooling": [[float("inf"), 2]]}),
    ("spec", {"pooling": "ab"}),
    ("spec", {"kernels": [[3, None]]}),
    ("name", "half a character \ud800"),
    ("licence", "bell \x07"),
    ("training", {"\udc00": 1}),
]


@pytest.mark.parametrize(("entry", "value"), BAD, ids=lambda part: ascii(part)[:40])
def test_a_bad_entry_is_refused_when_the_card_is_read(folder, capsys, entry, value) -> None:
    values = json.loads((folder / CARD).read_text())
    values[entry] = {**values[entry], **value} if entry == "spec" else value
    (folder / CARD).write_text(json.dumps(values))
    with pytest.raises(ModelError) as error:
        read_card(folder)
    text = str(error.value)
    assert len(text) < 500 and "\n" not in text
    text.encode()  # the terminal can show it
    assert main(["models", "show", str(folder)]) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_nested_without_end() -> None:
    deep: object = 1
    for _ in range(200):
        deep = [deep]
    with pytest.raises(ModelError, match="nested too deeply"):
        ModelCard.from_json({**GOOD, "training": {"x": deep}})
    with pytest.raises(ModelError, match="not valid JSON"):
        ModelCard.from_text("[" * 100_000)


def test_the_cards_of_the_package_and_free_entries_are_read() -> None:
    for path in BUNDLED.iterdir():
        if (path / CARD).is_file():
            read_card(path)
    free = {"training": {"camera": {"name": "É", "pixels": [1, None, 2.5]}}, "metrics": {"a b": {}}}
    assert ModelCard.from_json({**GOOD, **free}).training == free["training"]


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="Windows has no named pipes in folders")
@pytest.mark.parametrize("name", [CARD, WEIGHTS, REPLAY])
def test_a_pipe_in_place_of_a_file_is_not_waited_for(folder, home, capsys, name) -> None:
    values = json.loads((folder / CARD).read_text())
    (folder / CARD).write_text(json.dumps({**values, "replay": "00"}))
    (folder / name).unlink(missing_ok=True)
    os.mkfifo(folder / name)
    began = time.monotonic()
    with pytest.raises(ModelError):
        archive.import_model(folder, "new")
    if name == WEIGHTS:
        with pytest.raises(ModelError, match="is no file"):
            read_model(folder)
    os.mkfifo(home / "pipe.zip")
    with pytest.raises(ModelError, match="is no file"):
        archive.import_model(home / "pipe.zip")
    (home / "models").mkdir(exist_ok=True)
    folder.rename(home / "models" / "m")
    list_models()
    assert time.monotonic() - began < 20


def test_weights_that_are_no_numbers_are_refused(folder) -> None:
    write_model(folder, ModelCard("m", ModelSpec(width=4)), {"w": np.array([1, np.nan], "f4")})
    with pytest.raises(ModelError, match="weights 'w' are no finite numbers"):
        read_model(folder)


def test_weights_that_are_damaged_are_refused(folder) -> None:
    import hashlib

    whole = safetensors.numpy.save({"w": np.ones(4, np.float32)})
    values = json.loads((folder / CARD).read_text())
    for data in (whole[:20], b"\xff" * 64, b"", whole.replace(b"F32", b"Q99")):
        (folder / WEIGHTS).write_bytes(data)
        values["hash"] = hashlib.sha256(data).hexdigest()
        (folder / CARD).write_text(json.dumps(values))
        with pytest.raises(ModelError, match="is damaged"):
            read_model(folder)


def test_a_network_that_no_memory_could_hold_is_refused_at_once(folder, capsys, tmp_path) -> None:
    import tifffile

    values = json.loads((folder / CARD).read_text())
    values["spec"] |= {"width": 512, "max_width": 4096, "depth": 7, "kernel": 9, "convs": 8}
    (folder / CARD).write_text(json.dumps(values))
    tifffile.imwrite(tmp_path / "i.tif", np.eye(32, dtype=np.uint8))
    began = time.monotonic()
    command = ["segment", str(tmp_path / "i.tif"), str(tmp_path / "o.tif"), "--model", str(folder)]
    assert main([*command, "--device", "cpu"]) == 2
    assert "do not fit its card" in capsys.readouterr().err
    assert time.monotonic() - began < 60
