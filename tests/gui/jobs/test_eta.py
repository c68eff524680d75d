from __future__ import annotations

import pytest

from napari_unet.core.progress import Progress
from napari_unet.gui.jobs import eta as pace


def test_the_rate_is_told_from_the_second_tile_on(monkeypatch):
    now = [100.0]
    monkeypatch.setattr(pace.time, "perf_counter", lambda: now[0])
    speed = pace.Pace()
    assert speed.describe(Progress(0, 0, "loading the model")) == "Loading the model …"
    now[0] = 103.0  # loading took its time
    speed.tick(1)
    assert speed.describe(Progress(1, 9, "tiles")) == "1 of 9 tiles"
    now[0] = 104.0
    speed.tick(3)
    assert speed.describe(Progress(3, 9, "tiles")) == "3 of 9 tiles · 2.0 tiles/s · 0:03 left"
    assert speed.seconds == 4.0


@pytest.mark.parametrize(("seconds", "text"), [(0.2, "0:00"), (59.6, "1:00"), (7384, "2:03:04")])
def test_clock(seconds, text):
    assert pace.clock(seconds) == text
