"""A reader that does what the name of its file says: hangs, crashes, refuses or reads."""

from __future__ import annotations

import itertools
import os
import time
from typing import TYPE_CHECKING

import numpy as np

from napari_unet.core.errors import InputError
from napari_unet.core.io.files import Opened
from napari_unet.core.io.lazy_arrays import LazyArray, ranges_from_index

if TYPE_CHECKING:
    from pathlib import Path
    from typing import Any

VALUES = np.arange(3 * 40 * 50, dtype=">u2").reshape(3, 40, 50)


class Planes(LazyArray):
    """Planes of which the last one ends the process, or each takes work, as the file is called."""

    def __init__(self, path: Path) -> None:
        super().__init__(VALUES.shape, VALUES.dtype)
        self.path, self.chunks = path, ((1, 1, 1), (40,), (50,))

    def __getitem__(self, key: Any) -> np.ndarray:
        spans, _ = ranges_from_index(key, self.shape)
        if 2 in spans[0] and self.path.stem == "crashes later":
            os._exit(11)
        begun = time.process_time()
        while self.path.stem == "takes work" and time.process_time() - begun < 0.4:
            pass
        return VALUES[key]


def import_package(path: Path) -> None:
    if path.stem == "not installed":
        raise InputError(f"{path} needs a package.")


def read(path: Path, series: int | None) -> Opened:
    print("what a library says")
    if path.stem == "hangs":
        for _ in itertools.count():
            pass
    if path.stem == "waits":
        time.sleep(1e6)
    if path.stem == "crashes":
        os._exit(11)
    if path.stem == "crashes after another" and OTHERS:
        os._exit(11)
    OTHERS.append(path)
    if path.stem == "fails":
        raise KeyError("no such block")
    if path.stem == "refused":
        raise InputError(f"{path} is refused.")
    return Opened(Planes(path), "ZYX", (2.0, 0.5, 0.5), None, (f"series {series}",), series)


OTHERS: list[Path] = []
"""The files that this process has read before."""
