"""The layer table: it adds up, and its operations are those of a count by hand."""

from __future__ import annotations

import pytest

from napari_unet.core.settings.model_spec import ModelSpec
from napari_unet.nn.unet.click_head import ClickHead
from napari_unet.nn.unet.net import UNet
from napari_unet.nn.unet.refiner import Refiner
from napari_unet.nn.unet.summary import format_summary, summarise_network


def test_a_network_counted_by_hand():
    rows = summarise_network(ModelSpec(in_channels=1, depth=1, width=2, convs=1, norm="none")).rows
    assert [(r.name, r.channels, r.scale, r.parameters, r.flops) for r in rows] == [
        ("encoder.0", 2, (1, 1), 9 * 2 + 2, 2 * 9 * 2),
        ("pools.0", 2, (2, 2), 0, 0),
        ("bottleneck", 4, (2, 2), 9 * 2 * 4 + 4, 2 * 9 * 2 * 4 / 4),
        ("ups.0", 2, (1, 1), 4 * 4 * 2 + 2, 2 * 4 * 2),
        ("decoder.0", 2, (1, 1), 9 * 4 * 2 + 2, 2 * 9 * 4 * 2),
        ("head", 2, (1, 1), 2 * 2 + 2, 2 * 2 * 2),
    ]


@pytest.mark.parametrize(
    "spec",
    [
        ModelSpec(width=4),
        ModelSpec(ndim=3, depth=2, width=4, up="linear", pool="stride", attention=True),
        ModelSpec(depth=2, width=4, residual=True, skip="add", head="semantic", classes=4),
    ],
    ids=["plain", "3D", "residual"],
)
def test_totals_are_those_of_the_network(spec):
    whole = summarise_network(spec)
    assert whole.parameters == sum(p.numel() for p in UNet(spec).parameters())
    assert whole.flops == sum(row.flops for row in whole.rows)
    assert len({row.name for row in whole.rows}) == len(whole.rows)


def test_gates_stand_between_up_sampling_and_decoder():
    names = [row.name for row in summarise_network(ModelSpec(depth=1, attention=True)).rows]
    assert names[-4:] == ["ups.0", "gates.0", "decoder.0", "head"]


def test_scales_follow_the_pooling_of_each_axis():
    spec = ModelSpec(ndim=3, depth=2, width=2, pooling=((1, 2, 2), (2, 2, 2)))
    scales = {row.name: row.scale for row in summarise_network(spec).rows}
    assert scales["encoder.1"] == (1, 2, 2)
    assert scales["bottleneck"] == (2, 4, 4)
    assert scales["head"] == (1, 1, 1)


def test_the_largest_network_is_described_without_being_built():
    whole = summarise_network(ModelSpec(width=512, max_width=4096, depth=7))
    assert whole.parameters > 3_000_000_000


def test_table_shows_every_part_and_what_it_means_for_images():
    spec = ModelSpec(ndim=3, depth=2, width=4, pooling=((1, 2, 2), (2, 2, 2)))
    lines = format_summary(spec).splitlines()
    assert lines[0].split() == ["part", "channels", "resolution", "parameters", "FLOP/px"]
    assert [line.split()[0] for line in lines[2:-4]] == [
        row.name for row in summarise_network(spec).rows
    ]
    assert lines[-3].split() == [
        "total",
        f"{summarise_network(spec).parameters:,}",
        f"{summarise_network(spec).flops:,.0f}",
    ]
    assert "1/2 x 1/4 x 1/4" in lines[2 + 4]
    assert "(z, y, x)" in lines[-2]
    assert "(2, 4, 4)" in lines[-1]


def test_networks_for_clicks_follow_the_total_with_what_they_are_for():
    spec = ModelSpec(depth=2, width=4)
    head = ClickHead(spec, refiner=Refiner())
    lines = format_summary(spec, head.card_entry({})).splitlines()
    weights = [sum(p.numel() for p in net.parameters()) for net in (head, head.refiner)]
    assert lines[-6].split() == ["click", "head", f"{weights[0] - weights[1]:,}"]
    assert lines[-5].split() == ["refiner", f"{weights[1]:,}"]
    assert "outlines of large clicked objects" in lines[-3]
    assert "refiner" not in format_summary(spec, ClickHead(spec).card_entry({}))
