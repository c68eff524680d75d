"""The parser, and options made from the fields of settings, so that defaults stand once."""

from __future__ import annotations

import argparse
import types
import typing
from dataclasses import fields
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

from napari_unet.core.errors import UnetError
from napari_unet.core.settings.tasks import LABELS_AS, RUN_DEVICES

if TYPE_CHECKING:
    from argparse import Namespace
    from collections.abc import Callable
    from dataclasses import Field

    from napari_unet.nn.inference.model import Model


Settings = TypeVar("Settings")
DEVICE_HELP = f"{', '.join(RUN_DEVICES)}, remote:HOST:PORT (default: auto)"


class UsageError(UnetError):
    """A command line that cannot be understood."""


class Parser(argparse.ArgumentParser):
    """A parser that raises an exception of one line, and takes no abbreviations of options.

    Attributes
    ----------
    mixed
        Whether options may stand between the arguments. Without it argparse takes an optional
        argument for missing if an option stands before it.
    """

    mixed = False

    def __init__(self, **options: Any) -> None:
        options.setdefault("allow_abbrev", False)
        super().__init__(**options)

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """Parse as argparse does, or mixed, which calls this method again."""
        if not self.mixed:
            return super().parse_known_args(args, namespace)
        self.mixed = False
        try:
            return self.parse_known_intermixed_args(args, namespace)
        finally:
            self.mixed = True

    def error(self, message: str) -> NoReturn:
        """Raise UsageError."""
        raise UsageError(f"{message}; see `{self.prog} --help`.")


def add_settings(
    parser: argparse.ArgumentParser, settings: type[Any], title: str = "settings"
) -> None:
    """Add an option for each field of a settings class, with help, unit and default."""
    group = parser.add_argument_group(title)
    hints = typing.get_type_hints(settings)
    for item in fields(settings):
        flag, kind = f"--{item.name.replace('_', '-')}", _kind(hints[item.name])
        if kind is bool:
            group.add_argument(
                flag, action=argparse.BooleanOptionalAction, default=item.default, help=_help(item)
            )
            continue
        group.add_argument(
            flag,
            type=kind,
            default=item.default,
            choices=item.metadata["choices"] or None,
            metavar=None if item.metadata["choices"] else _unit(item, kind),
            help=_help(item),
        )


def settings_from(values: argparse.Namespace, settings: type[Settings]) -> Settings:
    """Build the settings from the parsed options.

    Raises
    ------
    SettingsError
        A value outside its bounds.
    """
    names = [item.name for item in fields(settings)]  # type: ignore[arg-type]
    return settings(**{name: getattr(values, name) for name in names})


def _kind(hint: Any) -> Any:
    """Return the type to parse: ``float`` of ``float | None``."""
    if isinstance(hint, types.UnionType):
        return next(kind for kind in typing.get_args(hint) if kind is not types.NoneType)
    return hint


def _unit(item: Field[Any], kind: type) -> str:
    return str(item.metadata["unit"]).upper() or {int: "N", float: "X"}.get(kind, "TEXT")


def _help(item: Field[Any]) -> str:
    text = str(item.metadata["help"]).replace("Empty:", "Not given:").replace("%", "%%")
    if item.default is None:
        return text
    default = ("no", "yes")[item.default] if isinstance(item.default, bool) else item.default
    return f"{text} (default: {default})"


def add_command(commands: Any, name: str, run: Callable[[Namespace], int], help: str) -> Parser:
    """Add a command; `run` carries it out and returns the exit status."""
    command: Parser = commands.add_parser(name, help=help, description=f"{help}.")
    command.set_defaults(run=run)
    command.mixed = True
    return command


def add_labels_as(command: Parser, option: str = "--labels-as", more: str = "") -> None:
    """Add the option that says what the values of labels are; see `core.labels.label_file`."""
    choices = ", ".join(LABELS_AS)
    text = more or (
        "what the values of labels are: ids of the objects; a mask, whose connected components are "
        "the objects; or colours, one for each object. Not given: ids, unless they look like a mask"
    )
    command.add_argument(option, choices=LABELS_AS, metavar="KIND", help=f"{text} ({choices})")


def add_model_options(command: Parser) -> None:
    """Add the options of commands that run a model; see `load_model`."""
    command.add_argument(
        "--model", default="nuclei", metavar="M", help="name or folder of a model (default: nuclei)"
    )
    command.add_argument("--device", default="auto", metavar="D", help=DEVICE_HELP)


def load_model(values: Namespace) -> Model:
    """Return the model that the options name, on the device that they name."""
    from napari_unet.core.models.store import find_model

    find_model(values.model)  # raises for an unknown one before torch is loaded
    from napari_unet.nn.inference import model

    return model.load_model(values.model, values.device)
