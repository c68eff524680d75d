"""`napari-unet models`: the store of models."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari_unet.cli.options import add_command
from napari_unet.cli.terminal import say

if TYPE_CHECKING:
    from argparse import Namespace


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
    remove = add_command(actions, "remove", _models_remove, "Delete a model of yours")
    remove.add_argument("name", help="name of a model")


def _models_list(values: Namespace) -> int:
    from napari_unet.cli.terminal import MODEL_HEADINGS, format_table, model_row
    from napari_unet.core.models.store import list_models

    entries = list_models()
    print(format_table(MODEL_HEADINGS, [model_row(entry) for entry in entries]))
    for entry in entries:
        if entry.problem:
            say(f"warning: {entry.problem}")
    return 0


def _models_show(values: Namespace) -> int:
    from napari_unet.cli.terminal import card_lines
    from napari_unet.core.models.folder import read_card
    from napari_unet.core.models.store import find_model

    folder = find_model(values.name)
    card = read_card(folder)
    from napari_unet.nn.unet.summary import (
        format_summary,  # torch: once the rest is known to be good
    )

    print(f"{folder}\n", *card_lines(card), "", format_summary(card.spec), sep="\n")
    return 0


def _models_import(values: Namespace) -> int:
    from napari_unet.core.models.archive import import_model

    entry = import_model(values.path, values.name)
    print(f"{entry.name}: imported into {entry.path}")
    return 0


def _models_export(values: Namespace) -> int:
    from napari_unet.core.models.archive import export_model

    print(f"{values.name}: exported to {export_model(values.name, values.zip)}")
    return 0


def _models_remove(values: Namespace) -> int:
    from napari_unet.core.models.store import remove_model

    remove_model(values.name)
    print(f"{values.name}: removed")
    return 0
