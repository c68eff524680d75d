"""`napari-unet models`: list, show, import, export and remove models of the store."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari_unet.cli.options import add_command
from napari_unet.cli.terminal import say
from napari_unet.core.models.folder import WEIGHTS

if TYPE_CHECKING:
    from argparse import Namespace
    from collections.abc import Iterator

    from napari_unet.core.models.card import ModelCard
    from napari_unet.core.models.store import ModelEntry

FORMATS = ("napari-unet", "bioimageio")
"""What a model can be exported as."""


def add_models(commands: Any) -> None:
    """Describe the command and its options."""
    actions = commands.add_parser("models", help="List, show, exchange models").add_subparsers(
        required=True, metavar="ACTION"
    )
    add_command(actions, "list", _models_list, "List the models that there are")
    show = add_command(
        actions, "show", _models_show, "Show a model's card and its network's layers"
    )
    show.add_argument("name", help="name or folder of a model")
    take = add_command(actions, "import", _models_import, "Copy a model into the store")
    take.add_argument("path", type=Path, help="the .zip file or folder of a model")
    take.add_argument("--name", help="its name in the store. Not given: the one it has")
    give = add_command(actions, "export", _models_export, "Write a model into one .zip file")
    give.add_argument("name", help="name or folder of a model")
    give.add_argument("zip", type=Path, help="the .zip file to write")
    give.add_argument(
        "--format",
        choices=FORMATS,
        default=FORMATS[0],
        help="napari-unet, which can be tuned further, or bioimageio: a package with TorchScript "
        "and ONNX for Fiji, ilastik, QuPath and others (default: napari-unet)",
    )
    give.add_argument(
        "--author",
        action="append",
        default=[],
        metavar="NAME",
        help="of a bioimageio package; may be given several times",
    )
    remove = add_command(actions, "remove", _models_remove, "Delete a model of yours")
    remove.add_argument("name", help="name of a model")


def _models_list(values: Namespace) -> int:
    from napari_unet.cli.terminal import format_table
    from napari_unet.core.models.store import list_models

    entries = list_models()
    print(format_table(MODEL_HEADINGS, [_model_row(entry) for entry in entries]))
    for entry in entries:
        if entry.problem:
            say(f"warning: {entry.problem}")
    return 0


def _models_show(values: Namespace) -> int:
    from napari_unet.core.models.folder import read_card
    from napari_unet.core.models.store import find_model

    folder = find_model(values.name)
    card = read_card(folder)
    from napari_unet.nn.unet.summary import format_summary  # loads torch, so only after the checks

    print(f"{folder}\n", *_card_lines(card), "", format_summary(card.spec), sep="\n")
    return 0


def _models_import(values: Namespace) -> int:
    from napari_unet.core.models.archive import import_model

    entry = import_model(values.path, values.name)
    print(f"{entry.name}: imported into {entry.path}")
    return 0


def _models_export(values: Namespace) -> int:
    if values.format == FORMATS[0]:
        from napari_unet.core.models.archive import export_model

        path = export_model(values.name, values.zip)
    else:
        from napari_unet.core.models.store import find_model

        find_model(values.name)  # raises for an unknown one before torch is loaded
        from napari_unet.nn.exchange.bioimageio_export import export_bioimageio

        path = export_bioimageio(values.name, values.zip, authors=values.author)
    print(f"{values.name}: exported to {path}")
    return 0


def _models_remove(values: Namespace) -> int:
    from napari_unet.core.models.store import remove_model

    remove_model(values.name)
    print(f"{values.name}: removed")
    return 0


MODEL_HEADINGS = ("model", "kind", "channels", "MB", "licence", "from")


def _model_row(entry: ModelEntry) -> list[str]:
    """Return the row below `MODEL_HEADINGS` for one model."""
    origin = "napari-unet" if entry.bundled else "you"
    if entry.card is None:
        return [entry.name, "unusable", "", "", "", origin]
    spec, weights = entry.card.spec, entry.path / WEIGHTS
    size = f"{weights.stat().st_size / 1e6:.1f}" if weights.is_file() else "missing"
    kind = f"{spec.ndim}D {spec.head}"
    return [entry.name, kind, str(spec.in_channels), size, entry.card.licence, origin]


def _card_lines(card: ModelCard) -> list[str]:
    """Return a model card as lines of names and values."""
    values = card.to_json()
    values["click"].pop("spec", None)  # the summary of the network shows it
    pairs = [pair for name in values if name != "spec" for pair in _flat(name, values[name])]
    width = max(len(name) for name, _ in pairs)
    return [f"{name.ljust(width)}  {value}".rstrip() for name, value in pairs]


def _flat(name: str, value: Any) -> Iterator[tuple[str, str]]:
    """Yield the parts of a value with their dotted names."""
    if isinstance(value, dict):
        for key, part in value.items():
            yield from _flat(f"{name}.{key}", part)
    elif isinstance(value, list):
        shown = ", ".join(map(str, value[:8]))
        yield name, f"{shown}, ... ({len(value)} values)" if len(value) > 8 else shown
    else:
        yield name, "-" if value in (None, "") else str(value)
