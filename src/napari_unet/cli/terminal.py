"""What commands show: a progress bar, remarks of one line each, tables; the exit statuses."""

from __future__ import annotations

import contextlib
import io
import logging
import signal
import sys
import threading
import warnings
from typing import TYPE_CHECKING, Any, TypeVar

from napari_unet.core.errors import UnetError
from napari_unet.core.image.normalise import NonFiniteWarning
from napari_unet.core.progress import run_to_end
from napari_unet.core.text import align

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator, Sequence

    from tqdm import tqdm

    from napari_unet.core.progress import Progress


logger = logging.getLogger(__name__)

Item = TypeVar("Item")
Result = TypeVar("Result")

UNUSABLE, INTERRUPTED = 2, 130
"""Exit statuses, which `cli.main` returns; 0 is done."""


def run_all(
    items: Sequence[Item], run: Callable[[Item, tqdm[Any]], None], *, keep_going: bool
) -> int:
    """Run each item under one bar; return how many failed, or without `keep_going` raise."""
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
            except Exception as error:  # nothing that one file does ends the run of the others
                if not keep_going:
                    raise
                failed += 1
                say(f"skipped: {_name(item)}: {_unforeseen(error)}")
            bar.update(number - bar.n)
    return failed


def _name(item: object) -> str:
    return str(getattr(item, "source", None) or getattr(item, "name", None) or item)


def _unforeseen(error: Exception) -> str:
    if isinstance(error, MemoryError):
        return "there is not enough memory for it."
    logger.debug("a file failed", exc_info=error)
    return f"{type(error).__name__}: {error}"


def follow(steps: Generator[Progress, None, Result], bar: tqdm[Any]) -> Result:
    """Run the steps of one item to their end, moving the bar within the item; return the result."""
    before, said = round(bar.n), ""

    def show(step: Progress) -> None:
        nonlocal said
        if (reason := getattr(step, "reason", "")) != said:
            said = reason
            say(f"{reason} …" if reason else "the server answers again.")
        for remark in getattr(step, "remarks", ()):
            say(f"warning: {remark.text}")
        if estimate := getattr(step, "estimate", None):
            say(estimate.line())
        if problem := getattr(step, "problem", ""):
            say(f"warning: left empty: block at {_corner(step)}: {problem}")
        bar.update(before + min(step.done / max(1, step.total), 1) - bar.n)

    return run_to_end(steps, show)


@contextlib.contextmanager
def ending_as_by_control_c() -> Iterator[None]:
    """Have a request to end (SIGTERM) clean up as Ctrl+C does, instead of ending at once.

    Batch systems, containers and ``timeout`` send it. A second one ends at once.
    """

    def end(*_: object) -> None:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        raise KeyboardInterrupt

    with _ending_by(end):
        yield


@contextlib.contextmanager
def ending_at_once() -> Iterator[None]:
    """Have SIGTERM end a window at once: its event loop would not notice before the mouse moves."""
    with _ending_by(signal.SIG_DFL):
        yield


@contextlib.contextmanager
def _ending_by(handler: Any) -> Iterator[None]:
    """Have a handler called at SIGTERM; only the main thread can say so."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL if before is None else before)


def _corner(step: Any) -> str:
    """Return where a block begins, along all axes of the labels."""
    return str((*step.index, *(part.start for part in step.window)))


def progress_bar(items: int) -> tqdm[Any]:
    """Return a bar on standard error, which is hidden if that is no terminal."""
    from tqdm import tqdm

    layout = "{desc} {percentage:3.0f}%|{bar}| {elapsed}<{remaining}"
    return tqdm(total=items, bar_format=layout, disable=None, file=sys.stderr)


def say(text: str) -> None:
    """Write a remark of one line on standard error, above the bar if there is one."""
    from tqdm import tqdm

    tqdm.write(f"napari-unet: {_line(text)}", file=sys.stderr)


def _line(text: object) -> str:
    return " ".join(str(text).split())


@contextlib.contextmanager
def one_line_remarks() -> Iterator[None]:
    """Show warnings as remarks, and keep tifffile from logging what errors say already.

    Characters that a terminal cannot show, such as in file names on Windows, are escaped.
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


def format_table(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return rows below headings, aligned; the first column is text, the others are numbers."""
    text = align([headings, *rows])
    return "\n".join([text[0], "-" * max(map(len, text)), *text[1:]])
