"""The steps of a run on a dask cluster; needs the extra ``cluster``.

A task is a kind and a few items; it opens the run's folder on the worker, does its steps there and
answers with a line for each. Data and labels never pass through the scheduler: the workers read
and write the shared folder themselves. Model and data are opened once a worker. Few tasks are in
flight at a time, so the scheduler's load does not grow with the data, and the number of tasks is
kept below `MOST_TASKS` by putting several items into one.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari_unet.core.blockwise.blocks import batches
from napari_unet.core.blockwise.run_directory import RunDirectory, write_text
from napari_unet.core.errors import InputError, OutputError, UnetError
from napari_unet.core.io.stack import Stack, open_stack
from napari_unet.core.progress import run_to_end
from napari_unet.nn.blockwise.block import BlockRun, block_steps
from napari_unet.nn.blockwise.executor import Probe, probe

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from napari_unet.nn.blockwise.executor import Item

MOST_TASKS = 50_000
"""Tasks of one stage, at most; each costs some milliseconds beside its work."""
AHEAD = 3
"""Tasks in flight for each thread of the cluster."""
BEAT = 0.3
"""Seconds between looks at the cluster, and after which a cancel is noticed."""
PATIENCE = 10.0
"""Seconds to wait for the scheduler, and for its first worker."""


class ClusterError(UnetError):
    """A cluster that cannot be reached, or that lost its workers."""


class ClusterPool:
    """Does the steps of a run on the workers of a scheduler.

    Parameters
    ----------
    address
        Such as "tcp://host:8786".

    Raises
    ------
    ClusterError
        The extra is missing, nobody answers at the address, or it has no workers.
    """

    def __init__(self, address: str) -> None:
        try:
            from distributed import Client
            from distributed.comm.addressing import parse_address, parse_host_port
            from distributed.comm.registry import get_backend
        except ImportError as error:
            raise ClusterError(
                "A scheduler needs dask.distributed; install it: "
                "pip install 'napari-unet[cluster]'."
            ) from error
        try:  # a client that fails over it takes half a minute, and leaves a traceback
            scheme, host = parse_address(address)
            get_backend(scheme)
            parse_host_port(host)
        except ValueError as error:
            raise ClusterError(
                f"{address} is no address of a scheduler ({error}); give one such as "
                "tcp://host:8786."
            ) from error
        for name in ("distributed.comm", "distributed.client", "distributed.core"):
            logging.getLogger(name).setLevel(logging.CRITICAL)  # the error below says it once
        try:
            # A client that meets something else lingers for 20 s, and leaves a traceback, too.
            with ThreadPoolExecutor(1) as apart:  # from whatever loop this thread may run
                asking = asyncio.wait_for(_who_answers(address), PATIENCE)
                kind = apart.submit(asyncio.run, asking).result()
            if kind != "Scheduler":
                raise ValueError(f"it is a {kind}")
            self._client = Client(address, timeout=PATIENCE, set_as_default=False)
        except (OSError, TimeoutError) as error:
            raise ClusterError(
                f"no scheduler answers at {address}; start one (dask scheduler), or leave the "
                "address out to work on this computer."
            ) from error
        except Exception as error:  # whatever reading another program's answer as dask's leads to
            reason = next(iter(str(error).splitlines()), type(error).__name__)[:120]
            raise ClusterError(
                f"what answers at {address} is no dask scheduler ({reason}); give the address that "
                "`dask scheduler` prints, not that of its dashboard or of a worker."
            ) from error
        try:
            self._client.wait_for_workers(1, timeout=PATIENCE)
        except TimeoutError as error:
            self._client.close()
            raise ClusterError(
                f"the scheduler at {address} has no workers; start some (dask worker {address})."
            ) from error

    @property
    def workers(self) -> int:
        """How many processes work."""
        return max(1, len(self._client.scheduler_info(n_workers=-1)["workers"]))

    def start(self, run: BlockRun) -> None:
        """Get to know the run."""
        stack = run.stack
        file = stack.path is not None and stack.path.is_file()  # a memory map would be sent whole
        self._opened = _Opened(
            str(run.place.folder.resolve()),
            str(stack.path.resolve()) if file and stack.path else "",
            None if file else stack,
            (stack.axes, stack.voxel_size_um, stack.rgb),
            run.preview,
        )

    def precision(self, wanted: str) -> str:
        """Ask a worker which number format suits its device."""
        return str(self._one(_precision, self._opened, wanted))

    def probe(self) -> Probe:
        """Run a tile on a worker."""
        found: Probe = self._one(_probe, self._opened)
        return found

    def run(self, kind: str, items: Sequence[Item]) -> Iterator[tuple[Item | None, Any]]:
        """Do a step for each item; what a dead worker had begun is done again by another."""
        from distributed import wait

        each = batches(len(items), MOST_TASKS)
        waiting = [tuple(items[at : at + each]) for at in range(0, len(items), each)][::-1]
        running: dict[Any, tuple[Item, ...]] = {}
        try:
            while waiting or running:
                while waiting and len(running) < AHEAD * self._threads():
                    batch = waiting.pop()
                    running[self._submit(_do, self._opened, kind, batch)] = batch
                try:
                    with self._client.as_current():
                        done = wait(list(running), timeout=BEAT, return_when="FIRST_COMPLETED").done
                except TimeoutError:
                    yield None, 0
                    continue
                for future in done:
                    batch = running.pop(future)
                    yield from self._answers(future, kind, batch, waiting)
        finally:
            for future in running:
                future.cancel()

    def _answers(
        self, future: Any, kind: str, batch: tuple[Item, ...], waiting: list[Any]
    ) -> Iterator[tuple[Item, list[str]]]:
        from distributed import KilledWorker

        try:
            yield from zip(batch, future.result(), strict=True)
        except KilledWorker as error:
            if len(batch) > 1:  # find out which item it is
                waiting.extend((item,) for item in batch)
                return
            reason = f"the workers that computed it died ({error.last_worker.address})"
            if kind != "block":
                raise ClusterError(f"The step {kind} {batch[0]} failed: {reason}.") from error
            place, (group, number) = RunDirectory(Path(self._opened.folder)), batch[0]
            frames = place.plan.groups.frames(group)
            for frame in frames:
                write_text(place.failure(frame, number), json.dumps({"reason": reason}))
            yield batch[0], [reason] * len(frames)

    def _threads(self) -> int:
        return max(1, int(sum(self._client.nthreads().values())))

    def _submit(self, function: Callable[..., Any], *values: Any) -> Any:
        return self._client.submit(function, *values, pure=False)

    def _one(self, function: Callable[..., Any], *values: Any) -> Any:
        future = self._submit(function, *values)
        try:
            return future.result()
        except UnetError:
            raise
        except Exception as error:
            raise ClusterError(f"A worker failed: {str(error).splitlines()[:1]}.") from error

    def close(self) -> None:
        """Leave the cluster as it was."""
        self._client.close()


class _Opened:
    """What a worker opens, and keeps open: a run's folder, its data, its model."""

    def __init__(
        self, folder: str, source: str, stack: Stack | None, axes: tuple[Any, ...], preview: bool
    ) -> None:
        self.folder, self.source, self.stack = folder, source, stack
        self.axes, self.preview = axes, preview

    def run(self) -> BlockRun:
        """Open it, or return what is open already; raises OutputError if it is not to be seen."""
        folder = Path(self.folder)
        if not (folder / "model").is_dir():
            raise OutputError(
                f"A worker does not see {folder}; put the labels where all computers reach them."
            )
        changed = (folder / "model" / "model.json").stat().st_mtime_ns
        with _opening:
            if (self.folder, changed) not in _open_runs:
                from napari_unet.nn.inference.model import load_model

                stack = self.stack or _stack(self.source, *self.axes)
                model = load_model(folder / "model", _device())
                _open_runs.clear()  # one model on the device at a time
                _open_runs[self.folder, changed] = BlockRun(
                    RunDirectory(folder), stack, model, self.preview
                )
            return _open_runs[self.folder, changed]


