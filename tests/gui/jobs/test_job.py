from __future__ import annotations

import gc
import threading
import time
import weakref

import pytest
from qtpy.QtCore import QObject

from napari_unet.gui.jobs import job as jobs
from napari_unet.gui.jobs.job import (
    CANCELLED,
    DONE,
    FAILED,
    DeviceQueue,
    Job,
    WidgetJobs,
    get_device_queue,
)


class Log(list):
    """What happened, in order, and in which thread."""

    def job(self, begin, **more) -> Job:
        def note(kind):
            return lambda *values: self.append((kind, *values, threading.current_thread()))

        callbacks = {f"on_{kind}": note(kind) for kind in ("item", "done", "error", "end")}
        return Job(begin, **{**callbacks, **more})

    def kinds(self) -> list:
        return [entry[0] for entry in self]


@pytest.fixture
def slot(qapp):
    slot = DeviceQueue()
    yield slot
    slot.stop()


def counting(count, closed=None, seconds=0.0):
    try:
        for number in range(count):
            time.sleep(seconds)
            yield number
    finally:
        if closed is not None:
            closed.append(threading.current_thread())
    return "the end"


def over(slot):
    return lambda: slot.running is None and slot.waiting is None


def test_items_and_the_result_arrive_in_order_in_the_windows_thread(slot, qtbot):
    log, closed = Log(), []
    job = slot.submit(log.job(lambda: counting(3, closed)))
    qtbot.waitUntil(over(slot))
    assert [entry[:-1] for entry in log] == [
        ("item", 0), ("item", 1), ("item", 2), ("done", "the end"), ("end", DONE),
    ]  # fmt: skip
    assert {entry[-1] for entry in log} == {threading.main_thread()}
    assert closed[0] is not threading.main_thread()
    assert not closed[0].is_alive() and not job.active and job.state == DONE


@pytest.mark.parametrize("error", [RuntimeError("CUDA out of memory"), ValueError("no")])
def test_an_error_in_the_generator_is_reported_once(slot, qtbot, error):
    def failing():
        yield 1
        raise error

    log = Log()
    slot.submit(log.job(failing))
    qtbot.waitUntil(over(slot))
    assert [entry[:-1] for entry in log[1:]] == [("error", error), ("end", FAILED)]


def test_an_error_before_the_beginning_is_reported_too(slot, qtbot):
    def begin():
        raise ValueError("no image")

    log = Log()
    slot.submit(log.job(begin))
    qtbot.waitUntil(over(slot))
    assert log.kinds() == ["error", "end"]


def test_an_error_in_a_callback_ends_the_job(slot, qtbot):
    closed, log = [], Log()

    def on_item(number):
        raise KeyError(number)

    job = log.job(lambda: counting(10_000, closed, 0.001), on_item=on_item)
    slot.submit(job)
    qtbot.waitUntil(over(slot))
    assert log.kinds() == ["error", "end"] and job.state == FAILED and closed


def test_cancel_closes_the_generator_in_its_thread_and_drops_late_items(slot, qtbot):
    closed, log = [], Log()
    job = slot.submit(log.job(lambda: counting(10_000, closed, 0.002)))
    qtbot.waitUntil(lambda: len(log) >= 2)
    job.cancel()
    seen = len(log)
    began = time.perf_counter()
    qtbot.waitUntil(over(slot))
    assert time.perf_counter() - began < 0.5
    assert log.kinds()[seen:] == ["end"] and job.state == CANCELLED
    assert len(closed) == 1 and closed[0] is not threading.main_thread()


