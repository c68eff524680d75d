"""Results as text: tables, and what there is to say of a model or a run."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from napari_unet.core.measuring.columns import align
from napari_unet.core.models.folder import WEIGHTS
from napari_unet.core.words import counted

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from napari_unet.core.models.card import ModelCard
    from napari_unet.core.store import ModelEntry

MODEL_HEADINGS = ("model", "kind", "channels", "MB", "licence", "from")


def format_table(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Lay out rows below headings; the first column is text, the others are figures."""
    text = align([headings, *rows])
    return "\n".join([text[0], "-" * max(map(len, text)), *text[1:]])


def run_line(target: object, passport: dict[str, Any]) -> str:
    """Say in one line what a run gave, and that its tiles fit together."""
    seam = passport["seam"]
    tracks = f" in {counted(passport['tracks'], 'track')}" if "tracks" in passport else ""
    certificate = "not checked" if seam is None else f"largest |difference| {seam:.1e}"
    return (
        f"{target}: {counted(passport['objects'], 'object')}{tracks}, {passport['seconds']:.2f} s, "
        f"{passport['mpx_per_s']:.2f} MPx/s on {passport['device']} ({passport['precision']}), "
        f"seams: {certificate}"
    )


def model_row(entry: ModelEntry) -> list[str]:
    """Return what stands below `MODEL_HEADINGS` for one model."""
    origin = "napari-unet" if entry.bundled else "you"
    if entry.card is None:
        return [entry.name, "unusable", "", "", "", origin]
    spec, weights = entry.card.spec, entry.path / WEIGHTS
    size = f"{weights.stat().st_size / 1e6:.1f}" if weights.is_file() else "missing"
    kind = f"{spec.ndim}D {spec.head}"
    return [entry.name, kind, str(spec.in_channels), size, entry.card.licence, origin]


def card_lines(card: ModelCard) -> list[str]:
    """Write a model card as lines of names and values."""
    values = card.to_json()
    values["click"].pop("spec", None)  # the network's table says what a model is built from
    pairs = [pair for name in values if name != "spec" for pair in _flat(name, values[name])]
    width = max(len(name) for name, _ in pairs)
    return [f"{name.ljust(width)}  {value}".rstrip() for name, value in pairs]


def _flat(name: str, value: Any) -> Iterator[tuple[str, str]]:
    """Yield a value's parts by dotted names."""
    if isinstance(value, dict):
        for key, part in value.items():
            yield from _flat(f"{name}.{key}", part)
    elif isinstance(value, list):
        shown = ", ".join(map(str, value[:8]))
        yield name, f"{shown}, ... ({len(value)} values)" if len(value) > 8 else shown
    else:
        yield name, "-" if value in (None, "") else str(value)
