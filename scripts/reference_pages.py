"""Write the pages of the reference that are made from the code: settings, command line, keys.

    python scripts/reference_pages.py            writes settings.md, command-line.md and keys.md
    python scripts/reference_pages.py --check    only says which of them are out of date

The tables come from the fields of `core.settings`, the parser of `napari_unet.cli`, and the forms
and keys of the window; what stands around them is written here.
"""

from __future__ import annotations

import argparse
import html
import re
import sys
import typing
from dataclasses import fields
from pathlib import Path

from napari_unet.cli import build_parser
from napari_unet.core.settings.tasks import (
    ClickSettings,
    LinkSettings,
    PredictSettings,
    TrainSettings,
)

FOLDER = Path(__file__).resolve().parents[1] / "docs" / "reference"

SETTINGS = """\
# Settings

Each setting has one name, one default and one check, wherever you give it: in the window, as an
option of the [command line](command-line.md), or in [Python](python.md). Where the default is
*auto*, the box in the window shows "auto", the option is left out, and Python takes `None`.

"""
_SECTIONS = {
    "segment": (
        "Segmenting",
        "Window: the Segment and Batch steps. Command: `segment`. Python: `nu.PredictSettings`.",
    ),
    "tune": (
        "Training and fine-tuning",
        "Window: the Fine-tune step. Command: `train`. Python: `nu.TrainSettings`.",
    ),
    "network": (
        "A new network",
        "Window: the Fine-tune step. Command: `train`. In Python a network is described by "
        "`nu.ModelSpec`.",
    ),
    "click": (
        "Clicks",
        "Window: the Click step. They concern the window alone, so there are no options.",
    ),
    "link": (
        "Following objects through time",
        "Window: Segment, *Link through time*. Command: `segment --link`. "
        "Python: `nu.LinkSettings`.",
    ),
}
_OTHER_ROWS = """\
## Other rows of the window

| in the window | option | what it is |
|---|---|---|
| image, axes | the input, `--axes` | The image, and what its axes are. |
| channel | `--channel` | The channel that the model sees. |
| model | `--model`, `--from` | The model that finds the objects; Fine-tune starts from it. |
| device | `--device` | auto, cpu, cuda (NVIDIA), mps (Apple), onnx, [a server](../remote.md). |
| run on | | What is in view, the current slice, or the whole stack. |
| save in | the output, `NAME.zarr` | Labels of large data, written block by block. |
| cluster | `--scheduler` | Address of a [dask cluster](../cluster.md). |
| new name | `--name` | What a tuned model is called. |
| match in, objects in | `--frames` | Whether objects of a stack end with their plane. |
"""
COMMANDS = """\
# Command line

`napari-unet COMMAND --help` shows the same in the terminal. Progress and remarks go to standard
error, results to files and standard output. The exit status is 0 when all is done, 1 for a `replay`
that differs, 2 with one line that says what to do when something cannot be used, and 130 when you
interrupt, or the batch system ends the job. A result appears whole or not at all; existing labels
are only replaced with `--overwrite`, a table by the newer one that you give its name (`--csv`), a
picture by a newer picture.

`NAPARI_UNET_HOME` moves your models and corrections to another folder, `NAPARI_UNET_MODELS` adds a
folder of models that your lab shares; see [Files on disk](files.md).
"""
KEYS = """\
# Keys and mouse

Keys work while the canvas has the focus, not while you type in a box.

## Everywhere

| key | what it does |
|---|---|
| Ctrl+Z | Take back the last correction, also in another slice or after a restart. |
| Ctrl+Shift+Z | Do it again. |
| {toggle} | Click mode on, off. |

## Correct

| key | what it does |
|---|---|
| {doubt} | Go to the next place where the model is most in doubt. |
| {check} | All of this slice is right: objects and background. Press again to take it back. |
| {confirm} | The object under the cursor is right as it is. |
| {alike} | Look for objects like those that were corrected last, to correct them all at once. |

While *Review* goes on, on the object or place that it shows:

| key | what it does |
|---|---|
| {accept} | It is right as it is, or nothing is missing here; on to the next. |
| {split} | These are two objects: split it at its neck; on to the next. |
| {delete} | This is no object: delete it; on to the next. |
| {click} | Turn click mode on, to click it as it should be. |
| {next} | On to the next; what was not changed is skipped. |

## Click mode

Dragging moves the view as ever.

| | |
|---|---|
"""


