"""Model folders with something wrong in the card, the weights or the rehearsal set."""

from __future__ import annotations

import hashlib
import io
import json
import os
import zipfile

import numpy as np
from hypothesis import strategies as st
from mutations import changed_bytes, changed_json

from napari_unet.core.models import archive
from napari_unet.core.models.card import ModelCard
from napari_unet.core.models.folder import CARD, WEIGHTS, read_model
from napari_unet.core.models.own_record import OwnRecord
from napari_unet.core.models.store import BUNDLED, ModelEntry, list_models
from napari_unet.core.progress import run_to_end
from napari_unet.core.settings.tasks import PredictSettings
from napari_unet.core.training.rehearsal import RehearsalCrop, pack_rehearsal, unpack_rehearsal

IMAGE = np.random.default_rng(0).integers(0, 255, (40, 40), np.uint8)


def full_card(home) -> dict:
    """Return the card of the tests' tiny model, with all that the card of a good model has."""
    values = json.loads((home / "models" / "tiny" / CARD).read_text())
    rich = json.loads((BUNDLED / "nuclei" / CARD).read_text())
    for name in ("training", "metrics", "decode", "licence", "parent"):
        values[name] = rich[name]
    values["training"] |= {"rounds": [[0, 0.5], [40, 0.6]], "unfinished": False}
    values["metrics"]["tuning"] = {
        "verdict": "better", "reason": "it is.", "metric": "AP50", "before": 0.4, "after": 0.5,
        "replay_before": None, "replay_after": None,
    }  # fmt: skip
    return values


def test_cards(fuzz, tiny_model, home) -> None:
    """A card is refused when it is read, or the model segments, and every panel can show it."""
    from napari_unet.cli.models import _card_lines
    from napari_unet.core.training.config import usual_object_share
    from napari_unet.core.training.model_comparison import get_rounds
    from napari_unet.gui.finetune.versions import describe, format_score
    from napari_unet.gui.models.card_text import describe_model, to_html
    from napari_unet.nn.inference.model import load_model
    from napari_unet.nn.inference.segment import segment_steps

    folder, values = home / "models" / tiny_model, full_card(home)

    def check(card) -> None:
        text = json.dumps(card).encode("utf-8", "surrogatepass")
        (folder / CARD).write_bytes(text)
        list_models()
        found = ModelCard.from_text(text)
        "\n".join(_card_lines(found)).encode()
        describe(found)
        to_html(describe_model(ModelEntry("m", folder, False, found), {}, OwnRecord()))
        format_score(found)
        get_rounds(found.training)
        usual_object_share(found.training)
        assert ModelCard.from_text(found.to_text()) == found
        model = load_model(folder, "cpu")
        run_to_end(segment_steps(IMAGE, model, PredictSettings(tile=64)))

    check(values)
    fuzz(changed_json(values), check, 120)


def test_cards_of_bytes(fuzz, tiny_model, home) -> None:
    text = json.dumps(full_card(home), indent=1).encode()
    fuzz(changed_bytes([text]), ModelCard.from_text, 300)


def test_weights_and_archives(fuzz, tiny_model, home) -> None:
    folder, zipped = home / "models" / tiny_model, home / "m.zip"
    card = json.loads((folder / CARD).read_text())
    weights = (folder / WEIGHTS).read_bytes()
    run_to_end(archive.pack_model(folder, zipped))
    whole = zipped.read_bytes()

    def check(drawn) -> None:
        is_zip, data = drawn
        if is_zip:
            zipped.write_bytes(data)
            entry = archive.import_model(zipped, "new")
            entry.path.rename(entry.path.with_name(f".{os.urandom(4).hex()}"))
            return
        (folder / WEIGHTS).write_bytes(data)
        values = {**card, "hash": hashlib.sha256(data).hexdigest()}
        (folder / CARD).write_text(json.dumps(values))
        read_model(folder)

    bad = st.tuples(st.just(True), changed_bytes([whole], 3))
    fuzz(bad | st.tuples(st.just(False), changed_bytes([weights], 3)), check, 100)


def test_rehearsal_sets(fuzz) -> None:
    rng = np.random.default_rng(0)
    crops = [
        RehearsalCrop(
            rng.integers(0, 255, (3, 20, 24), np.uint8),
            rng.integers(0, 4, (20, 24)).astype(np.uint16),
            rng.integers(0, 2, (20, 24)).astype(bool),
            12.0,
            "a",
        )
    ] * 2
    packed = pack_rehearsal(crops)
    parts = zipfile.ZipFile(io.BytesIO(packed))
    arrays = {name: parts.read(name) for name in parts.namelist()}

    @st.composite
    def rezipped(draw):
        """Draw a set in which one array is damaged, inside an archive that is whole."""
        name = draw(st.sampled_from(sorted(arrays)))
        out = io.BytesIO()
        with zipfile.ZipFile(out, "w") as archive_:
            for part, data in arrays.items():
                archive_.writestr(part, draw(changed_bytes([data], 3)) if part == name else data)
        return out.getvalue()

    fuzz(changed_bytes([packed]) | rezipped(), unpack_rehearsal, 400)
