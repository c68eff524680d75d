"""Scripts run as from their command lines, but in this process: torch need not be loaded again."""

from __future__ import annotations

import runpy
import sys
import warnings
from functools import partial
from typing import TYPE_CHECKING

import pytest

from napari_unet.core.image.domain_shift import ShiftWarning

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


def run_main(main: Callable[[], object], *arguments: object) -> int:
    """Call a script's main function; the arguments begin with its name. Return the exit status."""
    with pytest.MonkeyPatch.context() as patch, warnings.catch_warnings():
        warnings.simplefilter("ignore", ShiftWarning)  # remarks on images, which it prints
        patch.setattr(sys, "argv", [str(argument) for argument in arguments])
        try:
            main()
        except SystemExit as end:
            return int(end.code or 0)
    return 0


def run_script(script: Path, *arguments: object) -> int:
    """Run a script; return its exit status."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(script.parent)  # for those that import another one
        return run_main(
            partial(runpy.run_path, str(script), run_name="__main__"), script, *arguments
        )