def make_pages() -> dict[str, str]:
    """Return the text of each page, by its file name."""
    return {
        "settings.md": settings_page(),
        "command-line.md": command_page(),
        "keys.md": keys_page(),
    }


def settings_page() -> str:
    """Return the page of all settings."""
    from napari_unet.gui.click import panel as click
    from napari_unet.gui.finetune import form as tune
    from napari_unet.gui.segment import form as segment
    from napari_unet.gui.track import FIELDS

    advanced = "Advanced: {}"
    rows = {
        "segment": (
            PredictSettings,
            segment.FIRST,
            segment.ADVANCED | {"channel": "channel"},
            True,
        ),
        "tune": (TrainSettings, tune.FIRST, tune.ADVANCED, True),
        "network": (tune.NetworkSettings, {}, tune.NETWORK, True),
        "click": (ClickSettings, click._ROWS, {}, False),
        "link": (LinkSettings, FIELDS, {}, True),
    }
    text = SETTINGS
    for name, (settings, first, folded, has_flags) in rows.items():
        places = labels(first, "{}") | labels(folded, advanced)
        if name == "segment":
            places["channel"] = "channel, at the top"
        title, remark = _SECTIONS[name]
        text += f"## {title}\n\n{remark}\n\n{settings_table(settings, places, has_flags)}\n"
    return text + _OTHER_ROWS


def labels(form: dict[str, str], place: str) -> dict[str, str]:
    """Return where the fields of a form stand in the window."""
    return {name: place.format(label or name.replace("_", " ")) for name, label in form.items()}


def settings_table(settings: type, places: dict[str, str], has_flags: bool) -> str:
    """Return the table of a settings class."""
    columns = [
        "setting",
        "in the window",
        *(["option"] if has_flags else []),
        "default",
        "allowed",
        "what it is",
    ]
    lines = [f"| {' | '.join(columns)} |", f"|{'---|' * len(columns)}"]
    hints = typing.get_type_hints(settings)
    for item in fields(settings):
        meta = item.metadata
        flag = f"`--{item.name.replace('_', '-')}`"
        if hints[item.name] is bool:
            flag += f", `--no-{item.name.replace('_', '-')}`" if item.name != "scratch" else ""
        cells = [f"`{item.name}`", places.get(item.name, ""), *([flag] if has_flags else [])]
        cells += [show_default(item.default, meta["unit"]), show_allowed(meta, hints[item.name])]
        cells.append(sentence(meta["help"]))
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def show_default(value: object, unit: str) -> str:
    """Return a default in words."""
    if value is None:
        return "auto"
    if isinstance(value, bool):
        return ("off", "on")[value]
    return f"{value} {spell_unit(unit)}".strip()


def show_allowed(meta: typing.Mapping[str, typing.Any], hint: object) -> str:
    """Return which values a setting takes, in words."""
    if meta["choices"]:
        return ", ".join(meta["choices"])
    low, high, unit = meta["low"], meta["high"], meta["unit"]
    if low is None and high is None:
        return "on, off" if hint is bool else ""
    bounds = f"at least {low:,.12g}" if high is None else f"{low:,.12g} to {high:,.12g}"
    return f"{bounds} {spell_unit(unit)}".strip()


def spell_unit(unit: str) -> str:
    """Return a unit as it is written in a text."""
    return "µm" if unit == "um" else unit


def sentence(text: str) -> str:
    """Return a help text as a sentence for a table."""
    text = text.replace("Empty:", "auto:").replace("|", "\\|")
    text = text if text.startswith("auto,") else text[0].upper() + text[1:]
    return text if text.endswith(".") else f"{text}."


