"""Objects become outlines and outlines objects, without a pixel gained or lost."""

from __future__ import annotations

import numpy as np
import pytest
from odd_objects import random_labels

from napari_unet.core.errors import InputError
from napari_unet.core.labels.outlines import (
    ObjectRegion,
    draw_regions,
    fill_rings,
    ring_area,
    trace_mask,
    trace_objects,
)


@pytest.mark.parametrize("smooth", [0.0, 0.7, 2.0])
@pytest.mark.parametrize("shape", [(37, 53), (1, 9), (9, 1), (1, 1)])
def test_outlines_give_the_labels_back(shape, smooth) -> None:
    labels = random_labels(3, shape, smooth)
    regions = list(trace_objects(labels, "YX"))
    assert [region.label for region in regions] == sorted(set(np.unique(labels)) - {0})
    drawn, remarks = draw_regions(regions, shape, "YX")
    assert np.array_equal(drawn, labels) and remarks == []


def test_areas_are_those_of_the_pixels_and_holes_are_holes() -> None:
    labels = random_labels(1, (60, 60), 1.0)
    for region in trace_objects(labels, "YX"):
        area = sum(ring_area(p[0]) - sum(map(ring_area, p[1:])) for p in region.parts)
        assert area == np.count_nonzero(labels == region.label)


def test_corners_that_meet() -> None:
    mask = np.array([[1, 0, 1], [0, 1, 0], [1, 0, 1]], bool)
    parts = trace_mask(mask)
    assert len(parts) == 5 and all(len(part) == 1 and len(part[0]) == 4 for part in parts)
    ring = np.ones((3, 3), bool)
    ring[1, 1] = False
    ((outer, hole),) = trace_mask(ring)
    assert ring_area(outer) == 9 and ring_area(hole) == 1
    chain = np.array([[1, 1, 0], [1, 0, 1], [1, 1, 1]], bool)
    window, drawn = fill_rings([r for part in trace_mask(chain) for r in part], (3, 3))
    assert np.array_equal(drawn, chain[window])


def test_stacks_have_outlines_in_each_plane() -> None:
    labels = np.stack([random_labels(seed, (3, 20, 30)) for seed in (5, 6)])
    regions = list(trace_objects(labels, "TZYX"))
    assert {tuple(sorted(region.plane.items())) for region in regions} == {
        (("T", t), ("Z", z)) for t in range(2) for z in range(3)
    }
    assert np.array_equal(draw_regions(regions, labels.shape, "TZYX")[0], labels)


def test_a_polygon_takes_the_pixels_whose_middle_is_inside() -> None:
    y, x = np.mgrid[:40, :50] + 0.5
    triangle = np.array([[3.3, 5.1], [35.2, 20.7], [8.4, 44.9]])
    inside = np.ones((40, 50), bool)
    for (y0, x0), (y1, x1) in zip(triangle, np.roll(triangle, -1, 0), strict=True):
        inside &= (x1 - x0) * (y - y0) - (y1 - y0) * (x - x0) < 0
    window, mask = fill_rings([triangle], (40, 50))
    drawn = np.zeros((40, 50), bool)
    drawn[window] = mask
    assert np.array_equal(drawn, inside) and drawn.any()


def test_what_is_outside_or_overlaps_is_said() -> None:
    square = np.array([[0, 0], [0, 4], [4, 4], [4, 0]])
    regions = [ObjectRegion([[square]]), ObjectRegion([[square + 2]]), ObjectRegion([[square - 9]])]
    drawn, remarks = draw_regions(regions, (5, 5), "YX")
    assert np.count_nonzero(drawn == 1) == 12 and np.count_nonzero(drawn == 2) == 9
    assert remarks == [
        "1 outline outside the image, left out",
        "4 pixels in several outlines, given to the last",
    ]
    drawn, remarks = draw_regions([ObjectRegion([[square]], plane={"Z": 3})], (2, 5, 5), "ZYX")
    assert not drawn.any() and "outside" in remarks[0]
    for bad in (np.full((4, 2), np.nan), np.array([[0, 0], [np.inf, 1], [1, 1]])):
        with pytest.raises(InputError, match="cannot be drawn"):
            draw_regions([ObjectRegion([[bad]])], (5, 5), "YX")
    assert fill_rings([], (5, 5)) is None
    with pytest.raises(InputError, match="too large"):
        draw_regions([], (2**20, 2**20), "YX")
