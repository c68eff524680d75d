"""The HTTP side of a server: who may ask, and how much; see `Service` for what is answered.

    GET  /v1/hello          what the server computes on
    GET  /v1/models/KEY     whether a model is here; PUT sends it
    POST /v1/run/KEY        a tile, or an image, through a model

aiohttp rather than dask.distributed: that runs whatever code it is sent, and wants the data where
the workers are. Rather than the standard library's server: that has a thread for each connection
and bounds nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
import hmac
import logging
import signal
from typing import TYPE_CHECKING, Any

from napari_unet.core.errors import DeviceError, UnetError
from napari_unet.core.io.files import first_line
from napari_unet.nn.inference.device_memory import is_out_of_memory
from napari_unet.nn.remote.message import BODY_LIMIT, MODEL_LIMIT, pack
from napari_unet.nn.serve.fair_queue import FairQueue
from napari_unet.nn.serve.service import Service, UnknownModelError

if TYPE_CHECKING:
    import ssl
    from collections.abc import Awaitable, Callable

    from aiohttp.web import Application, Request, Response

logger = logging.getLogger(__name__)

REQUESTS = 64
"""Requests that may be here at once, of all users; further ones are told to come back."""
OF_ONE_USER = 16
"""Requests of one user among them."""


class _Server:
    """Handles requests; `users` counts those that are here."""

    def __init__(self, service: Service, token: str) -> None:
        self.service, self.queue = service, FairQueue()
        self._token = token.encode()
        self._users: dict[str, int] = {}

    def knows(self, request: Request) -> bool:
        """Return whether a request has the token; comparing takes the same time for every one."""
        given = request.headers.get("Authorization", "").encode(errors="surrogateescape")
        return hmac.compare_digest(given, b"Bearer " + self._token)

    async def hello(self, request: Request) -> Response:
        """Say what the server is."""
        return _json(self.service.hello())

    async def has_model(self, request: Request) -> Response:
        """Say whether a model is here."""
        if self.service.has(request.match_info["key"]):
            return _json({})
        return _json({"error": "the model is not here."}, 404)

    async def take_model(self, request: Request) -> Response:
        """Take a model in."""
        key, body = request.match_info["key"], await _body(request, MODEL_LIMIT)
        await asyncio.to_thread(self.service.take_model, key, body)
        return _json({})

    async def run(self, request: Request) -> Response:
        """Compute something, when it is the user's turn."""
        from aiohttp.web import Response

        user = request.headers.get("X-Client", "")[:64]
        mine = self._users.get(user, 0)
        if mine >= OF_ONE_USER or sum(self._users.values()) >= REQUESTS:
            return _json({"error": "too many requests at once."}, 429)
        self._users[user] = mine + 1
        try:
            key, body = request.match_info["key"], await _body(request, BODY_LIMIT)
            work = await asyncio.to_thread(self.service.prepare, key, body)
            del body
            answer = await self.queue.run(user, work)
            return Response(body=await asyncio.to_thread(pack, *answer))
        finally:
            self._users[user] -= 1
            if not self._users[user]:
                del self._users[user]

    async def answer(
        self, request: Request, handler: Callable[[Request], Awaitable[Response]]
    ) -> Any:
        """Let in who has the token, and turn errors into a status and one line."""
        from aiohttp.web import HTTPException

        if not self.knows(request):
            return _json({"error": "the token is wrong."}, 401)
        try:
            return await handler(request)
        except HTTPException:
            raise
        except UnknownModelError as error:
            return _json({"error": str(error)}, 404)
        except UnetError as error:
            return _json({"error": str(error)}, 422)
        except (KeyError, TypeError, ValueError, IndexError) as error:
            return _json({"error": f"the request cannot be read ({first_line(error)})."}, 400)
        except (RuntimeError, MemoryError) as error:
            if is_out_of_memory(error):
                return _json({"error": "out of memory."}, 507)
            logger.exception("a request failed")
            return _json({"error": f"it failed ({first_line(error)})."}, 500)


def make_app(service: Service, token: str) -> Application:
    """Return the application of a server."""
    from aiohttp import web

    server = _Server(service, token)

    @web.middleware
    async def answer(request: Request, handler: Any) -> Any:
        return await server.answer(request, handler)

    async def close(app: Application) -> None:
        server.queue.close()
        service.close()

    app = web.Application(middlewares=[answer], client_max_size=BODY_LIMIT)
    app.router.add_get("/v1/hello", server.hello)
    app.router.add_get("/v1/models/{key}", server.has_model)
    app.router.add_put("/v1/models/{key}", server.take_model)
    app.router.add_post("/v1/run/{key}", server.run)
    app.on_cleanup.append(close)
    return app


def serve(
    service: Service,
    token: str,
    host: str,
    port: int,
    context: ssl.SSLContext | None,
    ready: Callable[[int], None],
) -> None:
    """Serve until interrupted.

    Parameters
    ----------
    port
        0 takes one that is free.
    context
        With the server's certificate; None: nothing is encrypted.
    ready
        Called with the port once requests are answered.

    Raises
    ------
    DeviceError
        The address cannot be listened at.
    """
    asyncio.run(_serve(make_app(service, token), host, port, context, ready))


async def _serve(
    app: Application,
    host: str,
    port: int,
    context: ssl.SSLContext | None,
    ready: Callable[[int], None],
) -> None:
    from aiohttp import web

    # A request whose user has gone is given up.
    runner = web.AppRunner(app, handler_cancellation=True, access_log=None)
    await runner.setup()
    try:
        site = web.TCPSite(runner, host, port, ssl_context=context, shutdown_timeout=2.0)
        try:
            await site.start()
        except OSError as error:
            raise DeviceError(
                f"{host}:{port} cannot be listened at ({error.strerror or error}); give another "
                "--port or --host."
            ) from error
        ready(int(runner.addresses[0][1]))
        stop = asyncio.Event()
        with contextlib.suppress(NotImplementedError):  # on Windows, which has no such signal
            asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
        await stop.wait()
    finally:
        await runner.cleanup()


async def _body(request: Request, limit: int) -> bytes:
    """Read a request's body, unless it is too large."""
    from aiohttp.web import HTTPRequestEntityTooLarge

    length = request.content_length
    if length is None or length > limit:
        raise HTTPRequestEntityTooLarge(limit, length or 0)
    parts, left = [], length
    async for part in request.content.iter_chunked(1 << 18):
        left -= len(part)
        if left < 0:
            raise HTTPRequestEntityTooLarge(limit, length)
        parts.append(part)
    return b"".join(parts)


def _json(values: dict[str, Any], status: int = 200) -> Response:
    from aiohttp.web import json_response

    return json_response(values, status=status)
