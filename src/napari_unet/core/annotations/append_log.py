"""The record file: append-only, synced, and readable after a crash at any byte.

A file is a magic line followed by records, each preceded by its length and CRC-32. Whatever a
killed process, a full disk or a power cut leaves after the last whole record is cut off when the
file is opened for writing; nothing before it is ever changed.
"""

from __future__ import annotations

import json
import os
import struct
import threading
import warnings
import zlib
from contextlib import suppress
from typing import TYPE_CHECKING, Any, NamedTuple

from napari_unet.core.errors import InputError, OutputError
from napari_unet.core.io.files import atomic_file, make_folder

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

MAGIC = b"napari-unet records 1\n"
_FRAME = struct.Struct("<QI")  # length of the body, its CRC-32
_HEAD = struct.Struct("<I")  # length of the JSON header that the body begins with
LARGEST_PAYLOAD = 2**29
"""Bytes that a record unpacks to, at most: sixteen million runs of an edit, or blocks of labels."""

Header = dict[str, Any]


class JournalWarning(UserWarning):
    """The end of a record file was torn or damaged and has been dropped."""


class Record(NamedTuple):
    """One record: a small JSON header, and bytes that are compressed on the disk."""

    header: Header
    payload: bytes = b""


class RecordFile:
    """A file of records that grows at its end.

    Every method may be called from any thread; records lie in the file in the order of the calls.
    A file that is open for writing is locked: no other process, and no second object in this one,
    can open it for writing. The lock dies with the process.

    Parameters
    ----------
    path
        An existing file; `create` makes one.
    write
        Lock the file and cut off a torn end. Otherwise it is only read, up to the last record that
        was whole when it was opened.

    Raises
    ------
    InputError
        Not a record file, gone, no file at all, or locked by another writer.
    OutputError
        It cannot be opened for writing.
    """

    def __init__(self, path: Path, *, write: bool = False) -> None:
        self.path, self.writable = path, write
        self._guard = threading.RLock()
        if path.exists() and not path.is_file():  # a pipe would be read for ever
            raise InputError(f"{path} is no file, and so no journal; move it away.")
        self._lock = _lock(path) if write else None
        try:
            self._file = path.open("r+b" if write else "rb", buffering=0)
        except OSError as error:
            self._unlock()
            kind = OutputError if write and path.exists() else InputError
            raise kind(f"{path} cannot be opened: {error.strerror}.") from error
        try:
            self._end = self._check()
            self._torn = write
            self._trim()
        except BaseException:
            self.close()
            raise

    @classmethod
    def create(cls, path: Path, records: Iterable[Record]) -> RecordFile:
        """Write a new file as `write_records` does, and open it for writing."""
        write_records(path, records)
        try:
            return cls(path, write=True)
        except OutputError:  # it is begun again under another name: nobody would know of this one
            with suppress(OSError):
                path.unlink()
            raise

    def __enter__(self) -> RecordFile:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the file and let others write to it; may be called twice."""
        with self._guard:
            self._file.close()
            self._unlock()

    def append(self, *records: Record) -> list[int]:
        """Write records, sync them to the disk and return their offsets.

        Raises
        ------
        OutputError
            They cannot be written, for example because the disk is full. The file is as it was;
            the same records may be appended again.
        """
        packed = [_packed(record) for record in records]
        with self._guard:
            try:
                self._trim()
                self._file.seek(self._end)
                self._torn = True
                _write_all(self._file, b"".join(packed))
                os.fsync(self._file.fileno())
            except (OSError, ValueError) as error:  # a closed file raises ValueError
                with suppress(OSError, ValueError):
                    self._trim()
                reason = getattr(error, "strerror", None) or error
                raise OutputError(
                    f"{self.path} cannot be written: {reason}; make room on the disk and try "
                    "again: what was saved before is safe."
                ) from error
            offsets = []
            for part in packed:
                offsets.append(self._end)
                self._end += len(part)
            self._torn = False
            return offsets

    def read(self, offset: int) -> Record:
        """Read the record at an offset that `append` or `scan` gave.

        Raises
        ------
        InputError
            The file was damaged since it was opened.
        """
        with self._guard:
            self._file.seek(offset)
            body = _body(self._file, self._end - offset)
        if body is not None:
            with suppress(ValueError):
                return Record(_header(body), _payload(body))
        raise InputError(f"{self.path} is damaged at byte {offset}; restore it from a backup.")

    def scan(self) -> Iterator[tuple[int, Header]]:
        """Yield each record's offset and header, without decompressing anything."""
        offset = len(MAGIC)
        while offset < self._end:
            with self._guard:
                self._file.seek(offset)
                body = _body(self._file, self._end - offset)
            if body is None:
                raise InputError(f"{self.path} is damaged at byte {offset}.")
            try:
                header = _header(body)
            except ValueError as error:
                raise InputError(f"{self.path} is damaged at byte {offset}: {error}.") from error
            yield offset, header
            offset += _FRAME.size + len(body)

    def _check(self) -> int:
        """Return where the last whole record ends."""
        if self._file.read(len(MAGIC)) != MAGIC:
            raise InputError(
                f"{self.path} is no journal of this version; update napari-unet or move it away."
            )
        size, end = os.fstat(self._file.fileno()).st_size, len(MAGIC)
        while (body := _body(self._file, size - end)) is not None:
            end += _FRAME.size + len(body)
        if end < size and self.writable:
            self._drop_tail(end, size)
        return end

    def _drop_tail(self, end: int, size: int) -> None:
        """Warn that the end is dropped; copy it to a file beside, unless it is one torn record."""
        self._file.seek(end)
        front = self._file.read(_FRAME.size)
        whole = len(front) == _FRAME.size and _FRAME.unpack(front)[0] < size - end - _FRAME.size
        kept = ""
        if whole and any(front):  # whole records may follow a damaged one
            aside = self.path.with_suffix(f".damaged-{end}")
            with atomic_file(aside) as partial, partial.open("wb") as copy:
                self._file.seek(end)
                while block := self._file.read(2**24):
                    copy.write(block)
            kept = f" They were kept as {aside.name}."
        warnings.warn(
            f"The last {size - end} bytes of {self.path} were torn or damaged and are left out; "
            f"everything before is restored.{kept}",
            JournalWarning,
            stacklevel=5,  # whoever opens the journal
        )

    def _trim(self) -> None:
        """Cut off what a failed or torn write left."""
        if self._torn:
            self._file.truncate(self._end)
            self._torn = False

    def _unlock(self) -> None:
        if self._lock is not None:
            self._lock.release()


