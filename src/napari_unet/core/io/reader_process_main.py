"""What runs in the process that reads a file apart from the program: see `reader_process`."""

from __future__ import annotations

import importlib
import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

import numpy as np

from napari_unet.core.errors import InputError
from napari_unet.core.io.files import Opened, first_line

ORPHAN_S = 60
"""So much later the system ends a process that nobody has ended: who started it was killed."""


def serve() -> None:
    """Answer questions from standard input until it ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl+C is for whoever has started this process
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what libraries print is no answer
    set_alarm = getattr(signal, "alarm", lambda seconds: None)  # Windows has none
    data: Any = None
    for line in sys.stdin.buffer:
        question, values = json.loads(line), b""
        set_alarm(int(question["within_s"]) + ORPHAN_S)
        try:
            if question["do"] == "read":
                answer, values = {}, _read(data, question["start"], question["count"])
            else:
                data = None  # of the file before
                opened = _open_here(question)
                data, answer = (None, {}) if opened is None else (opened.data, _describe(opened))
        except InputError as error:
            answer = {"refused": str(error)}
        except Exception as error:  # libraries share no base class of errors
            answer = {"failed": first_line(error)}
        answers.write(json.dumps(answer).encode() + b"\n")
        answers.write(values)
        answers.flush()
        set_alarm(0)


def _open_here(question: dict[str, Any]) -> Opened | None:
    """Open a file, or only import what that needs."""
    module, path = importlib.import_module(question["module"]), Path(question["file"])
    if question["do"] == "import":
        module.import_package(path)
        return None
    opened: Opened = module.read(path, question["image"])
    return opened


def _describe(opened: Opened) -> dict[str, Any]:
    chunks = getattr(opened.data, "chunks", None)
    return {
        "shape": [int(size) for size in opened.data.shape],
        "dtype": np.dtype(opened.data.dtype).str,
        "chunks": chunks and [np.asarray(sizes).tolist() for sizes in chunks],
        "axes": opened.axes,
        "voxel_size_um": opened.voxel_size_um,
        "remarks": opened.remarks,
        "series": opened.series,
        "channel_names": opened.channel_names,
    }


def _read(data: Any, starts: list[int], counts: list[int]) -> Any:
    window = tuple(slice(a, a + n) for a, n in zip(starts, counts, strict=True))
    return np.ascontiguousarray(data[window], data.dtype).data
