"""The user's models renamed and deleted with a way back; notes and scores beside them."""

from __future__ import annotations

import json

import pytest

from napari_unet.core.errors import ModelError
from napari_unet.core.models.own_record import (
    MOST_SCORES,
    OwnRecord,
    OwnScores,
    add_scores,
    read_record,
    record_path,
    write_note,
)
from napari_unet.core.models.store import find_model, get_free_name, list_models
from napari_unet.core.models.upkeep import rename_model, restore_model, trash_model

HASH = "0" * 64


def names():
    return [entry.name for entry in list_models() if not entry.bundled]


class TestNames:
    def test_renamed(self, tiny_model):
        before = find_model("tiny")
        entry = rename_model("tiny", "small")
        assert names() == ["small"] and not before.exists()
        assert entry.card.name == "small" and entry.path == find_model("small")
        assert rename_model("small", "Small").name == "Small", "the same to some file systems"

    @pytest.mark.parametrize(
        ("name", "new", "message"),
        [
            ("nuclei", "mine", "came with napari-unet and cannot be renamed"),
            ("tiny", "a/b", "cannot be named 'a/b'"),
            ("tiny", "nuclei", "is the name of a model of napari-unet"),
            ("unheard-of", "mine", "There is no model"),
        ],
    )
    def test_refused(self, tiny_model, name, new, message):
        with pytest.raises(ModelError, match=message):
            rename_model(name, new)
        assert names() == ["tiny"]

    def test_a_title_becomes_a_free_name(self, tiny_model):
        assert get_free_name("tiny") == "tiny 2"
        assert get_free_name("Nuclei") == "Nuclei 2"
        assert get_free_name("cells / nuclei: 'v2'") == "cells nuclei v2"
        with pytest.raises(ModelError, match="cannot be named"):
            get_free_name("//")


def test_deleted_and_brought_back(tiny_model, make_model):
    from napari_unet.nn.inference.model import save_model

    deleted = trash_model("tiny")
    assert names() == [] and deleted.folder.is_dir()
    save_model(make_model(), "tiny")
    assert restore_model(deleted) == "tiny 2"
    assert names() == ["tiny", "tiny 2"] and not deleted.folder.parent.exists()
    assert next(e.card.name for e in list_models() if e.name == "tiny 2") == "tiny 2"


class TestRecord:
    def scores(self, data="x", **scores):
        return OwnScores("2027-01-01", "image.tif", "true", data, 3, 4, scores)

    def test_what_is_added_is_read_back(self):
        assert read_record(HASH) == OwnRecord()
        write_note(HASH, "  good on plate 3\n")
        add_scores(HASH, self.scores(AP50=0.5))
        add_scores(HASH, self.scores("y", AP50=0.6))
        add_scores(HASH, self.scores(AP50=0.7))
        found = read_record(HASH)
        assert found.note == "good on plate 3"
        assert [(e.data, e.scores["AP50"]) for e in found.evaluations] == [("y", 0.6), ("x", 0.7)]

    def test_only_so_many_are_kept(self):
        add_scores(HASH, self.scores("0"))
        path = record_path(HASH)
        values = json.loads(path.read_text(encoding="utf-8"))
        many = [values["evaluations"][0] | {"data": str(n)} for n in range(MOST_SCORES)]
        path.write_text(json.dumps(values | {"evaluations": many}), encoding="utf-8")
        add_scores(HASH, self.scores("new"))
        found = read_record(HASH).evaluations
        assert len(found) == MOST_SCORES and found[-1].data == "new" and found[0].data == "1"

    @pytest.mark.parametrize("text", ["", "[]", '{"schema": 1}', '{"schema": 99}'])
    def test_what_cannot_be_read_is_not_written_over(self, text):
        write_note(HASH, "mine")
        record_path(HASH).write_text(text, encoding="utf-8")
        with pytest.raises(ModelError):
            write_note(HASH, "other")
        assert record_path(HASH).read_text(encoding="utf-8") == text

    def test_a_hash_is_no_path(self):
        assert record_path("../../evil") is None and read_record("../x") == OwnRecord()
        with pytest.raises(ModelError, match="no hash"):
            write_note("../../evil", "x")
