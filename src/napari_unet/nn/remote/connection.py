"""Requests to a server, several at a time, so that the line and the GPU are both busy.

A request may be sent again without harm: a server keeps nothing of it. So whatever happens to a
connection, what was asked is asked again for a while, and a run goes on where it was.
"""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import json
import socket
import ssl
import threading
import time
import uuid
import weakref
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

from napari_unet.core.errors import ConnectionLostError, DeviceError
from napari_unet.core.io.files import first_line
from napari_unet.core.models.folder import CARD, WEIGHTS
from napari_unet.core.server_access import REMOTE, Access, ServerAddress
from napari_unet.nn.remote.message import BODY_LIMIT, Message, MessageError, pack, unpack

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    import numpy as np

LINES = 4
"""Requests that are under way together: one is sent, one computed, one comes back, one waits."""
PATIENCE = 90.0
"""Seconds for which a lost connection is tried again."""
PAUSE = 1.0
"""Seconds between tries."""
_TIMEOUT = 60.0
"""Seconds without a sign of life after which a connection counts as lost."""
_CONNECT_TIMEOUT = 5.0
"""Seconds in which a server has to accept a connection."""
_PIECE = 1 << 16
"""Bytes sent at once: a line that is slow, but moves, is not taken for a lost one."""
_LOST = (OSError, http.client.HTTPException)
_BUSY = (429, 503)


class PendingAnswer:
    """An answer that is under way.

    Attributes
    ----------
    problem
        Why it takes longer, in a sentence; "" while nothing is wrong.
    """

    def __init__(self) -> None:
        self.problem = ""
        self._future: Future[Message] | None = None
        self._stop = threading.Event()
        self._line: http.client.HTTPConnection | None = None

    def wait(self, seconds: float) -> bool:
        """Wait for the answer, at most so long; return whether it is there, or has failed."""
        assert self._future is not None
        with contextlib.suppress(TimeoutError):
            self._future.exception(timeout=seconds)
        return self._future.done()

    def result(self) -> Message:
        """Wait for the answer and return it; raises as `ServerConnection.send` says."""
        assert self._future is not None
        return self._future.result()

    def cancel(self) -> None:
        """Give up: a server that has not begun will not begin."""
        self._stop.set()
        if self._future is None or self._future.cancel() or self._future.done():
            return
        with contextlib.suppress(*_LOST, AttributeError):  # it may end at this very moment
            line = self._line
            if line is not None and line.sock is not None:
                line.sock.shutdown(socket.SHUT_RDWR)


