"""What the command line shows while it works: one bar, and remarks of one line each."""

from __future__ import annotations

import contextlib
import io
import logging
import math
import sys
import warnings
from typing import TYPE_CHECKING, Any, TypeVar

from napari_unet.core.errors import UnetError
from napari_unet.core.image.normalise import NonFiniteWarning
from napari_unet.core.models.folder import WEIGHTS
from napari_unet.core.progress import map_steps
from napari_unet.core.text import align, pluralise

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator, Sequence

    from tqdm import tqdm

    from napari_unet.core.models.card import ModelCard
    from napari_unet.core.models.store import ModelEntry
    from napari_unet.core.progress import Progress


Item = TypeVar("Item")
Result = TypeVar("Result")


def run_all(
    items: Sequence[Item], run: Callable[[Item, tqdm[Any]], None], *, keep_going: bool
) -> int:
    """Run each item under one bar and return how many failed; without `keep_going`, raise."""
    failed = 0
    with progress_bar(len(items)) as bar:
        for number, item in enumerate(items, 1):
            try:
                run(item, bar)
            except UnetError as error:
                if not keep_going:
                    raise
                failed += 1
                say(f"skipped: {error}")
            bar.update(number - bar.n)
    return failed


def follow(steps: Generator[Progress, None, Result], bar: tqdm[Any]) -> Result:
    """Move the bar along within the item at hand; close the steps whatever happens."""
    before = round(bar.n)
    try:
        while True:
            step = next(steps)
            for remark in getattr(step, "remarks", ()):
                say(f"warning: {remark.text}")
            if estimate := getattr(step, "estimate", None):
                say(estimate.line())
            if problem := getattr(step, "problem", ""):
                say(f"warning: left empty: block at {_corner(step)}: {problem}")
            bar.update(before + min(step.done / max(1, step.total), 1) - bar.n)
    except StopIteration as end:
        result: Result = end.value
        return result
    finally:
        steps.close()


def _corner(step: Any) -> str:
    """Say where a block begins, along all axes of the labels."""
    return str((*step.index, *(part.start for part in step.window)))


def watched(
    steps: Generator[Progress, None, Result], bar: tqdm[Any]
) -> Generator[Progress, None, Result]:
    """Pass the steps of a training on; show its loss beside the bar, and its scores above it."""

    def show(step: Progress) -> Progress:
        scores = getattr(step, "validation", None)
        loss = getattr(step, "loss", math.nan)
        if scores:
            shown = ", ".join(f"{k} {v:.3f}" for k, v in scores.items() if math.isfinite(v))
            at = f"step {step.done}: " + ("" if math.isnan(loss) else f"loss {loss:.3f}, ")
            say(at + shown)
        text = step.what if math.isnan(loss) else f"{step.what}: loss {loss:.3f}"
        bar.set_description(text, refresh=False)
        return step

    return (yield from map_steps(steps, show))


def progress_bar(items: int) -> tqdm[Any]:
    """Return a bar on standard error, if somebody watches there."""
    from tqdm import tqdm

    layout = "{desc} {percentage:3.0f}%|{bar}| {elapsed}<{remaining}"
    return tqdm(total=items, bar_format=layout, disable=None, file=sys.stderr)


def say(text: str) -> None:
    """Write a remark on standard error, in one line; above the bar where there is one."""
    from tqdm import tqdm

    tqdm.write(f"napari-unet: {_line(text)}", file=sys.stderr)


def _line(text: object) -> str:
    return " ".join(str(text).split())


@contextlib.contextmanager
def one_line_remarks() -> Iterator[None]:
    """Give warnings one line each, and keep libraries from logging what an error says already.

    What a terminal cannot show, such as a file name in another script on Windows, is escaped.
    """
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")
    silent, logger = logging.NullHandler(), logging.getLogger("tifffile")
    logger.addHandler(silent)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("always", NonFiniteWarning)
            warnings.showwarning = lambda message, *where, **how: say(f"warning: {message}")
            yield
    finally:
        logger.removeHandler(silent)


MODEL_HEADINGS = ("model", "kind", "channels", "MB", "licence", "from")


def format_table(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Lay out rows below headings; the first column is text, the others are figures."""
    text = align([headings, *rows])
    return "\n".join([text[0], "-" * max(map(len, text)), *text[1:]])


def run_line(target: object, provenance: dict[str, Any]) -> str:
    """Say in one line what a run gave, and that its tiles fit together."""
    seam = provenance["seam"]
    tracks = f" in {pluralise(provenance['tracks'], 'track')}" if "tracks" in provenance else ""
    certificate = "not checked" if seam is None else f"largest |difference| {seam:.1e}"
    return (
        f"{target}: {pluralise(provenance['objects'], 'object')}{tracks}, "
        f"{provenance['seconds']:.2f} s, "
        f"{provenance['mpx_per_s']:.2f} MPx/s on {provenance['device']} "
        f"({provenance['precision']}), seams: {certificate}"
    )


def model_row(entry: ModelEntry) -> list[str]:
    """Return what stands below `MODEL_HEADINGS` for one model."""
    origin = "napari-unet" if entry.bundled else "you"
    if entry.card is None:
        return [entry.name, "unusable", "", "", "", origin]
    spec, weights = entry.card.spec, entry.path / WEIGHTS
    size = f"{weights.stat().st_size / 1e6:.1f}" if weights.is_file() else "missing"
    kind = f"{spec.ndim}D {spec.head}"
    return [entry.name, kind, str(spec.in_channels), size, entry.card.licence, origin]


def card_lines(card: ModelCard) -> list[str]:
    """Write a model card as lines of names and values."""
    values = card.to_json()
    values["click"].pop("spec", None)  # the network's table says what a model is built from
    pairs = [pair for name in values if name != "spec" for pair in _flat(name, values[name])]
    width = max(len(name) for name, _ in pairs)
    return [f"{name.ljust(width)}  {value}".rstrip() for name, value in pairs]


def _flat(name: str, value: Any) -> Iterator[tuple[str, str]]:
    """Yield a value's parts by dotted names."""
    if isinstance(value, dict):
        for key, part in value.items():
            yield from _flat(f"{name}.{key}", part)
    elif isinstance(value, list):
        shown = ", ".join(map(str, value[:8]))
        yield name, f"{shown}, ... ({len(value)} values)" if len(value) > 8 else shown
    else:
        yield name, "-" if value in (None, "") else str(value)
