"""`napari-unet bench`: speed and accuracy on this computer."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from napari_unet.cli.options import add_command
from napari_unet.core.io.files import expand_path

if TYPE_CHECKING:
    from argparse import Namespace


def add_bench(commands: Any) -> None:
    """Describe the command and its options."""
    command = add_command(commands, "bench", _bench, "Measure speed and accuracy on this computer")
    command.add_argument("--quick", action="store_true", help="a few minutes instead of many")
    command.add_argument(
        "--json", type=expand_path, metavar="FILE", help="write the figures to a file"
    )


def _bench(values: Namespace) -> int:
    from napari_unet.core.io.files import check_text_file, write_text

    if values.json:
        check_text_file(values.json)
    from napari_unet.nn.bench import run_bench

    figures = run_bench(quick=values.quick, report=print)
    if values.json:
        write_text(values.json, json.dumps(figures, indent=2) + "\n")
    return 0
