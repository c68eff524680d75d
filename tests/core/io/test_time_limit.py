"""Files whose readers never come to an end."""

from __future__ import annotations

import itertools
import threading
from typing import TYPE_CHECKING

import numpy as np
import pytest

from napari_unet.core.errors import InputError
from napari_unet.core.io import readers, time_limit
from napari_unet.core.io.stack import open_stack

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def endless(tmp_path: Path, monkeypatch) -> Path:
    """An image whose reader loops, and catches whatever a library would."""
    path = tmp_path / "a.npy"
    np.save(path, np.zeros((4, 5)))
    monkeypatch.setattr(time_limit, "SECONDS", 0.1)

    def read() -> None:
        for _ in itertools.count():
            try:
                int("1")
            except Exception:  # pragma: no cover
                continue

    monkeypatch.setattr(readers, "_find_reader", lambda *_: read)
    return path


def test_an_endless_reader_is_given_up(endless: Path) -> None:
    before = threading.active_count()
    with pytest.raises(InputError, match=r"a\.npy was read for 0 s without an end; it is damaged"):
        open_stack(endless)
    assert threading.active_count() <= before + 1


def test_in_a_thread_of_the_window(endless: Path) -> None:
    errors: list[Exception] = []

    def work() -> None:
        try:
            open_stack(endless)
        except InputError as error:
            errors.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert len(errors) == 1


def test_a_wait_and_a_quick_reader_are_not(tmp_path: Path, monkeypatch) -> None:
    path = tmp_path / "a.npy"
    np.save(path, np.zeros((4, 5)))
    monkeypatch.setattr(time_limit, "SECONDS", 0.05)
    with time_limit.time_limit(path):
        threading.Event().wait(0.2)
    monkeypatch.setattr(time_limit, "SECONDS", 60.0)
    with time_limit.time_limit(path):
        pass
    assert not [thread for thread in threading.enumerate() if thread.name == "time limit"
                and not thread._ended.is_set()]  # fmt: skip
