from __future__ import annotations

import pytest

from napari_unet.core.text import format_duration


@pytest.mark.parametrize(("seconds", "text"), [(0.2, "0:00"), (59.6, "1:00"), (7384, "2:03:04")])
def test_format_duration(seconds, text):
    assert format_duration(seconds) == text