def test_one_job_at_a_time_and_a_newer_one_replaces_the_one_that_waits(slot, qtbot):
    gate, logs = threading.Event(), [Log(), Log(), Log()]

    def held():
        yield 0
        gate.wait(5)

    first = slot.submit(logs[0].job(held))
    second = slot.submit(logs[1].job(lambda: counting(1)))
    third = slot.submit(logs[2].job(lambda: counting(1)))
    assert second.state == CANCELLED and logs[1].kinds() == ["end"]
    assert third.state == jobs.WAITING and third.active
    assert first.number < second.number < third.number
    gate.set()
    qtbot.waitUntil(over(slot))
    assert logs[0].kinds() == ["item", "done", "end"]
    assert logs[2].kinds() == ["item", "done", "end"]


def test_a_job_cancelled_while_it_waits_never_begins(slot, qtbot):
    gate, begun, log = threading.Event(), [], Log()

    def held():
        gate.wait(5)
        yield 0

    slot.submit(Job(held))
    waiting = slot.submit(log.job(lambda: begun.append(1) or counting(1)))
    waiting.cancel()
    gate.set()
    qtbot.waitUntil(over(slot))
    assert begun == [] and log.kinds() == ["end"]


def test_a_job_may_start_the_next_from_its_end(slot, qtbot):
    log = Log()
    slot.submit(
        Job(lambda: counting(1), on_end=lambda _: slot.submit(log.job(lambda: counting(2))))
    )
    qtbot.waitUntil(lambda: "end" in log.kinds())
    qtbot.waitUntil(over(slot))


def test_nothing_of_a_finished_job_is_kept(slot, qtbot):
    class Image:
        pass

    image = Image()
    gone = weakref.ref(image)

    def begin(image=image):
        yield image
        raise RuntimeError("with the image in its frames")

    job = slot.submit(Job(begin, on_item=lambda item, image=image: None))
    qtbot.waitUntil(over(slot))
    del begin, image
    gc.collect()
    assert gone() is None and not job.active


def test_stopping_a_slot_ends_the_thread_and_delivers_nothing(slot, qtbot):
    closed, log = [], Log()
    slot.submit(log.job(lambda: counting(10_000, closed, 0.002)))
    qtbot.waitUntil(lambda: len(log) > 0)
    seen = len(log)
    slot.stop()
    qtbot.wait(30)
    assert closed and len(log) == seen


def test_auto_shares_the_accelerators_slot(qapp):
    assert get_device_queue("auto") is get_device_queue("cuda")
    assert get_device_queue("cpu") is not get_device_queue("cuda")


def test_errands_of_a_kind_give_way_and_none_answers_a_widget_that_is_gone(qtbot):
    owner, hold, log, ended = QObject(), threading.Event(), Log(), []
    errands = WidgetJobs(owner)

    def held():
        hold.wait(10)
        yield 1

    running = errands.run("look", log.job(held))
    replaced = errands.run("look", log.job(lambda: counting(3, [])))
    waiting = errands.run("look", Job(held, on_end=ended.append))
    other = errands.run("list", log.job(lambda: counting(3, [])))
    qtbot.waitUntil(lambda: not other.active)
    assert (replaced.state, other.state) == (CANCELLED, DONE)
    owner.deleteLater()
    qtbot.waitUntil(lambda: running.cancelled and waiting.cancelled)
    seen = len(log)
    hold.set()
    qtbot.waitUntil(lambda: not running.active and not waiting.active)
    assert len(log) == seen and ended == []


@pytest.mark.slow
def test_the_end_of_the_program_waits_for_a_long_tile(qapp, monkeypatch):
    monkeypatch.setattr(jobs, "_queues", {"cpu": DeviceQueue()})
    closed = []

    def steps():
        try:
            time.sleep(5.5)
            yield
        finally:
            closed.append(True)

    get_device_queue("cpu").submit(Job(steps))
    jobs.stop_all()
    assert closed


def test_what_comes_while_items_are_delivered_waits_for_its_turn():
    seen = []

    def take(item):
        seen.append(item)
        job._items.append(item + 1)  # as a thread does that is faster than the window

    job = Job(lambda: iter(()), on_item=take)
    job._items.append(0)
    for count in (1, 2):
        job.deliver()
        assert seen == [*range(count)]
