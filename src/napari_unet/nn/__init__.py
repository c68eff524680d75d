"""Networks and everything that runs them: may import torch and core, never napari or Qt.

unet           the networks: trunk, heads, losses
inference      models, tiles, maps, labels
interactive    clicks
training       training, fine-tuning, evaluation on held-out images
exchange       models for other programs, and from them
blockwise      runs in blocks, for stacks that do not fit into memory; clusters
remote         a network on another computer
serve          a network for other computers: `napari-unet serve`
bench          how fast this computer is
"""

import ctypes
import gc
import importlib.util
import os
import sys
from pathlib import Path

# torch reads this with its first tensor. Linux hands out memory page by page, 4 KiB each; with
# large pages for large tensors, prediction takes up to a fifth less time.
os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")


def _load_torch() -> None:
    """Import torch in a way that lets other threads, such as a window's, go on meanwhile.

    Python's lock is held while an import loads a library, which takes 0.2 s for torch's largest,
    and while garbage is collected, as often as an import makes many objects. So that library is
    loaded before, by a call that does without the lock, and garbage waits.
    """
    found = importlib.util.find_spec("torch")
    if "torch" in sys.modules or found is None or found.origin is None:
        return
    suffix = {"linux": "so", "darwin": "dylib"}.get(sys.platform)
    if suffix:
        library = Path(found.origin).parent / "lib" / f"libtorch_cpu.{suffix}"
        load = ctypes.CDLL(None).dlopen
        load.restype = ctypes.c_void_p
        load(os.fsencode(library), os.RTLD_NOW)  # where it fails, the import says why
    collects = gc.isenabled()
    gc.disable()
    try:
        importlib.import_module("torch")
    finally:
        if collects:
            gc.enable()


_load_torch()
