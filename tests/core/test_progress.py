"""Running generators of progress to their end, and passing them on."""

from __future__ import annotations

import pytest

from napari_unet.core.progress import map_steps, run_to_end


def counting(closed):
    try:
        yield 1
        yield 2
    finally:
        closed.append(True)
    return "all"


def test_the_result_comes_after_all_steps():
    seen, closed = [], []
    assert run_to_end(counting(closed), seen.append) == "all"
    assert seen == [1, 2] and closed == [True]
    assert run_to_end(counting(closed)) == "all"


def test_who_watches_may_end_it():
    def stop(step):
        raise KeyboardInterrupt

    closed = []
    steps = counting(closed)
    with pytest.raises(KeyboardInterrupt):
        run_to_end(steps, stop)
    assert closed == [True]


def test_steps_are_passed_on_changed_with_their_result():
    seen = []
    assert run_to_end(map_steps(counting([]), str), seen.append) == "all"
    assert seen == ["1", "2"]
