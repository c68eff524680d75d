"""What commands share: how they are added, and the options of those that run a model."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from napari_unet.core.spec import DEVICES

if TYPE_CHECKING:
    from argparse import Namespace
    from collections.abc import Callable

    from napari_unet.cli.options import Parser
    from napari_unet.nn.model import Model

UNUSABLE, INTERRUPTED = 2, 130
"""Exit statuses; 0 is done."""


def add_command(commands: Any, name: str, run: Callable[[Namespace], int], help: str) -> Parser:
    """Add a command that `run` carries out; it returns the exit status."""
    command: Parser = commands.add_parser(name, help=help, description=f"{help}.")
    command.set_defaults(run=run)
    command.mixed = True
    return command


def add_model_options(command: Parser) -> None:
    """Add the options of commands that run a model; see `load_model`."""
    command.add_argument(
        "--model", default="nuclei", metavar="M", help="name or folder of a model (default: nuclei)"
    )
    command.add_argument(
        "--device", default="auto", metavar="D", help=f"{', '.join(DEVICES)} (default: auto)"
    )


def load_model(values: Namespace) -> Model:
    """Return the model that the options name, on the device that they name."""
    from napari_unet.core.store import find_model

    find_model(values.model)  # an unknown one is known before torch is loaded
    from napari_unet.nn import model

    return model.load_model(values.model, values.device)
