"""What is known of a model, in words: each line has a name and a text."""

from __future__ import annotations

import datetime
from html import escape
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from napari_unet.core.errors import ModelError
from napari_unet.core.models.folder import REPLAY, WEIGHTS
from napari_unet.core.models.foreign_folder import (
    foreign_weights,
    is_foreign,
    is_trusted,
    read_network,
)
from napari_unet.core.settings.foreign_spec import CLASSES, IMAGE, OBJECTS, ONNX
from napari_unet.core.text import pluralise

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from napari_unet.core.models.card import ModelCard
    from napari_unet.core.models.own_record import OwnRecord
    from napari_unet.core.models.store import ModelEntry

Rows = list[tuple[str, str]]

_SHOWN_SCORES = ("AP50", "AP75", "F1", "PQ", "Dice", "IoU")
_MEANS = {
    OBJECTS: "objects, divided where they touch",
    CLASSES: "classes of pixels",
    IMAGE: "an image, not labels: Segment has no use for it",
}
_LONGEST = 400
"""Letters of a description of somebody else."""


def describe_model(entry: ModelEntry, known: Mapping[str, str], record: OwnRecord) -> Rows:
    """Return what is known of a model, as names and texts.

    Parameters
    ----------
    known
        Names of the models of the store, by the hashes of their weights.
    record
        What the user has added.
    """
    card = entry.card
    if card is None:
        return [("", entry.problem)]
    foreign = is_foreign(entry.path)
    rows = [("kind", _kind(card, foreign))]
    rows += _foreign(entry, card) if foreign else _taught(card, known)
    rows += [("scores", text) for text in list(_scores(card.metrics)) or ["not measured"]]
    rows += [("tested by you", text) for text in _own_scores(record)]
    rows.append(("licence", card.licence or "not stated; ask who made it"))
    if card.parent:
        parent = known.get(card.parent, f"SHA-256 {card.parent[:12]}, which is not here")
        rows.append(("tuned from", parent))
    rows.append(("from", _origin(entry)))
    rows += [("missing", text) for text in missing_parts(entry)]
    return [(name, text) for name, text in rows if text]


def to_html(rows: Rows) -> str:
    """Return lines as rich text; a name that is that of the line before is not repeated."""
    lines, before = [], None
    for name, text in rows:
        shown = f"<b>{escape(name)}</b>&nbsp; " if name and name != before else ""
        lines.append(f"{shown}{escape(text)}")
        before = name
    return "<br>".join(lines)


def missing_parts(entry: ModelEntry) -> list[str]:
    """Return what a model lacks, and what that means."""
    card, folder = entry.card, entry.path
    if card is None:
        return []
    foreign, weights = is_foreign(folder), weights_file(entry)
    found = []
    if not weights.is_file():
        found.append(f"its weights ({weights.name}): it cannot be used; import it again")
    if foreign:
        runtime = ONNX if weights.suffix == ".onnx" else ""
        if runtime and find_spec("onnxruntime") is None:
            found.append("ONNX Runtime, which runs it: pip install 'napari-unet[onnx]'")
        if not runtime and not is_trusted(card.hash):
            found.append("your word that its program may run: Use asks for it")
        return found
    if card.replay and not (folder / REPLAY).is_file():
        found.append(f"its rehearsal set ({REPLAY}): it cannot be tuned; import it again")
    elif not card.replay:
        found.append("a rehearsal set: tuned, it forgets sooner what it knew")
    if not card.click:
        found.append("a click head: Click cannot use it")
    return found


def weights_file(entry: ModelEntry) -> Path:
    """Return the file of a model's weights; it need not exist."""
    folder = entry.path
    return foreign_weights(folder) if is_foreign(folder) else folder / WEIGHTS


def _kind(card: ModelCard, foreign: bool) -> str:
    spec = card.spec
    what = "separate objects" if spec.head == "instance" else f"{spec.classes} classes of pixels"
    seen = "grey or colour images" if spec.in_channels == 3 else ""
    seen = seen or ("one channel" if spec.in_channels == 1 else f"{spec.in_channels} channels")
    kind = f"{'planes' if spec.ndim == 2 else 'volumes'}, {seen}"
    if foreign:
        return f"{kind}; built by others: it can be run, not tuned or clicked with"
    return f"{kind}, {what}"


