from __future__ import annotations

import pytest

from napari_unet.gui.remembered import remember, remembered


def test_remembered(home):
    assert remembered("segment") == {}
    remember("segment", {"a": 1})
    remember("train", {"b": [2.5, None]})
    assert remembered("segment") == {"a": 1} and remembered("train") == {"b": [2.5, None]}
    assert [path.name for path in home.iterdir()] == ["window.json"]


@pytest.mark.parametrize("text", ["", "{", "[1]", '{"segment": 3}', "\ufeff{}", "nul\0"])
def test_a_damaged_memory_is_none(home, text):
    (home / "window.json").write_text(text, encoding="utf-8")
    assert remembered("segment") == {}
    remember("segment", {"a": 1})
    assert remembered("segment") == {"a": 1}


def test_a_folder_that_cannot_be_written_is_no_error(home, monkeypatch):
    blocked = home / "file"
    blocked.write_text("")
    monkeypatch.setenv("NAPARI_UNET_HOME", str(blocked / "home"))
    remember("segment", {"a": 1})
    assert remembered("segment") == {}
