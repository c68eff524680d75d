"""What users rely on by name: the Python package, the command line, the manifest.

`fixtures` holds what they are promised; `contract_parts` says how it is changed.
"""

from __future__ import annotations

import inspect
from pathlib import Path

import numpy as np
import pytest
import tifffile
import tqdm
import yaml
from contract_parts import commands, public_name, same_as

import napari_unet as nu
from napari_unet.cli import build_parser, main

ROOT = Path(__file__).resolve().parents[1]
ERROR = "napari-unet: error: "


class TestPython:
    def test_public_names(self):
        same_as("public_names.json", {name: public_name(getattr(nu, name)) for name in nu.__all__})

    def test_errors_are_caught_by_one_name(self):
        errors = [value for name in nu.__all__ if inspect.isclass(value := getattr(nu, name))]
        errors = [error for error in errors if issubclass(error, BaseException)]
        assert len(errors) > 5
        assert [error.__name__ for error in errors if not issubclass(error, nu.UnetError)] == []

    def test_what_a_run_yields_and_gives(self, make_model):
        steps, yielded = nu.segment_steps(np.eye(40, dtype=np.float32), make_model()), {}
        while True:
            try:
                step = next(steps)
            except StopIteration as end:
                yielded["result"] = sorted(vars(end.value))
                break
            yielded[type(step).__name__] = sorted(vars(step))
        same_as("steps.json", yielded)

    def test_the_attributes_that_a_session_and_a_tuning_say_they_have(self, clicking_model):
        image = np.zeros((40, 40), np.float32)
        image[10:20, 10:20] = 1
        model = clicking_model()
        session = nu.ClickSession(model, image, np.zeros((40, 40), np.uint16))
        names = ("cache", "labels", "mask", "model", "overwrite", "settings", "shown", "stack")
        assert [name for name in names if not hasattr(session, name)] == []
        samples = nu.Samples.from_labels([(image, np.uint8(image))], channels=1)
        tuning = nu.Tuning(model, samples)
        names = ("folder", "judgement", "model", "samples", "settings", "split", "state")
        assert [name for name in names if not hasattr(tuning, name)] == []
        names = ("after", "before", "keep", "metric", "reason", "verdict")
        assert [name for name in names if not hasattr(tuning.judgement, name)] == []

    def test_what_a_commit_gives_can_be_taken_back(self, clicking_model):
        image = np.zeros((40, 40), np.float32)
        image[10:20, 10:20] = 1
        labels = np.zeros(image.shape, np.uint16)
        session = nu.ClickSession(clicking_model(), image, labels)
        mask = session.add(nu.Click((15, 15)))
        change = session.commit()
        assert change.label == 1 and np.array_equal(labels == 1, mask) and mask.any()
        change.undo(labels)
        assert not labels.any()
        change.apply(labels)
        assert np.array_equal(labels == 1, mask)


class TestCommandLine:
    def test_commands_and_options(self):
        same_as("command_line.json", commands(build_parser()))

    @pytest.mark.parametrize(
        "arguments", [["--help"], ["--version"], ["segment", "--help"], ["models", "list"]]
    )
    def test_done_is_0(self, arguments, capsys):
        assert main(arguments) == 0
        out, err = capsys.readouterr()
        assert out and not err

    @pytest.mark.parametrize(
        "arguments",
        [
            [],
            ["segmnt"],
            ["models"],
            ["segment"],
            ["segment", "missing.tif", "out.tif"],
            ["segment", "missing.tif", "out.tif", "--thresh", "0.5"],
            ["segment", "missing.tif", "out.tif", "--threshold", "2"],
            ["segment", "missing.tif", "out.tif", "--precision", "int8"],
            ["segment", "missing.tif", "out.tif", "--model", "unheard-of"],
            ["train", "images", "labels", "--name", "mine"],
            ["train", "images", "labels", "--name", "mine", "--scratch", "--from", "nuclei"],
            ["evaluate", "missing.tif", "missing.tif"],
            ["measure", "missing.tif"],
            ["view", "missing.tif"],
            ["models", "show", "unheard-of"],
            ["models", "remove", "nuclei"],
            ["models", "import", "missing.zip"],
        ],
        ids=" ".join,
    )
    def test_what_cannot_be_used_is_2_and_one_line(self, arguments, capsys):
        assert main(arguments) == 2
        out, err = capsys.readouterr()
        assert not out
        assert err.startswith(ERROR) and err.count("\n") == 1 and len(err) > len(ERROR) + 10

    def test_an_interrupt_is_130_and_leaves_nothing(
        self, tiny_model, tmp_path, capsys, monkeypatch
    ):
        def interrupted(*_):
            raise KeyboardInterrupt

        monkeypatch.setattr(tqdm.tqdm, "update", interrupted)
        image = tmp_path / "cells.tif"
        tifffile.imwrite(image, np.eye(40, dtype=np.uint8))
        command = ["segment", str(image), str(tmp_path / "out.tif"), "--model", tiny_model]
        assert main(command) == 130
        assert (
            capsys.readouterr().err == "napari-unet: interrupted; no half-written file is left.\n"
        )
        assert [path.name for path in tmp_path.iterdir()] == ["cells.tif"]


class TestManifest:
    def test_ids_titles_and_menus(self):
        manifest = yaml.safe_load((ROOT / "napari.yaml").read_text(encoding="utf-8"))
        for command in manifest["contributions"]["commands"]:
            assert command.pop("python_name")  # what is behind an id may move
        same_as("manifest.json", manifest)
