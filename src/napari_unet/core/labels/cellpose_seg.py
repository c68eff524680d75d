"""The ``_seg.npy`` files of Cellpose, read without running anything that they hold.

Such a file is a pickled dictionary: whoever loads it with numpy runs whatever its author wanted.
Here its instructions are only listed (`pickletools.genops` runs none), and those that build plain
values and numpy arrays are followed. Any other makes the file refused.
"""

from __future__ import annotations

import pickletools
import tokenize
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_unet.core.errors import InputError
from napari_unet.core.io.files import UNREADABLE, atomic_file, first_line

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

LARGEST = 2**32
"""Bytes of a file, at most."""
_MAGIC = b"\x93NUMPY"

_MARK = object()
_ARRAYS = ("_reconstruct", "ndarray", "dtype", "scalar", "_frombuffer")
_MODULES = ("numpy", "numpy.core.multiarray", "numpy._core.multiarray", "numpy._core.numeric",
            "numpy.core.numeric")  # fmt: skip


def read_cellpose_seg(path: Path) -> np.ndarray:
    """Return the masks of a ``_seg.npy`` of Cellpose, integers ([Z,] Y, X), 0 is background.

    Raises
    ------
    InputError
        It cannot be read, or holds something else than plain values and arrays.
    """
    try:
        if path.stat().st_size > LARGEST:
            raise InputError(f"{path} is larger than masks may be ({LARGEST:,} bytes).")
        values = _unpack(path.read_bytes())
        masks = np.asarray(values["masks"])
        if masks.dtype.kind not in "iub" or masks.ndim not in (2, 3):
            raise ValueError(f"its masks are {masks.dtype} of {masks.ndim} axes")
    except (KeyError, MemoryError, tokenize.TokenError, *UNREADABLE) as error:
        reason = "it has no masks" if isinstance(error, KeyError) else first_line(error)
        raise InputError(
            f"{path} cannot be read as masks of Cellpose ({reason}); save the masks as .tif or "
            ".png in Cellpose."
        ) from error
    # Before version 1 the background was -1 and the first object 0.
    return masks + 1 if masks.size and masks.min() == -1 else masks


def write_cellpose_seg(path: Path, labels: np.ndarray, image: Path | None) -> None:
    """Write masks ([Z,] Y, X) as a ``_seg.npy`` that Cellpose opens with its image.

    Raises
    ------
    OutputError
        The file cannot be written.
    """
    outlines = np.where(_edges(labels), labels, 0)
    values = {
        "outlines": outlines,
        "masks": labels,
        "chan_choose": [0, 0],
        "ismanual": np.zeros(int(labels.max(initial=0)), bool),
        "filename": "" if image is None else str(image.absolute()),
        "flows": [],
        "diameter": float("nan"),
    }
    with atomic_file(path) as partial, partial.open("wb") as file:
        np.save(file, np.array(values, dtype=object), allow_pickle=True)


def _edges(labels: np.ndarray) -> np.ndarray:
    """Return which pixels of objects have a neighbour in their plane that is none of them."""
    edge = np.zeros(labels.shape, bool)
    for axis in (-2, -1):
        along, rim = np.moveaxis(labels, axis, 0), np.moveaxis(edge, axis, 0)
        differs = along[1:] != along[:-1]
        rim[:-1] |= differs
        rim[1:] |= differs
    return edge & (labels > 0)


def _unpack(data: bytes) -> Any:
    """Return the dictionary in an .npy of one object."""
    if not data.startswith(_MAGIC):
        raise ValueError("it is no .npy")
    import io

    stream = io.BytesIO(data)
    version = np.lib.format.read_magic(stream)
    read = {
        (1, 0): np.lib.format.read_array_header_1_0,
        (2, 0): np.lib.format.read_array_header_2_0,
    }
    if version not in read:
        raise ValueError("it is an .npy of another version")
    shape, _, dtype = read[version](stream)
    if not dtype.hasobject or shape not in ((), (1,)):
        raise ValueError("it is an array, not the results of Cellpose")
    found = _Builder().run(data[stream.tell() :])
    # The outer array of one object: built, then given its state.
    inner = found.content[0] if isinstance(found, _Array) and found.content else None
    if not isinstance(inner, dict):
        raise ValueError("it holds no entries")
    return {key: _plain(value) for key, value in inner.items() if key == "masks"}


class _Name:
    """A global that the file asks for; it is known by name, and never looked up."""

    def __init__(self, module: str, name: str) -> None:
        known = module in _MODULES and name in _ARRAYS
        codec = (module, name) == ("_codecs", "encode")  # of files of protocol 2
        if not known and not codec:
            raise ValueError(f"it wants to run {module}.{name}"[:80])
        self.name = name


class _Array:
    """An array or dtype in the making: its arguments, then its state."""

    def __init__(self, kind: str, arguments: tuple[Any, ...]) -> None:
        self.kind, self.arguments = kind, arguments
        self.state: Any = None

    @property
    def content(self) -> list[Any]:
        """The objects of an array of objects."""
        state = self.state
        return state[4] if isinstance(state, tuple) and isinstance(state[4], list) else []


def _plain(value: Any) -> Any:
    """Return an array that the file describes as an array."""
    if not isinstance(value, _Array):
        return value
    if value.kind == "_frombuffer":
        buffer, dtype, shape, order = value.arguments
        return np.frombuffer(buffer, _dtype(dtype)).reshape(shape, order=order)
    if value.kind != "_reconstruct" or not isinstance(value.state, tuple):
        raise ValueError("its masks are no array")
    _, shape, dtype, by_column, data = value.state
    if not isinstance(data, bytes):
        raise ValueError("its masks are an array of objects")
    found = np.frombuffer(data, _dtype(dtype))
    return found.reshape(tuple(map(int, shape)), order="F" if by_column else "C")


