"""Models are written whole, read strictly, and travel as .zip files."""

from __future__ import annotations

import errno
import json
import math
import os
import shutil
import zipfile
from pathlib import Path

import imagecodecs
import numpy as np
import pytest

from napari_unet.core.errors import ModelError, OutputError
from napari_unet.core.models import archive as modelzip
from napari_unet.core.models import folder as modelfolder
from napari_unet.core.models import store
from napari_unet.core.models.card import SCHEMA, ModelCard, upgrade_card
from napari_unet.core.settings.model_spec import ModelSpec

SPEC = ModelSpec(width=4, depth=1)


def make_card(**changes) -> ModelCard:
    return ModelCard("discs", SPEC).replace(**changes)


@pytest.fixture
def tensors() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    return {
        "b.weight": rng.standard_normal((2, 3)).astype(np.float16),
        "a.bias": rng.standard_normal(3).astype(np.float32),
        "a.count": np.array(7, np.int64),
    }


@pytest.fixture(autouse=True)
def no_bundled_models(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Stand in for the models of the package with an empty folder."""
    folder = tmp_path / "bundled"
    folder.mkdir()
    monkeypatch.setattr(store, "BUNDLED", folder)
    return folder


def leftovers(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if path.name.startswith("."))


def test_home_follows_the_environment(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert store.home() == home
    monkeypatch.delenv("NAPARI_UNET_HOME")
    assert store.home().name == "napari-unet"


def test_what_is_written_is_read_back(tmp_path: Path, tensors) -> None:
    card = make_card(
        training={"spacing": np.array([1.5, 2.5]), "images": np.int64(3), "kinds": ("a", "b")},
        metrics={"ap50": math.nan, "ap75": np.float32(0.5)},
        decode={"threshold": 0.5, "merge": 0.1, "min_size": 12},
        licence="CC0-1.0",
        parent="ab" * 32,
    )
    written = modelfolder.write_model(tmp_path / "discs", card, tensors)
    read, back = modelfolder.read_model(tmp_path / "discs")
    assert read == written.replace(
        training={"spacing": [1.5, 2.5], "images": 3, "kinds": ["a", "b"]},
        metrics={"ap50": None, "ap75": 0.5},
    )
    assert len(read.hash) == 64
    assert back.keys() == tensors.keys()
    assert back["b.weight"].dtype == np.float32, "half precision is for the disk alone"
    assert back["a.count"].dtype == np.int64
    for name in tensors:
        np.testing.assert_array_equal(back[name], tensors[name])
    assert modelfolder.read_card(tmp_path / "discs") == read


def test_equal_tensors_in_another_order_have_the_same_hash(tmp_path: Path, tensors) -> None:
    turned = dict(reversed(tensors.items()))
    one = modelfolder.write_model(tmp_path / "one", make_card(), tensors)
    two = modelfolder.write_model(tmp_path / "two", make_card(), turned)
    assert one.hash == two.hash


def test_put_list_find_remove(home: Path, tensors) -> None:
    assert store.list_models() == []
    picture = np.arange(48, dtype=np.uint8).reshape(4, 4, 3)
    entry = store.put_model("discs 2", make_card(), tensors, picture)
    assert entry.path == home / "models" / "discs 2"
    assert entry.card.name == "discs 2"
    assert store.list_models() == [entry]
    np.testing.assert_array_equal(imagecodecs.png_decode(entry.thumbnail.read_bytes()), picture)
    assert store.find_model("discs 2") == store.find_model(entry.path) == entry.path
    store.remove_model("discs 2")
    assert store.list_models() == []
    assert leftovers(home / "models") == []


def test_an_unknown_model_is_answered_with_the_known_ones(home: Path, tensors) -> None:
    with pytest.raises(ModelError, match=r"no model 'cells'; known models: none yet\."):
        store.find_model("cells")
    store.put_model("discs", make_card(), tensors)
    with pytest.raises(ModelError, match="known models: discs"):
        store.find_model("cells")
    with pytest.raises(ModelError, match="known models: discs"):
        store.remove_model("cells")
    with pytest.raises(ModelError, match="no model ''"):
        store.find_model("")


def test_a_taken_name_is_only_replaced_on_demand(home: Path, tensors) -> None:
    first = store.put_model("discs", make_card(licence="one"), tensors)
    for name in ("discs", "Discs"):
        with pytest.raises(ModelError, match="choose another name or remove"):
            store.put_model(name, make_card(licence="two"), tensors)
    second = store.put_model("discs", make_card(licence="two"), tensors, overwrite=True)
    assert second.path == first.path
    assert [entry.card.licence for entry in store.list_models()] == ["two"]
    assert leftovers(home / "models") == []


def test_of_two_programs_that_store_one_name_the_second_is_told(home, tensors, monkeypatch) -> None:
    folder = store.get_free_folder("discs")  # as the second asks before the first has written
    store.put_model("discs", make_card(licence="one"), tensors)
    monkeypatch.setattr(store, "get_free_folder", lambda name, overwrite: folder)
    with pytest.raises(ModelError, match="choose another name or remove"):
        store.put_model("discs", make_card(licence="two"), tensors)
    assert [entry.card.licence for entry in store.list_models()] == ["one"]
    assert leftovers(home / "models") == []


def test_the_packages_models_are_fixed(no_bundled_models: Path, home: Path, tensors) -> None:
    modelfolder.write_model(no_bundled_models / "nuclei", make_card(name="nuclei"), tensors)
    assert [(entry.name, entry.bundled) for entry in store.list_models()] == [("nuclei", True)]
    with pytest.raises(ModelError, match="came with napari-unet"):
        store.remove_model("nuclei")
    with pytest.raises(ModelError, match="name of a model of napari-unet"):
        store.put_model("Nuclei", make_card(), tensors, overwrite=True)
    # A user's model that had the name first stays the one that is meant by it.
    modelfolder.write_model(home / "models" / "nuclei", make_card(name="nuclei"), tensors)
    assert [(entry.name, entry.bundled) for entry in store.list_models()] == [("nuclei", False)]


def test_the_default_model_leads_the_packages_and_users_models_follow(
    no_bundled_models: Path, home: Path, tensors
) -> None:
    for name in ("zebra", "nuclei", "general"):
        modelfolder.write_model(no_bundled_models / name, make_card(name=name), tensors)
    modelfolder.write_model(home / "models" / "aardvark", make_card(name="aardvark"), tensors)
    names = [entry.name for entry in store.list_models()]
    assert names == ["nuclei", "general", "zebra", "aardvark"]


PATHLIKE = ["", ".", "..", ".hidden", "a/b", "a\\b", "../up", "a:b", "tab\t", "new\nline", "\0"]
UNFIT_ON_WINDOWS = ["dot.", "space ", "con", "LPT1.x", "x" * 61]


@pytest.mark.parametrize("name", [*PATHLIKE, *UNFIT_ON_WINDOWS])
def test_names_that_no_folder_should_have(name: str, tensors) -> None:
    with pytest.raises(ModelError, match="cannot be named") as error:
        store.put_model(name, make_card(), tensors)
    assert ("Windows" in str(error.value)) == (name in ("con", "LPT1.x"))


@pytest.mark.parametrize("name", ["nuclei-2", "Zellkerne groß", "核", "a.b", "v1.0+x_y"])
def test_names_that_a_folder_may_have(name: str, tensors) -> None:
    assert store.put_model(name, make_card(), tensors).name == name
    assert modelfolder.read_card(store.find_model(name)).name == name


# ---------------------------------------------------------------------------- strict reading


def edit_card(folder: Path, **changes) -> None:
    values = json.loads((folder / "model.json").read_text("utf-8"))
    values |= changes
    (folder / "model.json").write_text(json.dumps({k: v for k, v in values.items() if v != ...}))


@pytest.fixture
def folder(tmp_path: Path, tensors) -> Path:
    modelfolder.write_model(tmp_path / "discs", make_card(), tensors)
    return tmp_path / "discs"


def test_changed_weights_are_refused(folder: Path) -> None:
    data = bytearray((folder / "model.safetensors").read_bytes())
    data[-1] ^= 1
    (folder / "model.safetensors").write_bytes(data)
    with pytest.raises(ModelError, match="damaged"):
        modelfolder.read_model(folder)


@pytest.mark.parametrize("data", [b"", b"\x80\x04K*.", b"\xff" * 64, b"\2\0\0\0\0\0\0\0{}"])
def test_weights_of_another_format_are_refused(folder: Path, data: bytes) -> None:
    (folder / "model.safetensors").write_bytes(data)
    edit_card(folder, hash=modelfolder.hashlib.sha256(data).hexdigest())
    if data.endswith(b"{}"):
        assert modelfolder.read_model(folder)[1] == {}, "a valid file without tensors"
        return
    with pytest.raises(ModelError, match="damaged"):
        modelfolder.read_model(folder)


@pytest.mark.parametrize("name", ["model.json", "model.safetensors"])
def test_a_missing_file_is_named(folder: Path, name: str) -> None:
    (folder / name).unlink()
    with pytest.raises(ModelError, match=name):
        modelfolder.read_model(folder)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"schema": SCHEMA + 1}, "update napari-unet"),
        ({"schema": 0}, "schema is 0"),
        ({"schema": "1"}, "schema is '1'"),
        ({"schema": True}, "schema is True"),
        ({"schema": ...}, "schema is None"),
        ({"extra": 1}, "unknown entries: extra"),
        ({"spec": {"ndim": 2, "wings": 3}}, "wings"),
        ({"spec": {"ndim": 4}}, "ndim is 4"),
        ({"spec": ...}, "lacks the entries: spec"),
        ({"spec": [1]}, "'spec' is"),
        ({"name": 3}, "'name' is 3"),
        ({"hash": None}, "'hash' is None"),
        ({"parent": 5}, "'parent' is 5"),
        ({"decode": {"threshold": "half"}}, "decode.threshold"),
        ({"decode": {"wings": 1}}, "decode has unknown parts: wings"),
        ({"normalisation": {"low": None}}, "normalisation.low"),
        ({"normalisation": {"low": 1.0}}, "normalisation lacks high"),
    ],
)
def test_a_card_that_cannot_be_used_is_refused(folder: Path, changes, message: str) -> None:
    edit_card(folder, **changes)
    with pytest.raises(ModelError, match=message) as error:
        modelfolder.read_model(folder)
    assert str(folder) in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("text", [b"", b"{", b"[]", b"3", b"\xff\xfe", b"[" * 100_000])
def test_a_card_that_is_no_card_is_refused(folder: Path, text: bytes) -> None:
    (folder / "model.json").write_bytes(text)
    with pytest.raises(ModelError, match="cannot be used"):
        modelfolder.read_card(folder)


def test_a_broken_model_is_listed_with_its_problem(home: Path, tensors) -> None:
    entry = store.put_model("discs", make_card(), tensors)
    (entry.path / "model.json").write_text("{}")
    (broken,) = store.list_models()
    assert broken.card is None
    assert "schema is None" in broken.problem


def test_upgrade_leaves_the_present_schema_alone() -> None:
    values = make_card(hash="0" * 64).to_json()
    assert upgrade_card(values) == values
    assert ModelCard.from_json(values) == make_card(hash="0" * 64)


# ---------------------------------------------------------------------------- atomic writing


@pytest.mark.parametrize("step", ["write", "sync", "rename"])
def test_a_failed_write_leaves_the_old_model(folder: Path, tensors, monkeypatch, step: str) -> None:
    before = modelfolder.read_card(folder)

    def full(*args):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    rename = Path.rename
    if step == "write":
        monkeypatch.setattr(modelfolder, "write_card", full)
    elif step == "sync":
        monkeypatch.setattr(modelfolder.os, "fsync", full)
    else:
        monkeypatch.setattr(
            Path, "rename", lambda self, to: full() if ".part-" in self.name else rename(self, to)
        )
    with pytest.raises(OutputError, match="No space left on device"):
        modelfolder.write_model(folder, make_card(licence="new"), tensors)
    monkeypatch.undo()
    assert modelfolder.read_model(folder)[0] == before
    assert leftovers(folder.parent) == []


def test_an_interrupted_swap_is_undone(home: Path, tensors) -> None:
    entry = store.put_model("discs", make_card(), tensors)
    entry.path.rename(entry.path.with_name(".discs.old-12345678"))
    assert store.list_models() == [entry]
    # And where the new one had arrived already, what is left of the old one goes away.
    shutil.copytree(entry.path, entry.path.with_name(".discs.old-12345678"))
    assert store.list_models() == [entry]
    assert leftovers(home / "models") == []


def test_only_a_model_is_ever_replaced(tmp_path: Path, tensors) -> None:
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "one.jpg").touch()
    with pytest.raises(OutputError, match="is no model"):
        modelfolder.write_model(tmp_path / "photos", make_card(), tensors)
    assert [path.name for path in (tmp_path / "photos").iterdir()] == ["one.jpg"]


def test_a_store_that_cannot_be_written(tmp_path: Path, monkeypatch, tensors) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("NAPARI_UNET_HOME", str(tmp_path / "file"))
    with pytest.raises(OutputError, match="cannot be written"):
        store.put_model("discs", make_card(), tensors)


# ---------------------------------------------------------------------------- import and export


@pytest.fixture
def archive(tmp_path: Path, folder: Path) -> Path:
    return modelzip.export_model(folder, tmp_path / "discs.zip")


def test_a_model_travels(home: Path, folder: Path, archive: Path) -> None:
    entry = modelzip.import_model(archive)
    assert entry.name == "discs"
    here, there = modelfolder.read_model(folder), modelfolder.read_model(entry.path)
    assert here[0] == there[0]
    assert all(np.array_equal(here[1][name], there[1][name]) for name in here[1])
    renamed = modelzip.import_model(folder, "discs again")
    assert renamed.card == here[0].replace(name="discs again")
    assert leftovers(home / "models") == []
    with pytest.raises(ModelError, match="already"):
        modelzip.import_model(archive)


def test_equal_models_give_equal_archives(folder: Path, archive: Path, tmp_path: Path) -> None:
    again = modelzip.export_model(folder, tmp_path / "again.zip")
    assert again.read_bytes() == archive.read_bytes()
    with zipfile.ZipFile(archive) as packed:  # unpacked by hand, the files may be read
        assert {info.external_attr >> 16 for info in packed.infolist()} == {0o644}


def test_export_refuses(folder: Path, archive: Path, tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="exists already"):
        modelzip.export_model(folder, archive)
    assert modelzip.export_model(folder, archive, overwrite=True) == archive
    with pytest.raises(OutputError, match=r"end in \.zip"):
        modelzip.export_model(folder, tmp_path / "discs.tar")
    with pytest.raises(OutputError, match="cannot be written"):
        modelzip.export_model(folder, tmp_path / "nowhere" / "discs.zip")
    (folder / "model.safetensors").write_bytes(b"other")
    with pytest.raises(ModelError, match="damaged"):
        modelzip.export_model(folder, tmp_path / "damaged.zip")
    assert leftovers(tmp_path) == []


def pack_by_hand(target: Path, folder: Path, names: dict[str, str], extra=()) -> Path:
    with zipfile.ZipFile(target, "w") as archive:
        for name, inside in names.items():
            archive.write(folder / name, inside)
        for inside in extra:
            archive.writestr(inside, "x")
    return target


PLAIN = {name: name for name in ("model.safetensors", "model.json")}


def test_archives_made_by_hand_are_taken(folder: Path, tmp_path: Path) -> None:
    inside = {name: f"discs/{name}" for name in PLAIN}
    junk = ("__MACOSX/._discs", "discs/.DS_Store", "discs/")
    pack_by_hand(tmp_path / "a.zip", folder, inside, junk)
    entry = modelzip.import_model(tmp_path / "a.zip")
    assert sorted(path.name for path in entry.path.iterdir()) == sorted(PLAIN)


@pytest.mark.parametrize(
    ("names", "extra", "message"),
    [
        (PLAIN, ["evil.py"], "evil.py"),
        (PLAIN, ["model.pkl"], "model.pkl"),
        (PLAIN, ["../thumbnail.png"], r"\.\./thumbnail.png"),
        (PLAIN, ["/thumbnail.png"], "/thumbnail.png"),
        (PLAIN, ["a/b/thumbnail.png"], "a/b/thumbnail.png"),
        (PLAIN, ["other/thumbnail.png"], "different folders"),
        (PLAIN, ["other/model.json"], "other/model.json"),
        ({"model.json": "model.json"}, [], "lacks model.safetensors"),
        ({"model.json": "../model.json"}, [], r"\.\./model.json"),
        ({}, [], "lacks model.json and model.safetensors"),
    ],
)
def test_archives_that_are_no_model(
    home: Path, folder: Path, tmp_path: Path, names, extra, message: str
) -> None:
    pack_by_hand(tmp_path / "a.zip", folder, names, extra)
    with pytest.raises(ModelError, match=message):
        modelzip.import_model(tmp_path / "a.zip")
    assert list((home / "models").iterdir()) == []
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.zip", "bundled", "discs"]


def test_import_refuses(home: Path, folder: Path, tmp_path: Path, archive: Path) -> None:
    for source in (tmp_path / "none.zip", folder / "model.json"):
        with pytest.raises(ModelError, match="No model can be imported from") as error:
            modelzip.import_model(source)
        assert str(source) in str(error.value)
    (tmp_path / "empty").mkdir()
    with pytest.raises(ModelError, match=r"empty is no model: it lacks model.json and model.s"):
        modelzip.import_model(tmp_path / "empty")
    cut = tmp_path / "cut.zip"
    cut.write_bytes(archive.read_bytes()[:-40])
    with pytest.raises(ModelError, match="No model can be imported"):
        modelzip.import_model(cut)
    spoilt = bytearray(archive.read_bytes())
    spoilt[60:80] = bytes(20)
    cut.write_bytes(spoilt)
    with pytest.raises(ModelError, match="No model can be imported"):
        modelzip.import_model(cut)
    edit_card(folder, hash="0" * 64)
    with pytest.raises(ModelError, match="damaged") as error:
        modelzip.import_model(folder)
    assert str(folder) in str(error.value), "the message names what the user gave"
    assert list((home / "models").iterdir()) == []


def test_an_archive_that_unpacks_to_too_much(archive: Path, monkeypatch) -> None:
    monkeypatch.setitem(modelzip.LIMITS, "model.safetensors", 10)
    with pytest.raises(ModelError, match="larger than a model's"):
        modelzip.import_model(archive)


def test_an_archive_that_is_made_to_fill_the_disk(home: Path, folder: Path, tmp_path: Path):
    bomb = tmp_path / "bomb.zip"
    with zipfile.ZipFile(bomb, "w", zipfile.ZIP_DEFLATED) as packed:
        packed.write(folder / "model.json", "model.json")
        packed.writestr("model.safetensors", bytes(20 << 20))
    with pytest.raises(ModelError, match=r"model.safetensors unpacks to more than 100 times"):
        modelzip.import_model(bomb)
    assert list((home / "models").iterdir()) == []


def test_a_name_on_the_card_is_not_trusted(home: Path, folder: Path) -> None:
    edit_card(folder, name="../../up")
    with pytest.raises(ModelError, match="cannot be named"):
        modelzip.import_model(folder)
    assert modelzip.import_model(folder, "safe").path == home / "models" / "safe"
