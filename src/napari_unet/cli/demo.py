"""`napari-unet demo`: a sample is segmented, in napari or into files."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari_unet.cli.command import add_command, add_model_options, load_model
from napari_unet.cli.terminal import follow, progress_bar, say

if TYPE_CHECKING:
    from argparse import Namespace


def add_demo(commands: Any) -> None:
    """Describe the command and its options."""
    command = add_command(
        commands, "demo", _demo, "Segment a sample image: in napari, or into files"
    )
    command.add_argument("--headless", action="store_true", help="write files, open no window")
    command.add_argument(
        "--out", type=Path, default=Path("demo"), metavar="DIR", help="folder (default: demo)"
    )
    add_model_options(command)


def _demo(values: Namespace) -> int:
    from napari_unet import demo
    from napari_unet.cli import report

    problem = "" if values.headless else demo.why_no_window()
    if not values.headless and not problem:
        from napari_unet.gui.demo import run_demo

        run_demo(values.model, values.device)
        return 0
    if problem:
        say(f"{problem}; the demo runs without a window and writes files.")
    model = load_model(values)
    with progress_bar(1) as bar:
        files, row = follow(demo.demo_steps(model, values.out), bar)
    print(report.format_table(demo.HEADINGS, [row]))
    print(f"written: {', '.join(map(str, files))}")
    return 0
