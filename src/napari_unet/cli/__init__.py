"""The command line: ``napari-unet COMMAND``, also ``python -m napari_unet``.

Exit status: 0 done; 1 a replay that differs; 2 unusable arguments or input, with one line on
standard error; 130 interrupted. Progress and remarks go to standard error, results to files and
standard output.

options   options made from the fields of settings, and those that commands share
terminal  the progress bar, remarks, tables
training_run  one training: checks, the run, what it stores
bench, convert, demo, evaluate, measure, models, replay, samples, segment, serve, train, view
          a command each
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from napari_unet import __version__
from napari_unet.cli.bench import add_bench
from napari_unet.cli.convert import add_convert
from napari_unet.cli.demo import add_demo
from napari_unet.cli.evaluate import add_evaluate
from napari_unet.cli.measure import add_measure
from napari_unet.cli.models import add_models
from napari_unet.cli.options import Parser
from napari_unet.cli.replay import add_replay
from napari_unet.cli.samples import add_samples
from napari_unet.cli.segment import add_segment
from napari_unet.cli.serve import add_serve
from napari_unet.cli.terminal import (
    INTERRUPTED,
    UNUSABLE,
    ending_as_by_control_c,
    one_line_remarks,
    say,
)
from napari_unet.cli.train import add_train
from napari_unet.cli.view import add_view
from napari_unet.core.errors import UnetError

if TYPE_CHECKING:
    from collections.abc import Sequence


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command and return the exit status.

    Parameters
    ----------
    argv
        The arguments behind the program's name; None takes those of the process.
    """
    with one_line_remarks():
        try:
            values = build_parser().parse_args(argv)
            with ending_as_by_control_c():
                return int(values.run(values))
        except UnetError as error:
            say(f"error: {error}")
            return UNUSABLE
        except KeyboardInterrupt:
            say("interrupted; no half-written file is left.")
            return INTERRUPTED
        except SystemExit as end:  # --help and --version
            return int(end.code or 0)


def build_parser() -> Parser:
    """Describe all commands and their options."""
    parser = Parser(prog="napari-unet", description="Segment microscopy images with a U-Net.")
    parser.add_argument("--version", action="version", version=f"napari-unet {__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    add_demo(commands)
    add_samples(commands)
    add_segment(commands)
    add_train(commands)
    add_evaluate(commands)
    add_measure(commands)
    add_convert(commands)
    add_view(commands)
    add_models(commands)
    add_replay(commands)
    add_serve(commands)
    add_bench(commands)
    return parser
