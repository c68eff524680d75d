"""Record files: appended to, torn at every byte, locked, on a disk that is full."""

from __future__ import annotations

import errno
import random
import sys
import warnings

import pytest
from filelock import FileLock

from napari_unet.core.annotations.append_log import JournalWarning, Record, RecordFile, first_header
from napari_unet.core.errors import InputError, OutputError

FIRST = [Record({"kind": "begin", "text": "ä"}), Record({"n": 1}, b"abc" * 50)]


@pytest.fixture
def path(tmp_path):
    return tmp_path / "one.journal"


def contents(path):
    with RecordFile(path) as file:
        return [file.read(offset) for offset, _ in file.scan()]


def test_what_is_appended_is_read_again(path):
    with RecordFile.create(path, FIRST) as file:
        offsets = file.append(Record({"n": 2}), Record({"n": 3}, bytes(1000)))
        assert file.read(offsets[1]) == Record({"n": 3}, bytes(1000))
    assert contents(path) == [*FIRST, Record({"n": 2}), Record({"n": 3}, bytes(1000))]
    assert first_header(path) == FIRST[0].header
    with RecordFile(path, write=True) as file:
        file.append(Record({"n": 4}))
    assert len(contents(path)) == 5


def test_a_file_cut_at_any_byte_of_its_last_records_keeps_all_whole_ones(path):
    with RecordFile.create(path, FIRST) as file:
        kept = path.stat().st_size
        ends = [kept]
        for number in range(3):
            file.append(Record({"n": number}, bytes(number * 10)))
            ends.append(path.stat().st_size)
    whole = path.read_bytes()
    for size in range(kept, len(whole)):
        path.write_bytes(whole[:size])
        count = sum(end <= size for end in ends) - 1
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            with RecordFile(path, write=True) as file:
                file.append(Record({"new": size}))
        assert [w.category for w in caught] == [JournalWarning] * (size not in ends)
        found = contents(path)
        assert found[: len(FIRST)] == FIRST
        assert [record.header for record in found[len(FIRST) :]] == [
            *({"n": n} for n in range(count)),
            {"new": size},
        ]
    assert not list(path.parent.glob("*.damaged*"))


def test_zeros_after_a_power_cut_are_dropped(path):
    RecordFile.create(path, FIRST).close()
    size = path.stat().st_size
    path.write_bytes(path.read_bytes() + bytes(4096))
    assert contents(path) == FIRST
    with pytest.warns(JournalWarning, match="last 4096 bytes"):
        RecordFile(path, write=True).close()
    assert path.stat().st_size == size


def test_damage_in_the_middle_keeps_aside_what_follows(path):
    with RecordFile.create(path, FIRST) as file:
        (offset,) = file.append(Record({"n": 2}, b"x" * 99))
        file.append(Record({"n": 3}))
    data = bytearray(path.read_bytes())
    data[offset + 20] ^= 1
    path.write_bytes(data)
    with pytest.warns(JournalWarning, match=f"kept as one.damaged-{offset}"):
        RecordFile(path, write=True).close()
    assert contents(path) == FIRST
    assert path.with_suffix(f".damaged-{offset}").read_bytes() == data[offset:]


def test_a_second_writer_is_refused_until_the_first_is_gone(path):
    first = RecordFile.create(path, FIRST)
    with pytest.raises(InputError, match="open in another window"):
        RecordFile(path, write=True)
    assert contents(path) == FIRST
    first.close()
    first.close()
    RecordFile(path, write=True).close()


@pytest.mark.parametrize("data", [b"", b"II*\0 something else entirely"])
def test_other_files_are_refused(path, data):
    path.write_bytes(data)
    with pytest.raises(InputError, match="no journal of this version"):
        RecordFile(path, write=True)
    assert first_header(path) is None
    assert path.read_bytes() == data


def test_a_file_that_cannot_be_locked_is_not_left_behind(path, monkeypatch):
    def refuse(*_, **__):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(FileLock, "acquire", refuse)
    with pytest.raises(OutputError, match="cannot be locked"):
        RecordFile.create(path, FIRST)
    assert not path.exists()


def test_a_missing_file_is_refused_and_leaves_no_lock(path):
    with pytest.raises(InputError, match="cannot be opened"):
        RecordFile(path, write=True)
    RecordFile.create(path, FIRST).close()


@pytest.mark.skipif(sys.platform == "win32", reason="limits the size of files by setrlimit")
@pytest.mark.parametrize("room", [0, 5, 12, 500])
def test_a_full_disk_is_said_and_the_same_record_can_be_given_again(path, room):
    import resource

    record = Record({"n": 2}, random.Random(1).randbytes(5000))
    with RecordFile.create(path, FIRST) as file:
        size = path.stat().st_size
        limits = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (size + room, limits[1]))
        try:
            with pytest.raises(OutputError, match=r"make room on the disk and try again"):
                file.append(record)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        assert path.stat().st_size == size
        assert contents(path) == FIRST
        file.append(record)
    assert contents(path) == [*FIRST, record]


def test_a_closed_file_says_that_it_cannot_be_written(path):
    file = RecordFile.create(path, FIRST)
    file.close()
    with pytest.raises(OutputError, match="cannot be written"):
        file.append(Record({"n": 2}))
    assert contents(path) == FIRST
