"""Layers that show what became of objects: a few colours, rims stronger than insides."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

_INSIDE = 0.3  # opacity: the image below and the rims of other objects can be seen


def codes_colormap(colours: Mapping[str, tuple[int, int, int]]) -> Any:
    """Return the colormap of what `draw_codes` draws; the kinds in the same order."""
    from napari.utils.colormaps import DirectLabelColormap

    from napari_unet.core.scoring.verdict import inside_code, outline_code

    kinds = list(colours)
    table: dict[int | None, tuple[float, ...]] = {None: (0, 0, 0, 0), 0: (0, 0, 0, 0)}
    for kind, colour in colours.items():
        rgb = tuple(value / 255 for value in colour)
        table[outline_code(kind, kinds)] = (*rgb, 1)
        table[inside_code(kind, kinds)] = (*rgb, _INSIDE)
    return DirectLabelColormap(color_dict=table)


def codes_names(colours: Mapping[str, tuple[int, int, int]]) -> dict[str, list[Any]]:
    """Name the codes, for the status bar."""
    from napari_unet.core.scoring.verdict import inside_code, outline_code

    kinds = list(colours)
    names = {code(kind, kinds): kind for code in (outline_code, inside_code) for kind in kinds}
    return {"index": list(names), "object": list(names.values())}


def legend(colours: Mapping[str, tuple[int, int, int]], counts: Mapping[str, int]) -> str:
    """Return how many there are of each kind, in their colours, as rich text."""
    return " &nbsp; ".join(
        f'<span style="color: rgb{colours[kind]}">■</span> {count:,} {kind}'
        for kind, count in counts.items()
    )
