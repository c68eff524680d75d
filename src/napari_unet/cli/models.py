"""`napari-unet models`: list, show, import, export and remove models of the store."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Any

from napari_unet.cli.options import add_command, add_settings, settings_from
from napari_unet.cli.terminal import say
from napari_unet.core.errors import ModelError
from napari_unet.core.io.files import expand_path
from napari_unet.core.models.folder import WEIGHTS
from napari_unet.core.models.foreign_folder import (
    foreign_weights,
    is_foreign,
    read_foreign,
    read_network,
    trust,
)
from napari_unet.core.settings.weight_options import WeightOptions

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
    take.add_argument(
        "path",
        help="the .zip file or folder of a model; a package of bioimage.io (.zip, folder, "
        "rdf.yaml) or its address; weights (.onnx, .torchscript)",
    )
    take.add_argument("--name", help="its name in the store. Not given: the one it has")
    take.add_argument(
        "--trust", action="store_true", help="let TorchScript run, which is a program"
    )
    take.add_argument(
        "--anyway", action="store_true", help="keep a network that fails its own test image"
    )
    add_settings(take, WeightOptions, "networks that others built")
    give = add_command(actions, "export", _models_export, "Write a model into one .zip file")
    give.add_argument("name", help="name or folder of a model")
    give.add_argument("zip", type=expand_path, help="the .zip file to write")
    give.add_argument(
        "--format",
        choices=FORMATS,
        default=FORMATS[0],
        help="what to write: napari-unet, which can be tuned further, or bioimageio, a package "
        "with TorchScript and ONNX for Fiji, ilastik, QuPath and others (default: napari-unet)",
    )
    give.add_argument(
        "--author",
        action="append",
        default=[],
        metavar="NAME",
        help="of a bioimageio package; may be given several times",
    )
    accept = add_command(
        actions, "trust", _models_trust, "Let a model's TorchScript, a program, run here"
    )
    accept.add_argument("name", help="name or folder of a model")
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
    if is_foreign(folder):
        network = json.loads(read_network(folder).to_text())
        lines = [pair for name in network for pair in _flat(f"network.{name}", network[name])]
        print(f"{folder}\n", *_card_lines(card), "", *(" ".join(pair) for pair in lines), sep="\n")
        return 0
    from napari_unet.nn.unet.summary import format_summary  # loads torch, so only after the checks

    networks = format_summary(card.spec, card.click)
    print(f"{folder}\n", *_card_lines(card), "", networks, sep="\n")
    return 0


def _models_import(values: Namespace) -> int:
    from napari_unet.core.models.archive import import_model
    from napari_unet.core.models.package_files import is_foreign_source, is_web_address

    options = settings_from(values, WeightOptions)
    if is_web_address(values.path) or is_foreign_source(expand_path(values.path)):
        from napari_unet.nn.exchange.foreign_import import import_foreign

        entry = import_foreign(
            values.path,
            values.name,
            ask=lambda question: values.trust or _confirm(question),
            anyway=values.anyway,
            options=options,
        )
    else:
        entry = import_model(values.path, values.name)
    print(f"{entry.name}: imported into {entry.path}")
    if is_foreign(entry.path):
        print(f"its output means: {read_network(entry.path).meaning}")
        test = str((entry.card.training if entry.card else {}).get("test", "it brought no test"))
        say(f"{'warning: ' if test.startswith('failed') else ''}{test}")
    return 0


def _confirm(question: str) -> bool:
    """Ask on the terminal; without one the answer is no."""
    if not sys.stdin or not sys.stdin.isatty():
        return False
    print(f"{question} [y/N] ", end="", file=sys.stderr, flush=True)
    return sys.stdin.readline().strip().casefold() in ("y", "yes")


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


def _models_trust(values: Namespace) -> int:
    from napari_unet.core.models.store import find_model

    folder = find_model(values.name)
    if not is_foreign(folder):
        raise ModelError(f"The model {values.name!r} holds no program; it runs without trust.")
    card, _ = read_foreign(folder)
    trust(card.hash)
    print(f"{values.name}: its program may run on this computer")
    return 0


def _models_remove(values: Namespace) -> int:
    from napari_unet.core.models.store import remove_model

    remove_model(values.name)
    print(f"{values.name}: removed")
    return 0


MODEL_HEADINGS = ("model", "kind", "channels", "MB", "licence", "from")


def _model_row(entry: ModelEntry) -> list[str]:
    """Return the row below `MODEL_HEADINGS` for one model."""
    origin = entry.origin
    if entry.card is None:
        return [entry.name, "unusable", "", "", "", origin]
    spec, weights = entry.card.spec, entry.path / WEIGHTS
    if is_foreign(entry.path):
        weights = foreign_weights(entry.path)
    size = f"{weights.stat().st_size / 1e6:.1f}" if weights.is_file() else "missing"
    kind = f"{spec.ndim}D {spec.head}{', by others' if is_foreign(entry.path) else ''}"
    return [entry.name, kind, str(spec.in_channels), size, entry.card.licence, origin]


def _card_lines(card: ModelCard) -> list[str]:
    """Return a model card as lines of names and values."""
    values = card.to_json()
    for part in (values["click"], values["click"].get("refiner", {})):
        part.pop("spec", None)  # the summary of the network shows it
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
