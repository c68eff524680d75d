from __future__ import annotations

from napari_unet.core.progress import Progress
from napari_unet.gui.segment import run


def test_the_rate_is_told_from_the_second_tile_on(monkeypatch):
    now = [100.0]
    monkeypatch.setattr(run.time, "perf_counter", lambda: now[0])
    speed = run.Eta()
    assert speed.describe(Progress(0, 0, "loading the model")) == "Loading the model …"
    now[0] = 103.0  # loading took its time
    speed.tick(1)
    assert speed.describe(Progress(1, 9, "tiles")) == "1 of 9 tiles"
    now[0] = 104.0
    speed.tick(3)
    assert speed.describe(Progress(3, 9, "tiles")) == "3 of 9 tiles · 2.0 tiles/s · 0:03 left"
    assert speed.seconds == 4.0