def command_page() -> str:
    """Return the page of all commands and their options."""
    text = COMMANDS
    for name, command in subcommands(build_parser()).items():
        text += f"\n## {name}\n\n{command.description or 'List, show and exchange models.'}\n"
        actions = subcommands(command)
        text += "" if actions else f"\n{usage(f'napari-unet {name}', command)}{options(command)}"
        for action, parser in actions.items():
            text += f"\n### {name} {action}\n\n{parser.description or ''}\n"
            text += f"\n{usage(f'napari-unet {name} {action}', parser)}{options(parser)}"
    return re.sub(r"\n{3,}", "\n\n", text)


def subcommands(parser: argparse.ArgumentParser) -> dict[str, argparse.ArgumentParser]:
    """Return the commands of a parser by their names."""
    found = [a for a in parser._actions if isinstance(a, argparse._SubParsersAction)]
    return dict(found[0].choices) if found else {}


def usage(name: str, parser: argparse.ArgumentParser) -> str:
    """Return how a command is called, on one line."""
    parts = [name]
    for action in parser._actions:
        if not action.option_strings:
            word = metavar(action)
            parts.append(f"[{word}]" if action.nargs in ("?", "*") else word)
    return f"```text\n{' '.join(parts)} [options]\n```\n"


def metavar(action: argparse.Action) -> str:
    """Return what stands for an action's value."""
    return action.metavar if isinstance(action.metavar, str) else action.dest


def options(parser: argparse.ArgumentParser) -> str:
    """Return a table for each group of a parser's arguments."""
    text = ""
    for group in parser._action_groups:
        lines = []
        for action in group._group_actions:
            if isinstance(action, argparse._HelpAction):
                continue
            help = (action.help or "").removesuffix(" (default: %(default)s)") % {
                "default": action.default,
                "prog": parser.prog,
            }
            choices = [str(choice) for choice in action.choices or ()]
            if not all(choice in help for choice in choices):
                listed = f"({', '.join(choices)}; default: "
                help = help.replace("(default: ", listed)
            lines.append(f"| {spell(action)} | {sentence(help)} |")
        if lines:
            title = {"positional arguments": "", "options": ""}.get(str(group.title), group.title)
            text += f"\n**{title}**\n" if title else ""
            head = "argument" if group.title == "positional arguments" else "option"
            text += f"\n| {head} | |\n|---|---|\n" + "\n".join(lines) + "\n"
    return text


def spell(action: argparse.Action) -> str:
    """Return how an argument is written."""
    if not action.option_strings:
        return f"`{metavar(action)}`"
    takes_value = action.nargs != 0
    value = "" if not takes_value else f" {metavar(action) if action.metavar else 'X'}"
    return ", ".join(f"`{option}{value}`" for option in action.option_strings)


def keys_page() -> str:
    """Return the page of keys, with the list that the Click step shows."""
    from napari_unet.gui.click.input import TOGGLE_KEY
    from napari_unet.gui.click.text import KEY_LIST
    from napari_unet.gui.correct import alike, mask_section, review, uncertain_places

    text = KEYS.format(
        **review.KEYS,
        toggle=TOGGLE_KEY.upper(),
        doubt=uncertain_places.KEY.upper(),
        alike=alike.KEY,
        check=mask_section.CHECK_KEY,
        confirm=mask_section.CONFIRM_KEY,
    )
    rows = re.findall(r"<td>(.*?)</td><td>(.*?)</td>", KEY_LIST)
    for keys, what in rows:
        plain = html.unescape(re.sub(r"<[^>]+>", "", keys)).strip()
        text += f"| {plain} | {what[0].upper()}{what[1:]}. |\n"
    return text


def main() -> int:
    """Write the pages, or say which are out of date."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true", help="write nothing")
    check = parser.parse_args().check
    old = [name for name, text in make_pages().items() if read(name) != text]
    for name in old:
        print(f"docs/reference/{name}: {'out of date' if check else 'written'}")
        if not check:
            (FOLDER / name).write_text(make_pages()[name], encoding="utf-8", newline="\n")
    return int(bool(check and old))


def read(name: str) -> str:
    """Return a page as it is."""
    path = FOLDER / name
    return path.read_text(encoding="utf-8") if path.exists() else ""


if __name__ == "__main__":
    sys.exit(main())
