"""The size of the objects by one click."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from napari_unet.core.errors import InputError
from napari_unet.core.io.stack import open_stack
from napari_unet.core.progress import run_to_end
from napari_unet.nn.interactive.size_by_click import clicked_diameter


@pytest.fixture
def stack():
    y, x = np.ogrid[:120, :130]
    return open_stack(((y - 30) ** 2 + (x - 40) ** 2 < 100).astype(np.float32))


@pytest.mark.parametrize("sizes", [(), (20.0,), (77.0, 20.0)])
def test_the_clicked_object_is_measured(clicking_model, stack, sizes):
    model = clicking_model()
    sized = model.card.replace(training={"working_diameter_px": 20})
    found = run_to_end(clicked_diameter(stack, replace(model, card=sized), (30, 40), sizes))
    assert found == pytest.approx(20, rel=0.1)


def test_where_nothing_is_an_error_says_what_to_do(clicking_model, stack):
    with pytest.raises(InputError, match="click on the middle of one"):
        run_to_end(clicked_diameter(stack, clicking_model(), (100, 100)))
    with pytest.raises(InputError, match="outside"):
        run_to_end(clicked_diameter(stack, clicking_model(), (500, 20)))