def _taught(card: ModelCard, known: Mapping[str, str]) -> Rows:
    """Return what one of our models learned from, and how large its objects were."""
    training, rows = card.training, []
    tuning = card.metrics.get("tuning", {})
    objects, images = training.get("objects"), training.get("images")
    many = pluralise(int(objects), "object") if objects else ""
    if tuning:
        parts = "1 part of an image" if images == 1 else f"{int(images or 0):,} parts of images"
        rows.append(("taught", f"{many} in {parts}" if many else parts))
    elif images:
        where = pluralise(int(images), "image")
        groups = training.get("groups")
        names = ", ".join(map(str, groups)) if isinstance(groups, dict) else ""
        rows.append(("taught", f"{many} in {where}" if many else where))
        rows += [("taught", names)] if names else []
    else:
        rows.append(("taught", "not said"))
    sizes = training.get("diameter_px") or {}
    low, middle, high = (sizes.get(name) for name in ("q05", "q50", "q95"))
    if low and middle and high:
        usual = f"{middle:.0f} px"
        several = round(low) < round(high)
        rows.append(("sizes", f"{low:.0f} to {high:.0f} px, usually {usual}" if several else usual))
    if um := (training.get("taught_diameter") or {}).get("um"):
        rows.append(("sizes", f"about {um:.3g} µm"))
    return rows


def _foreign(entry: ModelEntry, card: ModelCard) -> Rows:
    """Return what a network of others says of itself, and what was understood of it."""
    training = card.training
    rows = [("title", _text(training.get("title"))), ("about", _text(training.get("description")))]
    rows.append(("data", _text(training.get("data"))))
    rows.append(("authors", _text(training.get("authors"))))
    rows.append(("cite", _text(training.get("cite"))))
    try:
        network = read_network(entry.path)
    except ModelError as error:
        return [*rows, ("missing", str(error))]
    rows.append(("its output", f"{_MEANS[network.meaning]} ({', '.join(network.names)})"))
    rows.append(("sizes", "the image's own: whether its objects fit, the package does not say"))
    rows.append(("its own test", str(training.get("test", "it brought none")).removeprefix("it ")))
    return rows


def _text(value: Any) -> str:
    text = ", ".join(map(str, value)) if isinstance(value, list) else str(value or "")
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]} …"


def _scores(metrics: Mapping[str, Any]) -> Iterator[str]:
    """Yield a line for each kind of data that a model was scored on."""
    tuning = metrics.get("tuning") or {}
    before, after = tuning.get("before"), tuning.get("after")
    if isinstance(before, float) and isinstance(after, float):
        yield (
            f"{tuning.get('metric', 'score')} {before:.3f} → {after:.3f} on what was held out: "
            f"{tuning.get('verdict', '')}"
        )
    for data, scores in metrics.items():
        if data != "tuning" and isinstance(scores, dict):
            shown = [f"{n} {v:.3f}" for n, v in scores.items() if _is_shown(n, v)]
            if shown:
                yield f"{data}: {', '.join(shown)}"


def _is_shown(name: str, value: Any) -> bool:
    return name in _SHOWN_SCORES and isinstance(value, float)


def _own_scores(record: OwnRecord) -> Iterator[str]:
    for scores in reversed(record.evaluations):
        shown = ", ".join(f"{n} {v:.3f}" for n, v in scores.scores.items() if _is_shown(n, v))
        yield (
            f"{scores.date} {scores.image}: {shown}; {scores.objects:,} found, "
            f"{scores.true_objects:,} are there"
        )


def _origin(entry: ModelEntry) -> str:
    if entry.bundled:
        return "napari-unet"
    weights = weights_file(entry)
    written = (weights if weights.is_file() else entry.path).stat().st_mtime
    here = datetime.date.fromtimestamp(written).isoformat()
    return f"the shared folder, {here}" if entry.shared else f"you, {here}"
