"""A lab's models in a folder that is only read (NAPARI_UNET_MODELS)."""

from __future__ import annotations

import pytest

from napari_unet.cli import main
from napari_unet.core.errors import ModelError
from napari_unet.core.models.store import find_model, list_models
from napari_unet.nn.inference.model import load_model, save_model


@pytest.fixture
def shared(make_model, tmp_path, monkeypatch):
    """A shared folder with two models, one of which has the name of a user's."""
    folder = tmp_path / "lab"
    save_model(make_model(), folder / "ours")
    save_model(make_model(), folder / "mine")
    save_model(make_model(width=5), "mine")
    monkeypatch.setenv("NAPARI_UNET_MODELS", str(folder))
    return folder


def files(folder):
    return {path: path.stat().st_mtime_ns for path in sorted(folder.rglob("*"))}


def test_shared_models_are_listed_between_the_packages_and_the_users(shared, home, capsys):
    origins = {entry.name: entry.origin for entry in list_models()}
    assert origins == {
        "nuclei": "napari-unet",
        "general": "napari-unet",
        "ours": "shared",
        "mine": "you",
    }
    assert list(origins) == ["nuclei", "general", "ours", "mine"]
    assert find_model("ours") == shared / "ours"
    assert find_model("mine") == home / "models" / "mine", "the user's own hides it"
    assert load_model("ours", "cpu").name == "ours"
    assert main(["models", "list"]) == 0
    assert "shared" in capsys.readouterr().out


def test_nothing_is_written_there(shared, make_model):
    before = files(shared)
    with pytest.raises(ModelError, match="is shared and cannot be removed; ask who keeps"):
        from napari_unet.core.models.store import remove_model

        remove_model("ours")
    with pytest.raises(ModelError, match="is the name of a shared model"):
        save_model(make_model(), "ours", overwrite=True)
    save_model(make_model(), "new")
    assert files(shared) == before


def test_a_folder_that_is_not_there_is_empty(tmp_path, monkeypatch):
    monkeypatch.setenv("NAPARI_UNET_MODELS", str(tmp_path / "unmounted"))
    assert {entry.origin for entry in list_models()} == {"napari-unet"}