def _packed(record: Record) -> bytes:
    header = json.dumps(record.header, separators=(",", ":")).encode()
    # Level 1: a stroke must be saved within a few milliseconds.
    payload = zlib.compress(record.payload, 1) if record.payload else b""
    body = _HEAD.pack(len(header)) + header + payload
    return _FRAME.pack(len(body), zlib.crc32(body)) + body


def _body(file: Any, room: int) -> bytes | None:
    """Read the body of the record here; None if it is not whole."""
    front = file.read(_FRAME.size) if room >= _FRAME.size + _HEAD.size else b""
    if len(front) < _FRAME.size:
        return None
    length, crc = _FRAME.unpack(front)
    # Zeros, which a power cut may leave, would have the right CRC-32.
    if not _HEAD.size <= length <= room - _FRAME.size:
        return None
    body = _read_all(file, length)
    return body if len(body) == length and zlib.crc32(body) == crc else None


def _header(body: bytes) -> Header:
    """Return the header of a record; raises ValueError if its bytes are none."""
    (length,) = _HEAD.unpack_from(body)
    try:
        header: Header = json.loads(body[_HEAD.size : _HEAD.size + length])
    except RecursionError:
        raise ValueError("its header is nested too deeply") from None
    if not isinstance(header, dict):
        raise ValueError("its header has no entries")
    return header


def _payload(body: bytes) -> bytes:
    """Return the payload of a record; raises ValueError if it is damaged or endless."""
    (length,) = _HEAD.unpack_from(body)
    packed = body[_HEAD.size + length :]
    if not packed:
        return b""
    unpacker = zlib.decompressobj()
    try:
        payload = unpacker.decompress(packed, LARGEST_PAYLOAD)
    except zlib.error as error:
        raise ValueError(str(error)) from error
    if not unpacker.eof:
        raise ValueError("its payload is cut short or too large")
    return payload


def _write_all(file: Any, data: bytes) -> None:
    """Write all bytes: `write` of an unbuffered file may write fewer, when the disk fills up."""
    view = memoryview(data)
    while view:
        view = view[file.write(view) :]


def _read_all(file: Any, length: int) -> bytes:
    """Read up to `length` bytes; one call of an unbuffered file reads 2 GiB at most."""
    parts: list[bytes] = []
    while length and (part := file.read(length)):
        parts.append(part)
        length -= len(part)
    return parts[0] if len(parts) == 1 else b"".join(parts)


def _lock(path: Path) -> Any:
    """Lock a file through the operating system, so that the lock ends with the process.

    What is locked is a file beside it: on Windows a lock on the file itself would keep readers out.
    """
    import filelock

    # thread_local would allow only this thread to release it; any thread may close the file.
    lock = filelock.FileLock(path.with_suffix(".lock"), thread_local=False)
    try:
        lock.acquire(timeout=0)
    except filelock.Timeout as error:
        raise InputError(
            f"{path} is open in another window or program that adds to it; close it there first."
        ) from error
    except OSError as error:
        raise OutputError(f"{path} cannot be locked: {error.strerror}.") from error
    return lock


def _sync_folder(folder: Path) -> None:
    """Make a new name in a folder outlast a power cut, where the system can."""
    with suppress(OSError):  # Windows cannot open folders
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def write_records(path: Path, records: Iterable[Record]) -> None:
    """Write a new record file, whole or not at all.

    Raises
    ------
    OutputError
        It cannot be written.
    """
    make_folder(path.parent)
    with atomic_file(path) as partial, partial.open("wb") as file:
        file.write(MAGIC)
        for record in records:
            file.write(_packed(record))
    _sync_folder(path.parent)


def first_header(path: Path) -> Header | None:
    """Read the header of a file's first record alone; None if that is not a whole one."""
    try:
        if not path.is_file():
            return None
        with path.open("rb", buffering=0) as file:
            if file.read(len(MAGIC)) != MAGIC:
                return None
            body = _body(file, os.fstat(file.fileno()).st_size - len(MAGIC))
            return None if body is None else _header(body)
    except (OSError, ValueError):
        return None
