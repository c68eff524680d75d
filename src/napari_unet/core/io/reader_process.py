"""Files that are read in a process of their own, because their library is not in Python.

A library in C cannot be stopped by `time_limit`, and one that crashes takes the whole program with
it: here it takes a process that does nothing but read this file. Parts of the image are read when
they are asked for, as of any other file.

A question is a line of JSON, and so is the answer, behind which the values of pixels follow as
bytes. Nothing is pickled, as the other process believes a file that may be hostile.
"""

from __future__ import annotations

import atexit
import contextlib
import json
import math
import os
import subprocess
import sys
import threading
import weakref
from typing import TYPE_CHECKING, Any

import numpy as np
import psutil

from napari_unet.core.errors import InputError
from napari_unet.core.io.files import Opened
from napari_unet.core.io.lazy_arrays import LazyArray, ranges_from_index
from napari_unet.core.io.time_limit import Watch, endless_error, seconds_for

if TYPE_CHECKING:
    from pathlib import Path

START_S = 300.0
"""How long the start may take, in which libraries are imported."""
PATIENCE = 30
"""How many times as long as a reader may work it may wait, for a disk or for nothing at all."""
DECODED_PER_S = 10**7
"""Bytes that are asked for at once add a second for so many: well-packed volumes are large."""
OWNERS = 4
"""Images that keep a process, at most; others are opened once more when they are read."""
_START = (
    "import json, sys; sys.path[:] = json.loads(sys.argv[1]); from {0}_main import serve; serve()"
)
_LINE_BYTES = 2**24


class CrashError(InputError):
    """The process that reads a file is gone."""


class ReaderProcess:
    """A process that reads one file at a time.

    Attributes
    ----------
    used
        Whether it has been asked for a file before.
    blamed
        Whether its file has made it crash, or kept it for too long.
    """

    def __init__(self) -> None:
        self.used, self.blamed, self._ended = False, False, False
        self._owner, self._lock = os.getpid(), threading.Lock()
        self._child = subprocess.Popen(
            [
                sys.executable,
                "-c",
                _START.format(__name__),
                json.dumps([str(place) for place in sys.path]),
            ],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            creationflags=getattr(subprocess, "CREATE_NO_WINDOW", 0),
        )
        self._process = psutil.Process(self._child.pid)

    @property
    def ended(self) -> bool:
        """Whether it is gone, or that of the process which this one was forked from."""
        return self._ended or self._owner != os.getpid()

    def ask(
        self, path: Path, seconds: float, read_bytes: int = 0, **question: Any
    ) -> tuple[dict[str, Any], bytes]:
        """Send a question and return the answer, and the bytes that follow it.

        Parameters
        ----------
        path
            The file, for errors.
        seconds
            How long the answer may take, see `Watch`.
        read_bytes
            How many bytes follow the answer.

        Raises
        ------
        InputError
            The file cannot be read, or for too long, after which the process is ended.
        CrashError
            The process is gone.
        """
        with self._lock:
            patience = PATIENCE * seconds
            watch = Watch(seconds, self._worked, self._child.kill, patience)
            watch.start()
            try:
                answer, data = self._exchange({**question, "within_s": patience}, read_bytes)
            except BaseException as error:
                watch.end()
                self.end()  # lest its answer be taken for that to the next question
                if not isinstance(error, (OSError, ValueError)):
                    raise
                self.blamed = True
                if watch.given_up:
                    raise endless_error(path, seconds) from None
                raise CrashError(
                    f"{path} makes the library crash that reads it; it is damaged, copy or export "
                    "it once more."
                ) from error
            finally:
                watch.end()
        if "refused" in answer:
            raise InputError(str(answer["refused"]))
        if "failed" in answer:
            raise ValueError(str(answer["failed"]))
        return answer, data

    def end(self) -> None:
        """End the process."""
        self._ended = True
        self._child.kill()
        for pipe in (self._child.stdin, self._child.stdout):
            if pipe is not None:
                with contextlib.suppress(OSError):
                    pipe.close()
        self._child.wait()

    def _exchange(self, question: dict[str, Any], read_bytes: int) -> tuple[dict[str, Any], bytes]:
        questions, answers = self._child.stdin, self._child.stdout
        if questions is None or answers is None or self._child.poll() is not None:
            raise OSError("the process has ended")
        questions.write(json.dumps(question).encode() + b"\n")
        questions.flush()
        answer = json.loads(answers.readline(_LINE_BYTES))
        if set(answer) & {"refused", "failed"}:
            return answer, b""
        data = answers.read(read_bytes)
        if len(data) < read_bytes:
            raise OSError("the process has ended")
        return answer, data

    def _worked(self) -> float:
        try:
            times = self._process.cpu_times()
        except psutil.Error:  # it has ended
            return 0.0
        return times.user + times.system