class ServerConnection:
    """A server, spoken to by the threads of a pool.

    Parameters
    ----------
    address, access
        Where it is, and what the user has for it.
    """

    def __init__(self, address: ServerAddress, access: Access) -> None:
        self.address = address
        self._headers = {
            "Authorization": f"Bearer {access.token}",
            "X-Client": uuid.uuid4().hex,
            "Content-Type": "application/octet-stream",
        }
        self._context = _tls_context(access.certificate) if address.secure else None
        self._pool: ThreadPoolExecutor | None = None
        self._idle: list[http.client.HTTPConnection] = []
        weakref.finalize(self, _close_all, self._idle)
        self._lock = threading.Lock()
        self._sending = threading.Lock()

    @property
    def name(self) -> str:
        """The device's name, as `--device` takes it."""
        return f"{REMOTE}:{self.address}"

    def hello(self) -> dict[str, Any]:
        """Return what the server says of itself; it is asked once, without patience.

        Raises
        ------
        ConnectionLostError
            Nobody answers.
        DeviceError
            The token is wrong, or the server is another program or another version.
        """
        try:
            status, data = self._exchange("GET", "/v1/hello", b"", PendingAnswer())
        except ssl.SSLCertVerificationError as error:
            raise DeviceError(
                f"The certificate of the server {self.address} is not trusted "
                f"({error.verify_message}); if it is of your lab's own making, give its file "
                "(certificate) with the server's token."
            ) from error
        except _LOST as error:
            raise ConnectionLostError(
                f"The server {self.address} does not answer ({_reason(error)}); is `napari-unet "
                "serve` running there, and the tunnel open?"
            ) from error
        self._check(status, data)
        try:
            found = json.loads(data)
            if not isinstance(found["device"], str):
                raise TypeError
        except (ValueError, KeyError, TypeError) as error:
            raise DeviceError(
                f"What answers at {self.address} is no napari-unet server."
            ) from error
        return dict(found)

    def send(
        self, model: SentModel, header: Mapping[str, Any], arrays: Mapping[str, np.ndarray]
    ) -> PendingAnswer:
        """Ask something of a model; return at once.

        The answer's `result` raises `ConnectionLostError` after `PATIENCE`, MemoryError if the
        server's memory did not suffice, and DeviceError for whatever else the server refuses.
        """
        pending = PendingAnswer()
        body = pack(header, arrays)
        if len(body) > BODY_LIMIT:
            raise MemoryError("out of memory: a tile is larger than a server takes")
        if self._pool is None:
            self._pool = ThreadPoolExecutor(LINES, thread_name_prefix="napari-unet-remote")
        pending._future = self._pool.submit(self._ask, model, body, pending)
        return pending

    def _ask(self, model: SentModel, body: bytes, pending: PendingAnswer) -> Message:
        lost_since: float | None = None
        while True:
            try:
                status, data = self._exchange("POST", f"/v1/run/{model.key}", body, pending)
                if status == 404:
                    status, data = self._give(model, pending)
                    if status == 200:
                        continue
                if status not in _BUSY:
                    self._check(status, data)
                    return unpack(data)
                problem = f"the server {self.address} is busy"
            except _LOST as error:
                if pending._stop.is_set():
                    raise ConnectionLostError("cancelled") from error
                lost_since = lost_since or time.monotonic()
                problem = f"lost the connection to {self.address} ({_reason(error)}); trying again"
                if time.monotonic() - lost_since > PATIENCE:
                    raise ConnectionLostError(
                        f"The connection to the server {self.address} was lost ({_reason(error)}) "
                        f"and did not come back in {PATIENCE:.0f} s. What is finished is kept; run "
                        "again when the server is there."
                    ) from error
            except MessageError as error:
                raise DeviceError(
                    f"An answer of the server {self.address} cannot be read: {error}."
                ) from error
            pending.problem = problem
            if pending._stop.wait(PAUSE):
                raise ConnectionLostError("cancelled")

    def _give(self, model: SentModel, pending: PendingAnswer) -> tuple[int, bytes]:
        """Send the model, unless another request has done so meanwhile."""
        with self._sending:
            status, data = self._exchange("GET", f"/v1/models/{model.key}", b"", pending)
            if status != 404:
                return status, data
            return self._exchange("PUT", f"/v1/models/{model.key}", model.body(), pending)

    def _exchange(
        self, method: str, path: str, body: bytes, pending: PendingAnswer
    ) -> tuple[int, bytes]:
        """Send a request over a line that is free; return status and body of the answer."""
        with self._lock:
            line = self._idle.pop() if self._idle else None
        if line is not None:
            pending._line = line
            try:
                return self._talk(line, method, path, body, pending)
            except _LOST:  # the server may have closed it while it was idle: a new one decides
                line.close()
                if pending._stop.is_set():
                    raise
        line = self._open()
        pending._line = line
        try:
            return self._talk(line, method, path, body, pending)
        except BaseException:
            line.close()
            raise

    def _talk(
        self,
        line: http.client.HTTPConnection,
        method: str,
        path: str,
        body: bytes,
        pending: PendingAnswer,
    ) -> tuple[int, bytes]:
        headers = self._headers | {"Content-Length": str(len(body))}
        line.request(method, path, _pieces(body), headers)
        answer = line.getresponse()
        data = answer.read(BODY_LIMIT + 1)
        if len(data) > BODY_LIMIT:
            raise http.client.HTTPException("an answer is too large")
        if answer.will_close:
            line.close()
        else:
            with self._lock:
                self._idle.append(line)
        pending.problem = ""
        return answer.status, data

    def _open(self) -> http.client.HTTPConnection:
        host, port = self.address.host, self.address.port
        line: http.client.HTTPConnection
        if self._context is None:
            line = http.client.HTTPConnection(host, port, timeout=_CONNECT_TIMEOUT)
        else:
            line = http.client.HTTPSConnection(
                host, port, timeout=_CONNECT_TIMEOUT, context=self._context
            )
        line.connect()
        line.sock.settimeout(_TIMEOUT)
        return line

    def _check(self, status: int, data: bytes) -> None:
        """Raise what the status of an answer means."""
        if status == 200:
            return
        if status == 507:
            raise MemoryError(f"out of memory on the server {self.address}")
        if status == 401:
            raise DeviceError(
                f"The server {self.address} does not know the token; enter the one that "
                "`napari-unet serve` was started with or has printed."
            )
        try:
            said = str(json.loads(data)["error"])
        except (ValueError, KeyError, TypeError):
            said = f"status {status}"
        raise DeviceError(f"The server {self.address} refuses: {said}")


class SentModel:
    """A model as it is given to a server: its card and its weights, never code.

    Parameters
    ----------
    folder
        The model's folder.
    key
        What the server knows it by; see `model_key`.
    """

    def __init__(self, folder: Path, key: str) -> None:
        self.folder, self.key = folder, key

    def body(self) -> bytes:
        """Return the model as a message."""
        import numpy as np

        weights = np.fromfile(self.folder / WEIGHTS, np.uint8)
        card = (self.folder / CARD).read_text(encoding="utf-8")
        return pack({"card": card}, {"weights": weights})


def model_key(spec: Mapping[str, Any], weights_hash: str) -> str:
    """Return what a server knows a model by: the hash of what its network is built from."""
    text = json.dumps([spec, weights_hash], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def _close_all(lines: list[http.client.HTTPConnection]) -> None:
    for line in lines:
        line.close()


def _pieces(body: bytes) -> Iterator[bytes]:
    for start in range(0, len(body), _PIECE):
        yield body[start : start + _PIECE]


def _reason(error: BaseException) -> str:
    if isinstance(error, TimeoutError):
        return "no sign of life"
    strerror = getattr(error, "strerror", None)
    return str(strerror or first_line(error))


def _tls_context(certificate: str) -> ssl.SSLContext:
    """Return what checks a server's certificate: by the system's, or by the one that is given."""
    try:
        return ssl.create_default_context(cafile=certificate or None)
    except OSError as error:
        raise DeviceError(
            f"The certificate {certificate} cannot be read ({first_line(error)})."
        ) from error
