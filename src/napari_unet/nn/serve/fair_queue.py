"""Work of several users, one piece at a time: whoever asks for little does not wait for much."""

from __future__ import annotations

import asyncio
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

Result = TypeVar("Result")


class FairQueue:
    """Does work in one thread; each user's oldest piece in turn.

    All methods are called in one event loop.
    """

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="napari-unet-serve")
        self._turns: deque[str] = deque()
        self._waiting: dict[str, deque[tuple[Callable[[], Any], asyncio.Future[Any]]]] = {}
        self._busy = False

    async def run(self, user: str, work: Callable[[], Result]) -> Result:
        """Do a piece of work when it is the user's turn; never if the caller has gone."""
        answer: asyncio.Future[Result] = asyncio.get_running_loop().create_future()
        if user not in self._waiting:
            self._waiting[user] = deque()
            self._turns.append(user)
        self._waiting[user].append((work, answer))
        self._next()
        return await answer

    def close(self) -> None:
        """End after the piece at hand."""
        self._thread.shutdown(wait=True, cancel_futures=True)

    def _next(self) -> None:
        while self._turns and not self._busy:
            user = self._turns.popleft()
            pieces = self._waiting[user]
            work, answer = pieces.popleft()
            given_up = answer.cancelled()
            if not pieces:
                del self._waiting[user]
            elif given_up:  # which costs no turn
                self._turns.appendleft(user)
            else:
                self._turns.append(user)
            if given_up:
                continue
            self._busy = True
            done = asyncio.get_running_loop().run_in_executor(self._thread, work)
            done.add_done_callback(partial(self._deliver, answer))

    def _deliver(self, answer: asyncio.Future[Any], found: asyncio.Future[Any]) -> None:
        self._busy = False
        if not answer.cancelled():
            if error := found.exception():
                answer.set_exception(error)
            else:
                answer.set_result(found.result())
        elif not found.cancelled():
            found.exception()  # nobody waits for it any more
        self._next()
