from __future__ import annotations

import pytest

from napari_unet.core.errors import SettingsError
from napari_unet.gui.errors import describe_error


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (SettingsError("tile is 3; it must be more."), "tile is 3; it must be more."),
        (RuntimeError("CUDA error\nand much more"), "The run failed: RuntimeError: CUDA error"),
        (KeyError(), "The run failed: KeyError: no reason given"),
        (MemoryError(), "There is not enough memory; close other programs, or run on a part of "
         "the stack."),
    ],
)  # fmt: skip
def test_errors_are_one_sentence(error, text):
    assert describe_error(error) == text
