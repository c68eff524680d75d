"""The steps of a run on a dask cluster; needs the extra ``cluster``.

A task is a few steps of one kind; it opens the run's folder on the worker, does the steps there and
answers with the problems of each. Data and labels never pass through the scheduler: the workers
read and write the shared folder themselves. Each worker opens model and data once. Few tasks are in
flight at a time, so the scheduler's load does not grow with the data, and several steps go into one
task so that there are at most `MAX_TASKS`.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from napari_unet.core.blockwise.run_directory import RunDirectory, write_run_text
from napari_unet.core.errors import InputError, OutputError, UnetError
from napari_unet.core.io.blosc_check import check_blosc_chunks
from napari_unet.core.io.stack import Stack, open_stack
from napari_unet.core.progress import run_to_end
from napari_unet.nn.blockwise.executor import ASSEMBLY_STEPS, BLOCK_STEP, BlockRun, compute_block

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from napari_unet.nn.blockwise.executor import Answer, StepArguments

MAX_TASKS = 50_000
"""Tasks of one stage, at most; each costs some milliseconds beside its work."""
TASKS_PER_THREAD = 3
"""Tasks in flight for each thread of the cluster: enough to keep it busy."""
POLL_SECONDS = 0.3
"""Seconds between looks at the cluster, and after which a cancel is noticed."""
PATIENCE = 10.0
"""Seconds to wait for the scheduler, and for its first worker."""


class ClusterError(UnetError):
    """A cluster that cannot be reached, or that lost its workers."""


class ClusterExecutor:
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
        try:  # a client fails with it only after half a minute, and leaves a traceback
            scheme, host = parse_address(address)
            get_backend(scheme)
            parse_host_port(host)
        except ValueError as error:
            raise ClusterError(
                f"{address} is no address of a scheduler ({error}); give one such as "
                "tcp://host:8786."
            ) from error
        for name in ("distributed.comm", "distributed.client", "distributed.core"):
            logging.getLogger(name).setLevel(logging.CRITICAL)  # the error raised below is enough
        try:
            # A client that meets another server lingers for 20 s, and leaves a traceback, too.
            with ThreadPoolExecutor(1) as thread:  # this one may be running an event loop
                answer = asyncio.wait_for(_who_answers(address), PATIENCE)
                kind = thread.submit(asyncio.run, answer).result()
            if kind != "Scheduler":
                raise ValueError(f"it is a {kind}")
            self._client = Client(address, timeout=PATIENCE, set_as_default=False)
        except (OSError, TimeoutError) as error:
            raise ClusterError(
                f"no scheduler answers at {address}; start one (dask scheduler), or leave the "
                "address out to work on this computer."
            ) from error
        except Exception as error:  # reading another program's answer as dask's fails in any way
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
        """Number of processes that work."""
        return max(1, len(self._client.scheduler_info(n_workers=-1)["workers"]))

    def start(self, run: BlockRun) -> None:
        """Get to know the run."""
        stack = run.stack
        # What a file holds is read by the workers: as a memory map it would be sent whole.
        file = stack.path.resolve() if stack.path is not None and stack.path.is_file() else None
        folder = run.directory.folder.resolve()
        self._source = _RunSource(
            folder,
            file,
            None if file else stack,
            stack.axes.replace("C", "S") if stack.rgb else stack.axes,
            stack.voxel_size_um,
            run.preview,
            stack.series,
            stack.level,
        )

    def call(self, function: Callable[..., Answer], *values: Any) -> Answer:
        """Call a function with the run and values on a worker.

        Raises
        ------
        ClusterError
            The worker failed in another way than by a `UnetError`.
        """
        future = self._submit(_call, self._source, function, values)
        try:
            answer: Answer = future.result()
        except UnetError:
            raise
        except Exception as error:  # whatever was raised on the other computer, or by dask
            raise ClusterError(f"A worker failed: {str(error).splitlines()[:1]}.") from error
        return answer

    def do(
        self, kind: str, steps: Sequence[StepArguments]
    ) -> Iterator[tuple[StepArguments | None, Any]]:
        """Do steps of a kind; what a dead worker had begun is done again by another."""
        from distributed import wait

        size = max(1, -(-len(steps) // MAX_TASKS))
        waiting = [tuple(steps[at : at + size]) for at in range(0, len(steps), size)][::-1]
        running: dict[Any, tuple[StepArguments, ...]] = {}
        try:
            while waiting or running:
                while waiting and len(running) < TASKS_PER_THREAD * self._threads():
                    task = waiting.pop()
                    running[self._submit(_do, self._source, kind, task)] = task
                try:
                    with self._client.as_current():
                        done = wait(
                            list(running), timeout=POLL_SECONDS, return_when="FIRST_COMPLETED"
                        ).done
                except TimeoutError:
                    yield None, 0
                    continue
                for future in done:
                    task = running.pop(future)
                    yield from self._answers(future, kind, task, waiting)
        finally:
            for future in running:
                future.cancel()

    def _answers(
        self, future: Any, kind: str, task: tuple[StepArguments, ...], waiting: list[Any]
    ) -> Iterator[tuple[StepArguments, list[str]]]:
        from distributed import KilledWorker

        try:
            yield from zip(task, future.result(), strict=True)
        except KilledWorker as error:
            if len(task) > 1:  # find out which step it is
                waiting.extend((step,) for step in task)
                return
            reason = f"the workers that computed it died ({error.last_worker.address})"
            if kind != BLOCK_STEP:
                raise ClusterError(f"The step {kind} {task[0]} failed: {reason}.") from error
            directory, (batch, number) = RunDirectory(self._source.folder), task[0]
            frames = directory.plan.batches.frames(batch)
            for frame in frames:
                write_run_text(directory.failure(frame, number), json.dumps({"reason": reason}))
            yield task[0], [reason] * len(frames)

    def _threads(self) -> int:
        return max(1, int(sum(self._client.nthreads().values())))

    def _submit(self, function: Callable[..., Any], *values: Any) -> Any:
        return self._client.submit(function, *values, pure=False)

    def close(self) -> None:
        """Leave the cluster as it was."""
        self._client.close()


@dataclass(frozen=True)
class _RunSource:
    """What a worker needs to open a run: its folder, and the data or their file."""

    folder: Path
    file: Path | None
    stack: Stack | None
    axes: str
    voxel_size_um: tuple[float, float, float] | None
    preview: bool
    series: int | None = None
    level: int = 0

    def open(self) -> BlockRun:
        """Open the run, or return it if it is open; raises OutputError if it is not visible."""
        if not (self.folder / "model").is_dir():
            raise OutputError(
                f"A worker does not see {self.folder}; put the labels where all computers reach "
                "them."
            )
        changed = (self.folder / "model" / "model.json").stat().st_mtime_ns
        with _opening:
            if (self.folder, changed) not in _open_runs:
                from napari_unet.nn.inference.model import load_model

                check_blosc_chunks()  # a Zarr that was sent is not opened by our readers
                stack = self.stack or self._open_stack()
                model = load_model(self.folder / "model", _choose_device())
                _open_runs.clear()  # one model on the device at a time
                _open_runs[self.folder, changed] = BlockRun(
                    RunDirectory(self.folder), stack, model, self.preview
                )
            return _open_runs[self.folder, changed]

    def _open_stack(self) -> Stack:
        which: tuple[Any, ...] = (self.voxel_size_um, self.level, self.series)
        try:
            try:
                return open_stack(self.file, self.axes, *which)
            except InputError:  # axes of one position may have been left out
                found = open_stack(self.file, None, *which)
                if found.axes.replace("C", "S" if found.rgb else "C") != self.axes:
                    raise
                return found
        except InputError as error:
            raise InputError(f"A worker cannot read the data: {error}") from error


_opening, _computing = threading.Lock(), threading.Lock()
_open_runs: dict[tuple[Path, int], BlockRun] = {}


async def _who_answers(address: str) -> str:
    """Return the kind of dask server that answers at an address: Scheduler, Worker or Nanny."""
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


def _choose_device() -> str:
    """Choose a GPU: dask-cuda shows each worker its own; otherwise a host's workers take turns."""
    import torch

    count = torch.cuda.device_count()
    if count < 2 or os.environ.get("CUDA_VISIBLE_DEVICES"):
        return "auto"
    from distributed import get_worker

    name = str(get_worker().name)
    number = int(name.rpartition("-")[2]) if name.rpartition("-")[2].isdecimal() else os.getpid()
    return f"cuda:{number % count}"


def _call(source: _RunSource, function: Callable[..., Answer], values: tuple[Any, ...]) -> Answer:
    run = source.open()
    with _computing:
        return function(run, *values)


def _do(source: _RunSource, kind: str, steps: tuple[StepArguments, ...]) -> list[list[str]]:
    """Do steps of a kind on a worker; return the problems of each."""
    run, answers = source.open(), []
    for step in steps:
        problems: list[str] = []
        if kind == BLOCK_STEP:
            with _computing:  # one block at a time has the GPU
                problems = run_to_end(compute_block(run, *step))
        else:
            ASSEMBLY_STEPS[kind](run.directory, *step)
        answers.append(problems)
    return answers