def _dtype(value: Any) -> np.dtype[Any]:
    if not isinstance(value, _Array) or value.kind != "dtype":
        raise ValueError("its masks have no type")
    kind = str(value.arguments[0])
    order = str(value.state[1]) if isinstance(value.state, tuple) else "|"
    if kind[:1] not in ("i", "u", "b") or not kind[1:].isdecimal() or order not in "<>|=":
        raise ValueError("its masks are no integers")
    found: np.dtype[Any] = np.dtype(f"{order}{kind}")
    return found


class _Builder:
    """Follows the instructions of a pickle that build plain values; refuses all others."""

    def __init__(self) -> None:
        self.stack: list[Any] = []
        self.memo: dict[int, Any] = {}

    def run(self, data: bytes) -> Any:
        """Return what the instructions build."""
        for opcode, argument, _ in pickletools.genops(data):
            if opcode.name == "STOP":
                return self.stack.pop()
            if opcode.name in _PUSH:
                self.stack.append(argument)
                continue
            step: Callable[[_Builder, Any], None] | None = _STEPS.get(opcode.name)
            if step is None:
                raise ValueError(f"it has the instruction {opcode.name}")
            step(self, argument)
        raise ValueError("it is cut short")

    def items(self) -> list[Any]:
        """Take what lies above the last mark."""
        at = len(self.stack) - 1
        while self.stack[at] is not _MARK:
            at -= 1
            if at < 0:
                raise ValueError("it has no mark")
        found = self.stack[at + 1 :]
        del self.stack[at:]
        return found

    def take(self, count: int) -> tuple[Any, ...]:
        """Take the last values."""
        if len(self.stack) < count:
            raise ValueError("it takes what is not there")
        found = tuple(self.stack[-count:])
        del self.stack[-count:]
        return found

    def remember(self, key: int | None) -> None:
        self.memo[len(self.memo) if key is None else key] = self.stack[-1]

    def name(self, argument: Any) -> None:
        module, name = self.take(2) if argument is None else str(argument).split(" ", 1)
        self.stack.append(_Name(module, name))

    def call(self, _: Any) -> None:
        called, arguments = self.take(2)
        if not isinstance(called, _Name) or not isinstance(arguments, tuple):
            raise ValueError("it calls what is no array")
        if called.name == "encode":  # text that stands for bytes
            self.stack.append(str(arguments[0]).encode("latin-1"))
        else:
            self.stack.append(_Array(called.name, arguments))

    def build(self, _: Any) -> None:
        target, state = self.take(2)
        if not isinstance(target, _Array):
            raise ValueError("it changes what is no array")
        target.state = state
        self.stack.append(target)

    def append(self, values: list[Any]) -> None:
        self._target(list).extend(values)

    def set(self, values: list[Any]) -> None:
        self._target(dict).update(zip(values[::2], values[1::2], strict=True))

    def _target(self, kind: type) -> Any:
        if not self.stack or type(self.stack[-1]) is not kind:
            raise ValueError("it adds to what is no list")
        return self.stack[-1]


_PUSH = {
    "NONE", "INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT",
    "UNICODE", "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8", "BINBYTES", "SHORT_BINBYTES",
    "BINBYTES8", "STRING", "BINSTRING", "SHORT_BINSTRING", "BYTEARRAY8",
}  # fmt: skip
"""Instructions whose argument is the value."""

_STEPS: dict[str, Callable[[_Builder, Any], None]] = {
    "PROTO": lambda b, a: None,
    "FRAME": lambda b, a: None,
    "MARK": lambda b, a: b.stack.append(_MARK),
    "NEWTRUE": lambda b, a: b.stack.append(True),
    "NEWFALSE": lambda b, a: b.stack.append(False),
    "EMPTY_DICT": lambda b, a: b.stack.append({}),
    "EMPTY_LIST": lambda b, a: b.stack.append([]),
    "EMPTY_TUPLE": lambda b, a: b.stack.append(()),
    "TUPLE": lambda b, a: b.stack.append(tuple(b.items())),
    "TUPLE1": lambda b, a: b.stack.append(b.take(1)),
    "TUPLE2": lambda b, a: b.stack.append(b.take(2)),
    "TUPLE3": lambda b, a: b.stack.append(b.take(3)),
    "LIST": lambda b, a: b.stack.append(b.items()),
    "APPEND": lambda b, a: b.append(list(b.take(1))),
    "APPENDS": lambda b, a: b.append(b.items()),
    "SETITEM": lambda b, a: b.set(list(b.take(2))),
    "SETITEMS": lambda b, a: b.set(b.items()),
    "PUT": lambda b, a: b.remember(a),
    "BINPUT": lambda b, a: b.remember(a),
    "LONG_BINPUT": lambda b, a: b.remember(a),
    "MEMOIZE": lambda b, a: b.remember(None),
    "GET": lambda b, a: b.stack.append(b.memo[a]),
    "BINGET": lambda b, a: b.stack.append(b.memo[a]),
    "LONG_BINGET": lambda b, a: b.stack.append(b.memo[a]),
    "GLOBAL": lambda b, a: b.name(a),
    "STACK_GLOBAL": lambda b, a: b.name(None),
    "REDUCE": lambda b, a: b.call(a),
    "BUILD": lambda b, a: b.build(a),
}
"""Instructions that build values from those before."""
