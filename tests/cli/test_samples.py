"""`napari-unet samples`."""

from __future__ import annotations

import numpy as np

from napari_unet.cli import main
from napari_unet.core.io.label_reader import read_labels
from napari_unet.core.io.sample_images import SAMPLES, sample_path
from napari_unet.core.io.stack import open_stack


def test_each_image_has_its_truth_under_the_same_name(tmp_path, capsys):
    assert main(["samples", str(tmp_path / "new")]) == 0
    images = sorted((tmp_path / "new" / "images").iterdir())
    assert [path.name for path in images] == sorted(sample_path(name).name for name in SAMPLES)
    for path in images:
        truth = read_labels(tmp_path / "new" / "truth" / path.name)
        assert truth.shape == open_stack(path).labels_shape and truth.any()
    assert "MIT License" in (tmp_path / "new" / "README.md").read_text(encoding="utf-8")
    assert len(capsys.readouterr().out.splitlines()) == len(SAMPLES)


def test_nothing_that_exists_is_replaced_unasked(tmp_path, capsys):
    taken = tmp_path / "truth" / sample_path("neuron").name
    taken.parent.mkdir()
    taken.write_bytes(b"mine")
    assert main(["samples", str(tmp_path)]) == 2
    assert "--overwrite" in capsys.readouterr().err
    assert taken.read_bytes() == b"mine" and not (tmp_path / "images").exists()
    assert main(["samples", str(tmp_path), "--overwrite"]) == 0
    assert np.any(read_labels(taken))