_opening, _computing = threading.Lock(), threading.Lock()
_open_runs: dict[tuple[str, int], BlockRun] = {}


async def _who_answers(address: str) -> str:
    """Return what kind of dask server answers at an address: Scheduler, Worker or Nanny."""
    from distributed.comm.core import connect
    from distributed.security import Security

    how = Security().get_connection_args("client")
    comm = await connect(address, timeout=PATIENCE, **how)
    try:
        await comm.write({"op": "identity", "reply": True})
        answer = await comm.read()
    finally:
        comm.abort()
    return str(answer["type"])


def _stack(source: str, axes: str, voxel_size_um: Any, rgb: bool) -> Stack:
    try:
        return open_stack(source, axes.replace("C", "S") if rgb else axes, voxel_size_um)
    except InputError as error:
        raise InputError(f"A worker cannot read the data: {error}") from error


def _device() -> str:
    """Choose a GPU: dask-cuda shows each worker its own; otherwise workers of a host take turns."""
    import torch

    count = torch.cuda.device_count()
    if count < 2 or os.environ.get("CUDA_VISIBLE_DEVICES"):
        return "auto"
    from distributed import get_worker

    name = str(get_worker().name)
    number = int(name.rpartition("-")[2]) if name.rpartition("-")[2].isdecimal() else os.getpid()
    return f"cuda:{number % count}"


def _precision(opened: _Opened, wanted: str) -> str:
    return opened.run().model.choose_precision(wanted)


def _probe(opened: _Opened) -> Probe:
    run = opened.run()
    with _computing:
        return probe(run)


def _do(opened: _Opened, kind: str, items: tuple[Item, ...]) -> list[list[str]]:
    """Do a step for each item, on a worker; return each one's problems."""
    from napari_unet.nn.blockwise.executor import STEPS

    run, answers = opened.run(), []
    for item in items:
        problems: list[str] = []
        if kind == "block":
            with _computing:  # one block at a time has the GPU
                problems = run_to_end(block_steps(run, *item))
        else:
            STEPS[kind](run.place, *item)
        answers.append(problems)
    return answers