class _Spare:
    """At most one process that was left by its file and waits, and the images that have one."""

    def __init__(self) -> None:
        self._process: ReaderProcess | None = None
        self._closed = False
        self._owners: dict[int, weakref.ref[ApartArray]] = {}
        self._lock = threading.RLock()  # the garbage collector may call `give` anywhere
        atexit.register(self.close)

    def take(self) -> ReaderProcess:
        """Return a process that reads nothing: the spare one, or a new one."""
        with self._lock:
            process, self._process = self._process, None
        return process if process is not None and not process.ended else ReaderProcess()

    def give(self, process: ReaderProcess) -> None:
        """Keep a process that its file does not need any more, or end it if one is kept already."""
        with self._lock:
            keep = not (self._closed or process.ended or self._process is not None)
            if keep:
                self._process = process
        if not keep:
            process.end()

    def add_owner(self, array: ApartArray) -> None:
        """Note an image that keeps a process; of too many the first ones let theirs go."""
        with self._lock:
            self._owners.pop(id(array), None)
            alive = {key: ref for key, ref in self._owners.items() if ref() is not None}
            self._owners = {**alive, id(array): weakref.ref(array)}
            others = [(key, ref()) for key, ref in [*self._owners.items()][:-OWNERS]]
        for key, other in others:
            if other is not None and other.let_go():
                with self._lock:
                    self._owners.pop(key, None)

    def close(self) -> None:
        """End the process that is kept, and those that are given from now on."""
        with self._lock:
            self._closed, process, self._process = True, self._process, None
        if process is not None:
            process.end()


_spare = _Spare()


def read_apart(path: Path, module: str, image: int | str | None = None) -> Opened:
    """Open a file in another process.

    Parameters
    ----------
    module
        Its ``import_package(path)`` imports what is needed, which takes long and is not the file's
        fault; its ``read(path, image)`` returns `Opened`.
    image
        Which image of a file that holds several: the number of a series, or a path in the file.

    Raises
    ------
    InputError
        The file cannot be read, or not within a time, or makes its library crash.
    ValueError
        What the library says of it.
    """
    given, path = path, path.absolute()
    try:
        process, answer = _open(_spare.take(), path, module, image)
    except InputError as error:
        raise type(error)(str(error).replace(str(path), str(given))) from error
    size = answer["voxel_size_um"]
    return Opened(
        ApartArray(path, module, image, process, answer),
        answer["axes"],
        None if size is None else (size[0], size[1], size[2]),
        None,
        tuple(answer["remarks"]),
        answer["series"],
        channel_names=tuple(answer["channel_names"]),
    )


def _open(
    process: ReaderProcess, path: Path, module: str, image: int | str | None
) -> tuple[ReaderProcess, dict[str, Any]]:
    """Return a process that has opened a file, and what it says of it."""
    about: dict[str, Any] = {"file": str(path), "module": module}
    try:
        process.ask(path, START_S, do="import", **about)
        answer, _ = process.ask(path, seconds_for(path), do="open", image=image, **about)
        return process, answer
    except CrashError:
        if not process.used:
            raise
        # What the file before has left behind may be to blame.
        return _open(ReaderProcess(), path, module, image)
    except (InputError, ValueError):
        _spare.give(process)
        raise
    finally:
        process.used = True


class ApartArray(LazyArray):
    """An image that another process reads.

    Parameters
    ----------
    path, module, image
        As for `read_apart`, by which it is opened once more where it is sent to another computer.
    process
        What reads it.
    answer
        Its shape, type and chunks.

    Attributes
    ----------
    chunks
        The edge, or the sizes, of the pieces along each axis, each read whole; None without.
    """

    def __init__(
        self,
        path: Path,
        module: str,
        image: int | str | None,
        process: ReaderProcess,
        answer: dict[str, Any],
    ) -> None:
        super().__init__(tuple(answer["shape"]), np.dtype(answer["dtype"]))
        sizes = answer["chunks"] or ()
        self.chunks = tuple(n if isinstance(n, int) else tuple(n) for n in sizes) or None
        self._source = path, module, image
        self._lock = threading.Lock()
        self._keep(process)

    def _keep(self, process: ReaderProcess) -> ReaderProcess:
        self._process: ReaderProcess | None = process
        self._end = weakref.finalize(self, _spare.give, process)
        _spare.add_owner(self)
        return process

    def let_go(self) -> bool:
        """Leave the process to other images, unless it is reading for this one."""
        if not self._lock.acquire(blocking=False):
            return False
        try:
            if self._process is not None and not self._process.blamed:
                self._process = None
                self._end()
            return True
        finally:
            self._lock.release()

    def __getitem__(self, key: Any) -> np.ndarray:
        spans, drop = ranges_from_index(key, self.shape)
        shape = tuple(map(len, spans))
        if 0 in shape:
            empty: np.ndarray = np.zeros(shape, self.dtype)[drop]
            return empty
        starts = [min(span[0], span[-1]) for span in spans]
        counts = [abs(span[-1] - span[0]) + 1 for span in spans]
        path, size = self._source[0], math.prod(counts) * self.dtype.itemsize
        with self._lock:
            process, limit = self._process, seconds_for(path) + size / DECODED_PER_S
            if process is None or (process.ended and not process.blamed):  # or interrupted
                process = self._keep(_open(_spare.take(), *self._source)[0])
            _, data = process.ask(path, limit, size, do="read", start=starts, count=counts)
        values = np.frombuffer(bytearray(data), self.dtype).reshape(counts)
        result: np.ndarray = values[tuple(slice(None, None, span.step) for span in spans)][drop]
        return result

    def __reduce__(self) -> tuple[Any, ...]:
        return _reopen, self._source


def _reopen(path: Path, module: str, image: int | str | None) -> Any:
    return read_apart(path, module, image).data
